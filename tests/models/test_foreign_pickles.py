"""Foreign objects beside tensors are passed over; nothing of a pickle is imported or executed."""

from __future__ import annotations

import argparse
import builtins
import collections
import datetime
import enum
import functools
import io
import operator
import os
import pathlib
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from synq_tune.config import Weights
from synq_tune.errors import InputError
from synq_tune.models.checkpoint import Checkpoint, fit_checkpoint, read_checkpoint
from synq_tune.models.inert_pickle import Inert, read_inert


class Colour(enum.Enum):
    """A setting as trainers write it."""

    RED = 1


class Settings(dict):
    """A mapping with attributes, like many trainers' settings."""

    def __setitem__(self, key: Any, value: Any) -> None:
        raise AssertionError("it was executed")


class Meter:
    """A running average as trainers keep it."""

    def __init__(self) -> None:
        self.total = torch.ones(1)

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("it was executed")


class Net(nn.Module):
    """A stranger's network."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)


def _state() -> dict[str, torch.Tensor]:
    return Net().state_dict()


BESIDE: dict[str, Any] = {
    "Namespace": argparse.Namespace(lr=0.1, name="x"),
    "NumPy scalar": np.float64(91.3),
    "NumPy integer": np.int64(3),
    "NumPy array": np.arange(3),
    "date": datetime.datetime(2024, 1, 2),
    "path": pathlib.PurePosixPath("/data"),
    "enum": Colour.RED,
    "ordered": collections.OrderedDict(a=1),
    "default": collections.defaultdict(list, a=[1]),
    "deque": collections.deque([1, 2]),
    "size": torch.Size([1, 2]),
    "dtype": torch.float16,
    "device": torch.device("cpu"),
    "object": Meter(),
    "partial": functools.partial(max, 1),
    "built-in function": max,
    "class": Meter,
    "namespace": types.SimpleNamespace(a=1),
    "set": {1, 2},
    "frozen set": frozenset({1}),
    "complex": 1j,
    "slice": slice(1, 2),
    "range": range(3),
    "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": np.float32(1)}]},
    "scheduler": collections.Counter([1, 1]),
    "big number": 1 << 300,
    "bytes": b"\0" * 300,
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before zip"])
@pytest.mark.parametrize("value", BESIDE.values(), ids=BESIDE.keys())
def test_what_lies_beside_the_tensors_is_passed_over(
    tmp_path: Path, value: Any, zipped: bool, protocol: int
) -> None:
    """Whatever class it is, in both of torch's formats and in every protocol."""
    path, expected = tmp_path / "net.pth", _state()
    content = {"args": value, "state_dict": expected, "more": [value]}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    net = Net()
    fit_checkpoint(net, read_checkpoint(Weights(file=str(path))), str(path))
    assert all(torch.equal(v, expected[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before zip"])
def test_tensors_are_read_as_torch_reads_them(tmp_path: Path, zipped: bool) -> None:
    """Views, transposed, shared, empty and of every type, beside something foreign."""
    base = torch.arange(24.0).reshape(4, 6)
    kinds = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64, torch.bool)
    expected = {
        "part": base[1:3, 2:5], "turned": base.t(), "shared": base, "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5), "parameter": nn.Parameter(base[0]),
        "wide": torch.ones(1).expand(5), **{str(kind): base.to(kind) for kind in kinds},
    }  # fmt: skip
    path = tmp_path / "net.pth"
    content = {"foreign": Meter(), "state_dict": expected}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    (nest,) = [n for n in read_checkpoint(Weights(file=str(path))).nests if n.name == "state_dict"]
    assert nest.tensors.keys() == expected.keys()
    for key, value in expected.items():
        assert nest.tensors[key].dtype == value.dtype, key
        assert torch.equal(nest.tensors[key], value), key


def test_a_foreign_mapping_is_looked_into(tmp_path: Path) -> None:
    """A state dict inside a trainer's own dictionary class is found."""
    outer = Settings()
    dict.__setitem__(outer, "model", _state())
    torch.save(outer, tmp_path / "net.pth", pickle_protocol=4)
    assert [n.name for n in read_checkpoint(Weights(file=str(tmp_path / "net.pth"))).nests] == [
        "model"
    ]


@pytest.mark.parametrize("nest", [None, "model"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before zip"])
def test_a_whole_network_is_named_by_its_class(
    tmp_path: Path, nest: str | None, zipped: bool
) -> None:
    """The message says how to save the tensors alone."""
    path = tmp_path / "net.pth"
    content = Net() if nest is None else {nest: Net(), "epoch": 3, "best": torch.ones(1)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        InputError, match=r"whole network.*test_foreign_pickles\.Net.*state_dict\(\)"
    ):
        read_checkpoint(Weights(file=str(path)))


class _Call:
    """Pickled as a call of anything with any arguments."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced

    def __call__(self) -> None:
        """Pickle writes calls of what can be called."""


def _touch(path: Path) -> str:
    return f"open({str(path)!r}, 'w').close()"


ATTACKS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda p: _Call(os.system, (f"touch {p}",)),
    "eval": lambda p: _Call(eval, (_touch(p),)),
    "exec": lambda p: _Call(exec, (_touch(p),)),
    "open": lambda p: _Call(open, (str(p), "w")),
    "import": lambda p: _Call(__import__, ("os",)),
    "getattr chain": lambda p: _Call(_Call(getattr, (os, "system")), (f"touch {p}",)),
    "method of a value": lambda p: _Call(_Call(operator.attrgetter("open"), (io,)), (str(p), "w")),
    "map of calls": lambda p: _Call(list, (_Call(map, (open, [str(p)])),)),
    "partial": lambda p: _Call(functools.partial(open, str(p), "w"), ()),
    "path.touch": lambda p: _Call(pathlib.Path.touch, (pathlib.PosixPath(p),)),
    "setstate": lambda p: _Call(Meter, (), {"x": 1}),
    "state of a class": lambda p: _Call(getattr, (Meter, "__init__"), {"__code__": 1}),
    "items by call": lambda p: _Call(Settings, (), None, None, iter([("a", 1)])),
    "state setter": lambda p: _Call(Meter, (), {"x": 1}, None, None, lambda_free),
    "torch.load": lambda p: _Call(torch.load, (str(p),)),
    "storage from bytes": lambda p: _Call(
        torch.storage._load_from_bytes, (b"cos\nsystem\n(S'x'\ntR.",)
    ),
    "code object": lambda p: _Call(types.SimpleNamespace, ()),
}


def lambda_free(instance: Any, state: Any) -> None:
    """A function that a pickle may name as the setter of a state."""
    raise AssertionError("it was executed")


def _dumps(content: Any) -> bytes:
    class Python(pickle._Pickler):
        """Writes modules by name too, as an attacker's own writer could."""

        def save_global(self, obj: Any, name: str | None = None) -> None:
            super().save_global(obj, name)

    Python.dispatch = {
        **Python.dispatch,
        types.ModuleType: lambda self, obj: self.save_reduce(builtins.__import__, (obj.__name__,)),
    }
    out = io.BytesIO()
    Python(out, 2).dump(content)
    return out.getvalue()


@pytest.mark.parametrize("where", ["beside", "instead"])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_nothing_of_a_pickle_runs(
    tmp_path: Path, attack: Callable[[Path], Any], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that carries code is refused or read for its tensors; either way nothing happens."""
    bomb, path = tmp_path / "executed", tmp_path / "net.pth"
    torch.save({"x": torch.ones(2)}, path)
    evil = attack(bomb)
    pickled = _dumps({"state_dict": evil} if where == "instead" else {"args": evil})
    rewritten = tmp_path / "evil.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(rewritten, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    before = set(sys.modules)
    with pytest.raises(InputError):
        read_checkpoint(Weights(file=str(rewritten)))
    assert not bomb.exists()
    assert {m for m in set(sys.modules) - before if "evil" in m} == set()


def test_a_file_with_code_beside_good_tensors_is_refused(tmp_path: Path) -> None:
    """Its author is not to be trusted with the weights either; the name is in the message."""
    path = tmp_path / "net.pth"
    torch.save({"state_dict": _state(), "args": _Call(os.system, ("true",))}, path)
    with pytest.raises(InputError, match="asks for (posix|os|nt).system.*not executed"):
        read_checkpoint(Weights(file=str(path)))


def test_a_name_with_escape_codes_is_shown_without(tmp_path: Path) -> None:
    """A terminal is not at the mercy of a class's name."""
    raw = b"\x80\x02cevil\x1b[31m\nRed\n)\x81}(X\x01\0\0\0aK\x01ub."
    content = read_inert(io.BytesIO(raw), {})
    assert isinstance(content.value, Inert)
    torch.save({"x": torch.ones(1)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as old,
        zipfile.ZipFile(tmp_path / "b.pth", "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, raw if name.endswith("data.pkl") else old.read(name))
    with pytest.raises(InputError) as caught:
        read_checkpoint(Weights(file=str(tmp_path / "b.pth")))
    assert "\x1b" not in str(caught.value)


LAUGHS = b"\x80\x02}q\x00" + b"".join(
    b"}(X\x01\0\0\0a" + b"h" + bytes([n]) + b"X\x01\0\0\0bh" + bytes([n]) + b"uq" + bytes([n + 1])
    for n in range(40)
)


@pytest.mark.parametrize(
    "raw",
    [
        LAUGHS + b".",
        b"\x80\x02}q\x00X\x01\0\0\0ah\x00s.",
        b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b".",
        b"\x80\x02" + b"}" + b"X\x01\0\0\0a}" * 3000 + b"s" * 3000 + b".",
    ],
    ids=["shared many times", "holds itself", "deep tuples", "deep dictionaries"],
)
def test_odd_shapes_end_quickly(tmp_path: Path, raw: bytes) -> None:
    """Neither a recursion nor a blow-up ends the process."""
    torch.save({"x": torch.ones(1)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as old,
        zipfile.ZipFile(tmp_path / "b.pth", "w") as new,
    ):
        for name in old.namelist():
            foreign = b"\x80\x02carg\nNs\n0" + raw[2:]
            new.writestr(name, foreign if name.endswith("data.pkl") else old.read(name))
    with pytest.raises(InputError):
        read_checkpoint(Weights(file=str(tmp_path / "b.pth")))


def test_storages_are_checked(tmp_path: Path) -> None:
    """A tensor that would reach beyond its storage is damage, not memory of the process."""
    path = tmp_path / "net.pth"
    torch.save({"foreign": Meter(), "x": torch.ones(64)}, path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
    # The size of x (64) in `rebuild(storage, offset, size, stride)`, made larger than the storage.
    changed = pickled.replace(b"K\x00K@\x85", b"K\x00K\xff\x85")
    assert changed != pickled
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, changed if name.endswith("data.pkl") else old.read(name))
    with pytest.raises(InputError, match="whole"):
        read_checkpoint(Weights(file=str(path)))


def test_a_checkpoint_of_tensors_is_one_nest() -> None:
    """The short way for tensors that are at hand."""
    assert [n.name for n in Checkpoint.of(_state()).nests] == [""]
