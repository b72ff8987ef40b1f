"""Read a teacher's checkpoint without ever executing it, and fit it into its network."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from safetensors.torch import load_file
from torch import Tensor, nn

from synq_tune.config import Weights
from synq_tune.errors import InputError
from synq_tune.models.archive import ZIP_DAMAGE, weights_member
from synq_tune.models.file_kinds import kind_of
from synq_tune.models.fitting import Fit, fits, in_order
from synq_tune.models.nests import Nest, find_foreign, find_modules, find_nests, is_average
from synq_tune.models.torch_file import SAVE_AGAIN, read_torch_file
from synq_tune.notes import printable

_ORDER_HINT = (
    " Its tensors have the network's shapes in the network's order: if they are these layers under "
    "other names, pass --set teacher.weights.match=order."
)


@dataclass(frozen=True)
class Checkpoint:
    """The state dicts of one file, in the order in which they were found."""

    nests: list[Nest]
    key: str | None = None
    """Which of them the user asks for; None = the one that fits."""
    by_order: bool = False
    """Whether tensors may be matched by their order, where no names fit."""
    keeps_order: bool = True
    """Whether the file's order is its author's: safetensors sorts."""

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], by_order: bool = False) -> Checkpoint:
        """A checkpoint that is one state dict."""
        return cls([Nest((), dict(tensors))], by_order=by_order)


def read_checkpoint(weights: Weights) -> Checkpoint:
    """Every state dict of a file; what lies beside the tensors is passed over and never executed.

    A zip file that is no torch.save is read for its one `.pth` member, in memory; the sum is the
    member's. What a file is, its content says and not its suffix.

    Raises:
        InputError: the file is missing, truncated, of another sum, or of another kind, which the
            message names together with the fix.
    """
    path = Path(weights.file or "").expanduser()
    sums = {"sha1": weights.sha1, "sha256": weights.sha256}
    try:
        content = _read(path, {kind: given.lower() for kind, given in sums.items() if given})
    except OSError as error:
        raise InputError(
            f"`the weights file can be read` must hold, but got weights={str(path)!r}: "
            f"{error.strerror or error}."
        ) from error
    nests = find_nests(content)
    _check_tensors(path, content, nests)
    keeps_order = kind_of(path) != "safetensors"
    return Checkpoint(nests, weights.key, weights.by_order, keeps_order)


def _read(path: Path, sums: Mapping[str, str]) -> Any:
    try:
        kind = kind_of(path)
    except InputError as error:
        if sums and path.is_file():
            raise _other_sum(path, sums, str(error).partition("must hold, but ")[2]) from error
        raise
    if kind == "archive":
        file = _member(path)
        _check_sums(path, file, sums)
        return read_torch_file(path, file)
    with open(path, "rb") as opened:
        _check_sums(path, opened, sums)
        return _read_safetensors(path) if kind == "safetensors" else read_torch_file(path, opened)


def _member(path: Path) -> IO[bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            return io.BytesIO(archive.read(weights_member(archive, str(path))))
    except ZIP_DAMAGE as error:
        raise InputError(f"{path}: `the zip file is whole` must hold, but got: {error}.") from error


def _check_sums(path: Path, file: IO[bytes], sums: Mapping[str, str]) -> None:
    for kind, expected in sums.items():
        actual = hashlib.file_digest(file, kind).hexdigest()
        file.seek(0)
        if not actual.startswith(expected):
            raise InputError(
                f"{path}: `{kind} == {expected}` must hold, but got {kind}={actual}. Download it "
                f"again; if you mean this file, pass --set teacher.weights.{kind}=null."
            )


def _other_sum(path: Path, sums: Mapping[str, str], what: str) -> InputError:
    """A pinned file is another one: its sum, and what it is instead of a checkpoint."""
    kind, expected = next(iter(sums.items()))
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, kind).hexdigest()
    return InputError(f"{path}: `{kind} == {expected}` must hold, but got {kind}={actual}: {what}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # its own errors, and what its Python part raises for odd headers
        raise InputError(
            f"{path}: `the file is whole safetensors` must hold, but got: {printable(error, 160)}. "
            "It is truncated or damaged: download or copy it again."
        ) from error


def _check_tensors(path: Path, content: Any, nests: list[Nest]) -> None:
    """Refuse a file without any state dict, and say what it holds instead."""
    modules = find_modules(content)
    if modules and (not nests or not any(len(nest.tensors) > 1 for nest in nests)):
        raise InputError(
            f"{path}: `the checkpoint holds only tensors` must hold, but it is a whole network of "
            f"class {printable(modules[0])}, which is not executed. {SAVE_AGAIN}"
        )
    if nests:
        return
    arrays = [name for name in find_foreign(content) if name.startswith("numpy.")]
    if arrays:
        raise InputError(
            f"{path}: `the checkpoint is a state_dict` must hold, but it holds NumPy arrays. Save "
            "tensors: torch.save({name: torch.from_numpy(array), …}, 'weights.pth')."
        )
    raise InputError(
        f"{path}: `the checkpoint is a state_dict` must hold, but it holds {_described(content)} "
        f"and no tensors by name. {SAVE_AGAIN}"
    )


def _described(content: Any) -> str:
    if isinstance(content, dict):
        keys = ", ".join(printable(key, 30) for key in list(content)[:5])
        return f"the keys {keys}" if keys else "an empty dictionary"
    foreign = find_foreign(content)[:1]
    return f"an object of {printable(foreign[0])}" if foreign else f"a {type(content).__name__}"


def fit_checkpoint(model: nn.Module, checkpoint: Checkpoint, where: str) -> list[str]:
    """Load into `model` the state dict of a checkpoint that fits it; every key and shape must fit.

    Of several that fit, an average over training (EMA) is taken. A prefix is taken off where that
    makes the names the network's. Where no names fit and the checkpoint allows it, the n-th tensor
    is the network's n-th, see `in_order`.

    Args:
        model: changed in place.
        checkpoint: see `read_checkpoint`.
        where: the file, for messages.

    Returns:
        One line per choice that was made: which state dict, which prefix.

    Raises:
        InputError: names the first keys that are missing, left over or of another shape, or tensors
            that are no plain numbers.
    """
    own = model.state_dict()
    found = [fit for nest in checkpoint.nests for fit in fits(nest, own)]
    if checkpoint.key is not None:
        found = _asked(found, checkpoint.key, where)
    whole = sorted((f for f in found if f.is_whole), key=_rank)
    if not whole:
        ordered = in_order([f.nest for f in found], own) if checkpoint.keeps_order else []
        if not (ordered and checkpoint.by_order):
            nearest = min(found, key=lambda f: (f.distance, *_rank(f)))
            raise _no_fit(nearest, where, is_ordered=bool(ordered))
        found = whole = sorted(ordered, key=_rank)
    chosen = whole[0]
    used = {k: v for k, v in chosen.tensors.items() if k in own}
    _check_plain(used, where)
    # Old layouts are told by a version that safetensors drops; the keys fit, so it is the model's.
    versioned = OrderedDict(used)
    versioned._metadata = own._metadata
    model.load_state_dict(versioned, strict=False)
    return _notes(chosen, whole, found, where)


def _rank(fit: Fit) -> tuple[Any, ...]:
    return (not is_average(fit.name), *fit.nest.rank[1:], len(fit.prefix))


def _asked(found: list[Fit], key: str, where: str) -> list[Fit]:
    named = [f for f in found if f.name == key] or [f for f in found if f.nest.name == key]
    if named:
        return named
    names = ", ".join(printable(name) for name in dict.fromkeys(f.name for f in found))
    raise InputError(
        f"{where}: `teacher.weights.key names a state dict of the file` must hold, but got "
        f"key={printable(key)!r}. There are: {names}."
    )


def _notes(chosen: Fit, whole: list[Fit], found: list[Fit], where: str) -> list[str]:
    lines = []
    if chosen.change:
        lines.append(f"{where}: {chosen.change}, so that the weights fit the network.")
    others = [f.name for f in whole[1:]]
    if others:
        why = "an average over training" if is_average(chosen.name) else "the first of its kind"
        lines.append(
            f"{where}: read {printable(chosen.name)} ({why}); {', '.join(map(printable, others))} "
            f"would fit too. Take it with --set teacher.weights.key={printable(others[0])}."
        )
    averages = [f for f in found if not f.is_whole and is_average(f.name)]
    if averages and not is_average(chosen.name):
        parts = "; ".join(_problems(averages[0]))
        lines.append(
            f"{where}: read {printable(chosen.name)}, as {printable(averages[0].name)} does not fit "
            f"the network: {parts}."
        )
    return lines


def _check_plain(tensors: Mapping[str, Tensor], where: str) -> None:
    kinds = {
        "quantized": lambda t: t.is_quantized,
        "sparse": lambda t: not t.is_quantized and t.layout.__repr__() != "torch.strided",
        "complex": lambda t: t.is_complex(),
        "without values (meta)": lambda t: t.is_meta,
    }
    for kind, is_kind in kinds.items():
        wrong = next((name for name, tensor in tensors.items() if is_kind(tensor)), None)
        if wrong is not None:
            raise InputError(
                f"{where}: `the weights are plain float tensors` must hold, but {printable(wrong)} is "
                f"{kind}. Give the full-precision checkpoint; synq-tune quantizes it itself."
            )


def _no_fit(fit: Fit, where: str, is_ordered: bool) -> InputError:
    nest = f" (read: {printable(fit.name)})" if fit.nest.path else ""
    quantized = next((k for k, v in fit.nest.tensors.items() if v.is_quantized), None)
    if quantized is not None:
        _check_plain(fit.nest.tensors, where)
    return InputError(
        f"{where}: `the weights fit the model` must hold, but got "
        f"{'; '.join(_problems(fit))}{nest}.{_ORDER_HINT if is_ordered else ''}"
    )


def _problems(fit: Fit) -> list[str]:
    parts = (
        _some("missing", fit.missing),
        _some("left over", fit.extra),
        _some("wrong shape", fit.wrong),
    )
    return [part for part in parts if part]


def _some(what: str, keys: list[str]) -> str:
    shown = ", ".join(printable(key) for key in keys[:3]) + (", …" if len(keys) > 3 else "")
    return f"{len(keys)} {what} ({shown})" if keys else ""
