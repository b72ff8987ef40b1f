"""A network made plain, traced, and its trace compared with it: the trace is checked, not
trusted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from synq_tune.errors import InputError
from synq_tune.graph.hidden import open_hidden
from synq_tune.graph.hooks import drop_hooks, drop_silent
from synq_tune.graph.trace import first_line, trace
from synq_tune.models.blame import (
    BATCH_TOLERANCE,
    TOLERANCE,
    distance,
    first_difference,
    first_missed,
)
from synq_tune.models.fold import fold, open_normalize
from synq_tune.models.outputs import fix_forward, read
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.models.probabilities import check_logits
from synq_tune.models.reference import (
    FEW,
    Reference,
    ask,
    check_repeats,
    check_tensors,
    device_of,
    isolated,
    random_images,
    run,
)
from synq_tune.models.unwrap import eagerly, to_float32, unwrap


@dataclass(frozen=True)
class Traced:
    """A graph that computes what its network computes."""

    graph: fx.GraphModule
    notes: tuple[str, ...]
    """What was done to the network before, one line each."""
    additions: tuple[tuple[str, Tensor | None], ...]
    """What the graph computes beyond the tensors in the network's state_dict: lines and tensors."""


def trace_checked(
    model: nn.Module, preprocessing: Preprocessing, name: str, has_weights: bool = True
) -> Traced:
    """Make a network plain, trace it, and compare both on a few random images.

    Args:
        model: with its weights; changed in place. No parameter requires a gradient afterwards.
        preprocessing: says the images' size and range.
        name: what errors call the network.
        has_weights: whether its values count; a network that will get others is only made plain.

    Raises:
        InputError: the network is not finite, not repeatable, gives no logits, cannot be traced, or
            its trace computes something else; the text names the place.
    """
    network, notes = unwrap(model)
    opened = open_hidden(network)
    notes += to_float32(network.eval().requires_grad_(False))
    if has_weights:
        check_tensors(network, name)
    device = device_of(network)
    with isolated(device), eagerly():
        reference = ask(network, random_images(preprocessing, device), name)
        if has_weights:
            check_repeats(network, reference, name)
        folded, rewritten = _make_plain(network, reference)
        graph = trace(network, preprocessing.shape)
        drop_hooks(graph.requires_grad_(False).modules())
        if has_weights:
            compare(network, graph, reference, name)
            check_logits(graph, reference.logits, name)
    hidden = _used(graph, opened + graph.meta["installed"])
    notes += [*_hidden_note(hidden), *folded, *rewritten, *reference.notes]
    state = {k: v for k, v in graph.state_dict().items() if k.startswith(tuple(hidden))}
    additions = (*((line, None) for line in rewritten), *sorted(state.items()))
    return Traced(graph, tuple(notes), additions if hidden or rewritten else ())


def _make_plain(network: nn.Module, reference: Reference) -> tuple[list[str], list[str]]:
    """Fold and open what the tracer does not see; (notes, notes on what it would have passed
    over)."""
    folded = fold(network)
    rewritten = open_normalize(network)
    hooked = drop_silent(network, set(reference.speaking))
    if hooked:
        rewritten.append(f"forward hooks are part of the network: {_some(hooked)}")
    if fix_forward(network, reference.path, reference.writes_images) and not hooked:
        rewritten.append("the forward assigned to the network is the one that counts")
    return folded, rewritten


def _used(graph: fx.GraphModule, paths: list[str]) -> list[str]:
    targets = [str(node.target) for node in graph.graph.nodes]
    return [p for p in paths if any(t == p or t.startswith(f"{p}.") for t in targets)]


def _hidden_note(paths: list[str]) -> list[str]:
    return [f"layers that are no submodules of it became some: {_some(paths)}"] if paths else []


def _some(names: list[str]) -> str:
    return ", ".join(name or "itself" for name in names[:4]) + (", …" if len(names) > 4 else "")


def compare(network: nn.Module, graph: fx.GraphModule, reference: Reference, name: str) -> None:
    """Refuse a graph that does not compute the network's logits, for another batch size as well.

    Raises:
        InputError: names the first module at which they part.
    """
    few = reference.images[:FEW]
    found = _run_graph(graph, few, name)
    error = distance(found, reference.logits)
    if error > TOLERANCE:
        raise InputError(
            f"`the traced graph computes what the network computes` must hold, but got logits off by "
            f"{100 * error:.2g} % of the largest from {name!r}{first_missed(network, few)}. Write "
            "that place with plain operations on tensors (no autocast, no isinstance), or leave it out."
        )
    found = _run_graph(graph, reference.images, name)
    is_whole = found.shape[:1] == reference.images.shape[:1]
    if not is_whole or distance(found[:FEW], reference.logits) > BATCH_TOLERANCE:
        _refuse_batch(network, reference, name)


def _refuse_batch(network: nn.Module, reference: Reference, name: str) -> None:
    """Whether the network itself or only its trace depends on the number of images."""
    images = reference.images
    logits = read(run(network, images.clone()), ())
    if distance(logits[:FEW], reference.logits) > BATCH_TOLERANCE:
        where = first_difference(network, images[:FEW], images, BATCH_TOLERANCE)
        raise InputError(
            "`an image's logits do not depend on the others in its batch` must hold, but they do in "
            f"{name!r}{where}. A BatchNorm without running statistics does that, for example."
        )
    raise InputError(_counts(name, len(images), "it computes other logits there"))


def _counts(name: str, count: int, what: str) -> str:
    return (
        f"`the traced graph takes any number of images` must hold, but got {name!r}, traced with {FEW} "
        f"images, on {count}: {what}. Its forward counts the images in Python (len(x), a list, a "
        "number written down): use x.shape[0] or -1."
    )


def _run_graph(graph: fx.GraphModule, images: Tensor, name: str) -> Tensor:
    given = images.clone()
    try:
        # Not graph(images): that prints the generated code where it fails.
        logits = graph.forward(given)
    except Exception as error:  # whatever an operation raises for another number of images
        where = _failing(graph, images)
        raise InputError(_counts(name, len(images), f"{first_line(error)}{where}")) from error
    if given._version > 0:
        raise InputError(
            f"`the network leaves its images as they are` must hold, but {name!r} writes into them. "
            "Start its forward with x = x.clone()."
        )
    return logits


class _Finder(fx.Interpreter):
    place = ""

    def run_node(self, node: fx.Node) -> object:
        stack = node.meta.get("nn_module_stack") or {}
        path = next(reversed(stack.values()))[0] if stack else ""
        self.place = f" at {node.name}" + (f" in {path}" if path else "")
        return super().run_node(node)


@torch.no_grad()
def _failing(graph: fx.GraphModule, images: Tensor) -> str:
    finder = _Finder(graph)
    try:
        finder.run(images.clone())
    except Exception:  # the same again; only the place is new
        return finder.place
    return ""
