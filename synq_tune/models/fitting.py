"""Which names a state dict has under a network's own: prefixes are found, not listed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from synq_tune.models.nests import Nest

_WRAPPERS = {
    "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module",
    "_ddp_module",
}  # fmt: skip
"""What DataParallel, torch.compile and their kind put between a network's names."""
_COUNTERS = {
    "n_averaged", "num_batches_tracked", "num_updates", "num_updates_tracked", "decay", "step",
    "initted", "epoch", "global_step", "iteration",
}  # fmt: skip
_MOST_PREFIXES = 16
_BY_ORDER = "tensors are matched by order and shape, as their names are not the network's"


@dataclass(frozen=True, eq=False)
class Fit:
    """A nest under the network's names, and what does not go together."""

    nest: Nest
    change: str
    """What was done to the names, for the user; empty where nothing was."""
    prefix: str
    tensors: dict[str, Tensor]
    """Under the network's names, with what is left over."""
    missing: list[str]
    extra: list[str]
    wrong: list[str]
    """Names of another shape, with both shapes."""
    is_part: bool = False
    """Whether other networks of this shape lie in the same dictionary."""

    @property
    def is_whole(self) -> bool:
        """Every name and shape is the network's."""
        return not (self.missing or self.extra or self.wrong)

    @property
    def name(self) -> str:
        """The nest, or the part of it under a prefix, as `teacher.weights.key` names it."""
        part = self.prefix.rstrip(".") if self.is_part else ""
        return ".".join(filter(None, (self.nest.name, part))) or "the file itself"

    @property
    def distance(self) -> int:
        """Number of names that do not go together."""
        return len(self.missing) + len(self.extra) + len(self.wrong)


def fits(nest: Nest, own: dict[str, Tensor]) -> list[Fit]:
    """Ways to read a nest, the best first; several whole ones where it holds several networks."""
    direct = _compare(nest, "", "", nest.tensors, own)
    if direct.is_whole:
        return [direct]
    tried = [direct]
    for change in (_without_prefixes, _without_wrappers, _with_own_prefix):
        found = change(nest, own)
        whole = [fit for fit in found if fit.is_whole]
        if whole:
            return whole
        tried += found
    return [min(tried, key=lambda fit: fit.distance)]


def in_order(nests: Iterable[Nest], own: dict[str, Tensor]) -> list[Fit]:
    """Nests whose n-th tensor can only be the network's n-th, under the network's names.

    Number, shapes and the last part of the names (`weight`, `running_var`) are the same throughout;
    counters do not count.
    """
    names = [k for k, v in own.items() if not is_counter(k, v)]
    found = []
    for nest in dict.fromkeys(nests):
        theirs = [(k, v) for k, v in nest.tensors.items() if not is_counter(k, v)]
        pairs = list(zip(names, theirs, strict=False))
        is_alike = len(names) == len(theirs) and all(
            own[name].shape == tensor.shape and _role(name) == _role(key)
            for name, (key, tensor) in pairs
        )
        if is_alike:
            tensors = {name: tensor for name, (_, tensor) in pairs}
            found.append(_compare(nest, _BY_ORDER, "", tensors, own))
    return found


def _role(name: str) -> str:
    """What a tensor is inside its layer."""
    return name.rpartition(".")[2]


def _compare(
    nest: Nest, change: str, prefix: str, tensors: dict[str, Tensor], own: dict[str, Tensor]
) -> Fit:
    # Counters of old BatchNorm versions are not weights.
    missing = [k for k in own if k not in tensors and not k.endswith("num_batches_tracked")]
    extra = [k for k, v in tensors.items() if k not in own and not is_counter(k, v)]
    wrong = [
        f"{k} {list(tensors[k].shape)} (the model's: {list(own[k].shape)})"
        for k in own
        if k in tensors and own[k].shape != tensors[k].shape
    ]
    return Fit(nest, change, prefix, tensors, missing, extra, wrong)


def is_counter(name: str, tensor: Tensor) -> bool:
    """Whether a tensor counts something about the training, such as `n_averaged`."""
    return tensor.numel() == 1 and name.rpartition(".")[2] in _COUNTERS


def _without_prefixes(nest: Nest, own: dict[str, Tensor]) -> list[Fit]:
    """One fit for all names under one prefix; one for each where several networks are inside."""
    groups = {p: [k for k in nest.tensors if k.startswith(p)] for p in _prefixes(nest, own)}
    groups[""] = [k for k in nest.tensors if k in own]
    parts = [
        _compare(
            nest,
            f"prefix {prefix!r} taken off" if prefix else "",
            prefix,
            {k.removeprefix(prefix): nest.tensors[k] for k in keys},
            own,
        )
        for prefix, keys in groups.items()
    ]
    whole = [fit for fit in parts if fit.is_whole]
    covered = {key for fit in whole for key in groups[fit.prefix]}
    outside = [k for k, v in nest.tensors.items() if k not in covered and not is_counter(k, v)]
    if whole and not outside:
        return [replace(fit, is_part=len(whole) > 1) for fit in whole]
    # Names outside the prefix belong to no network that is known here: they are left over.
    return [_compare(nest, f.change, f.prefix, _stripped(nest, f.prefix), own) for f in parts]


def _stripped(nest: Nest, prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in nest.tensors.items()}


def _prefixes(nest: Nest, own: dict[str, Tensor]) -> list[str]:
    """Whatever stands before the network's longest first names in the nest."""
    found: dict[str, None] = {}
    for name in sorted(own, key=len, reverse=True)[:3]:
        for key in nest.tensors:
            if key.endswith(f".{name}"):
                found[key.removesuffix(name)] = None
    return list(found)[:_MOST_PREFIXES]


def _without_wrappers(nest: Nest, own: dict[str, Tensor]) -> list[Fit]:
    plain = {_unwrapped(k): v for k, v in nest.tensors.items()}
    if len(plain) < len(nest.tensors) or plain.keys() == nest.tensors.keys():
        return []
    return [_compare(nest, "wrappers inside the names taken off", "", plain, own)]


def _with_own_prefix(nest: Nest, own: dict[str, Tensor]) -> list[Fit]:
    """A network inside a module of the user's, whose names have one part more."""
    first, _, rest = next(iter(own), "").partition(".")
    prefix = f"{first}."
    if not rest or not all(name.startswith(prefix) for name in own):
        return []
    put_on = {f"{prefix}{k}": v for k, v in nest.tensors.items()}
    return [_compare(nest, f"prefix {prefix!r} put on", "", put_on, own)]


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)
