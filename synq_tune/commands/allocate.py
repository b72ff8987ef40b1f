"""What `scripts/allocate.py` runs: bits for each layer under a budget, and the space that has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from synq_tune.allocation.check import measure, random_assignments
from synq_tune.allocation.costs import Budget, check_feasible
from synq_tune.allocation.network import WIDTHS, Assignment, Network, bits_of, network_of
from synq_tune.allocation.sensitivity import first_probes, sensitivities
from synq_tune.allocation.solver import Losses, solve
from synq_tune.allocation.table import correlation_lines, layer_lines, total_lines, value_lines
from synq_tune.config import StudySpec
from synq_tune.errors import stage
from synq_tune.store import write_bytes
from synq_tune.synthesis.dataset import synthesize
from synq_tune.trial.assets import Assets, choose_device, load_assets
from synq_tune.trial.requirements import prepare

CHOSEN, OWN = "chosen", "the space's own"


def allocate(
    spec: StudySpec,
    budget: Budget,
    store: Path,
    num_images: int,
    check: int = 0,
    output: Path | None = None,
) -> Iterator[str]:
    """Lines to print: layers, values, costs; the space at these widths goes to `output`.

    Args:
        spec: whose dataset, quantizer and calibration are used.
        budget: what the assignment may cost.
        store: where datasets are kept.
        num_images: that a sensitivity is measured on, at most.
        check: random assignments to calibrate and measure; 0 measures nothing.
        output: file of the space; None writes none.

    Raises:
        InputError: the space is wrong, or no assignment keeps the budget.
    """
    device = choose_device()
    teacher = prepare(spec, device, store).teacher
    network = network_of(teacher, spec.bits, spec.quantizer)
    keys = network.free if budget.chooses_values else network.of("weights", free=True)
    check_feasible(network, {**network.uniform, **dict.fromkeys(keys, min(WIDTHS))}, budget)
    dataset, _ = synthesize(teacher, spec, store)
    with stage("the sensitivity", f"teacher.model={spec.teacher.model}"):
        assets = load_assets(spec, dataset.path, store, device)
        losses = sensitivities(assets, keys, first_probes(assets, num_images))
    chosen = solve(network, losses, budget)
    if output is not None:
        write_space(output, mixed_space(spec, network, chosen))
    yield from _lines(assets, network, losses, budget, chosen, check)
    if output is not None:
        yield f"search.py --space {output} has these widths"


def _lines(
    assets: Assets,
    network: Network,
    losses: Losses,
    budget: Budget,
    chosen: Assignment,
    check: int,
) -> Iterator[str]:
    yield from (*layer_lines(network, losses, chosen), "")
    yield from (*value_lines(network, losses, chosen), "")
    both, measured, drawn = {CHOSEN: chosen, OWN: network.uniform}, {}, []
    if check:
        draws = random_assignments(network, list(losses), budget, check, assets.spec.study.seed)
        rows = measure(assets, network, losses, [*both.values(), *draws])
        measured, drawn = dict(zip(both, rows, strict=False)), rows[len(both) :]
    yield from total_lines(network, losses, both, measured)
    yield from correlation_lines(drawn) if drawn else ()


def mixed_space(spec: StudySpec, network: Network, chosen: Assignment) -> dict[str, Any]:
    """A space's file: what the settings say beyond defaults, with the chosen widths."""
    tree = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    bits = bits_of(spec.bits, network, chosen).model_dump(mode="json", exclude_unset=True)
    return {**tree, "name": f"{spec.name}_mixed", "bits": bits}


def write_space(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a space; it appears whole or not at all."""
    write_bytes(path, yaml.safe_dump(dict(tree), sort_keys=False).encode())
