"""The integer program finds what trying every assignment finds."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from synq_tune.allocation.costs import (
    Budget,
    average_bits,
    bit_operations,
    keeps,
    weight_bytes,
)
from synq_tune.allocation.network import Call, Key, Network
from synq_tune.allocation.solver import Losses, predicted, solve
from synq_tune.errors import InputError

WIDTHS = (2, 3, 8)


def _instance(seed: int) -> tuple[Network, Losses]:
    """Three layers and two tensors, one key fixed; losses need not fall with the width."""
    draw = random.Random(seed)
    keys: list[Key] = [("weights", f"w{i}") for i in range(3)]
    keys += [("activations", f"a{i}") for i in range(2)]
    counts = {key: draw.randint(1, 999) for key in keys}
    fixed = draw.choice([None, *keys])
    free = tuple(key for key in keys if key != fixed)
    reads = [draw.choice([None, *keys[3:]]) for _ in range(3)]
    calls = [Call(f"w{i}", draw.randint(1, 9999), (keys[i], reads[i])) for i in range(3)]
    calls += [
        Call("product", draw.randint(1, 9999), (keys[3], keys[4])),
        Call("float", draw.randint(1, 9), (None, None)),
    ]
    losses = {key: {w: draw.random() * 10.0 ** -draw.randint(0, 4) for w in WIDTHS} for key in free}
    uniform = dict.fromkeys(keys, 4)
    return Network(counts, uniform, free, tuple(calls)), losses


def _every(network: Network, losses: Losses) -> Iterator[dict[Key, int]]:
    for widths in itertools.product(WIDTHS, repeat=len(losses)):
        yield {**network.uniform, **dict(zip(losses, widths, strict=True))}


def _budgets(network: Network, losses: Losses, draw: random.Random) -> list[Budget]:
    """Limits that a random assignment just keeps, alone and together."""
    some = draw.choice(list(_every(network, losses)))
    size, work = weight_bytes(network, some), bit_operations(network.calls, some)
    bits = max(average_bits(network, some, kind) for kind in ("weights", "activations"))
    alone = [Budget(max_size=size), Budget(max_bits=bits), Budget(max_bops=work)]
    return [*alone, Budget(size, bits, work)]


@pytest.mark.parametrize("seed", range(25))
def test_no_assignment_within_the_budget_is_better(seed: int) -> None:
    """On random networks with float inputs, fixed widths and losses that rise with the width too."""
    network, losses = _instance(seed)
    for budget in _budgets(network, losses, random.Random(seed)):
        found = solve(network, losses, budget, WIDTHS)
        assert keeps(network, found, budget)
        best = min(
            predicted(losses, bits)
            for bits in _every(network, losses)
            if keeps(network, bits, budget)
        )
        assert predicted(losses, found) == pytest.approx(best, rel=1e-6, abs=1e-9)
        assert all(found[k] == network.uniform[k] for k in network.counts if k not in losses)


@pytest.mark.parametrize("limit", ["max_size", "max_bits", "max_bops"])
def test_a_budget_below_the_least_is_refused_with_it(limit: str) -> None:
    """The message names the smallest budget; at that one there is an assignment, the narrowest."""
    network, losses = _instance(3)
    least = {**network.uniform, **dict.fromkeys(losses, 2)}
    smallest = {
        "max_size": weight_bytes(network, least),
        "max_bits": 2.0,
        "max_bops": bit_operations(network.calls, least),
    }[limit]
    with pytest.raises(InputError, match=f"at least {smallest:,.10g}`"):
        solve(network, losses, Budget(**{limit: smallest * 0.999}), WIDTHS)
    found = solve(network, losses, Budget(**{limit: smallest}), WIDTHS)
    assert keeps(network, found, Budget(**{limit: smallest}))


@pytest.mark.parametrize("seed", range(5))
def test_a_budget_a_hair_above_the_least_is_kept(seed: int) -> None:
    """What HiGHS takes for rounding is no licence: not one byte or operation more."""
    network, losses = _instance(seed)
    least = {**network.uniform, **dict.fromkeys(losses, 2)}
    for budget in (
        Budget(max_size=weight_bytes(network, least) * (1 + 1e-7)),
        Budget(max_bops=bit_operations(network.calls, least) * (1 + 1e-7)),
    ):
        assert keeps(network, solve(network, losses, budget, WIDTHS), budget)


def test_a_wide_budget_takes_the_least_loss_of_each() -> None:
    """Where nothing binds every key has the width of its own least loss."""
    network, losses = _instance(5)
    found = solve(network, losses, Budget(max_bits=8.0), WIDTHS)
    assert {k: found[k] for k in losses} == {k: min(v, key=v.get) for k, v in losses.items()}
