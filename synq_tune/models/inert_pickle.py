"""Take a stranger's pickle apart without importing, calling or changing anything of it.

`pickletools.genops` splits the bytes into operations. The machine below knows values, containers
and tensors; every other name becomes an `Inert` that remembers what was asked for and does nothing.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from synq_tune.pickle_stack import PickleStack

_KEYS = (str, int, bytes)


@dataclass(frozen=True, eq=False)
class Name:
    """A global's name, which is never looked up."""

    text: str


@dataclass(eq=False)
class Inert:
    """An object of a class that was not imported."""

    name: str
    args: Any = ()
    state: Any = None
    pairs: dict[Any, Any] = field(default_factory=dict)
    """What was set by key, as a mapping's contents are."""


@dataclass(frozen=True, eq=False)
class Persistent:
    """What torch keeps outside the pickle: a storage."""

    identity: Any


@dataclass
class Content:
    """One pickle, taken apart."""

    value: Any
    names: set[str]
    """Every global it asks for."""
    references: list[Persistent]
    """Everything it says lies outside."""


def read_inert(source: IO[bytes], calls: dict[str, Callable[..., Any]]) -> Content:
    """Read one pickle from where `source` stands; it stands behind the pickle afterwards.

    Args:
        source: a binary stream.
        calls: name → what stands for a call of it; everything else becomes an `Inert`.

    Raises:
        ValueError, and what unpacking of damaged data raises: the pickle is not whole.
    """
    machine = _Machine(calls)
    for opcode, argument, _ in pickletools.genops(source):
        machine.step(opcode.name, argument)
    (value,) = machine.stack
    return Content(value, machine.names, machine.references)


class _Machine(PickleStack):
    """Names are remembered, calls answered from a table, and everything else is inert."""

    def __init__(self, calls: dict[str, Callable[..., Any]]) -> None:
        super().__init__()
        self.calls = calls
        self.names: set[str] = set()
        self.references: list[Persistent] = []

    def operate(self, name: str, argument: Any) -> None:
        """Do one operation, or raise ValueError for one that is unknown."""
        if name not in _OPERATIONS:
            raise ValueError(f"operation {name}")
        _OPERATIONS[name](self, argument)

    def push_name(self, text: str) -> None:
        self.names.add(text)
        self.stack.append(Name(text))

    def global_(self, argument: str) -> None:
        module, _, attribute = argument.partition(" ")
        self.push_name(f"{module}.{attribute}")

    def stack_global(self, _: Any) -> None:
        module, attribute = self.take(2)
        self.push_name(f"{module}.{attribute}")

    def call(self, function: Any, arguments: Any) -> None:
        """Only a `Name` in `calls` means anything; the result of a call is never called."""
        name = function.text if isinstance(function, Name) else "the result of a call"
        known = self.calls.get(name) if isinstance(arguments, tuple) else None
        self.stack.append(known(*arguments) if known else Inert(name, arguments))

    def reduce(self, _: Any) -> None:
        self.call(*self.take(2))

    def newobj_ex(self, _: Any) -> None:
        function, arguments, _keywords = self.take(3)
        self.call(function, arguments)

    def obj(self, _: Any) -> None:
        function, *arguments = self.to_mark()
        self.call(function, tuple(arguments))

    def inst(self, argument: str) -> None:
        arguments = tuple(self.to_mark())
        self.global_(argument)
        self.call(self.stack.pop(), arguments)

    def build(self, _: Any) -> None:
        (state,) = self.take(1)
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state

    def append(self, _: Any) -> None:
        self._extend(self.take(1))

    def appends(self, _: Any) -> None:
        self._extend(self.to_mark())

    def _extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(values)

    def setitem(self, _: Any) -> None:
        self._update(self.take(2))

    def setitems(self, _: Any) -> None:
        self._update(self.to_mark())

    def _update(self, values: list[Any]) -> None:
        target = self.stack[-1]
        pairs = target.pairs if isinstance(target, Inert) else target
        if type(pairs) is dict:
            pairs.update(_pairs(values))

    def set_(self, _: Any) -> None:
        self.stack.append([])

    def frozen_set(self, _: Any) -> None:
        self.stack.append(self.to_mark())

    def dict_(self, _: Any) -> None:
        self.stack.append(_pairs(self.to_mark()))

    def pop_mark(self, _: Any) -> None:
        self.to_mark()

    def dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def persistent(self, _: Any) -> None:
        (identity,) = self.take(1)
        if isinstance(identity, tuple) and identity[:1] in (("module",), (b"module",)):
            self.stack.append(identity[1])  # torch's older files: a class, with its source
            return
        self.references.append(Persistent(identity))
        self.stack.append(self.references[-1])


def _pairs(values: list[Any]) -> dict[Any, Any]:
    """Key and value in turn. A deeply nested tuple as a key would end the process in its hash."""
    pairs = zip(values[0::2], values[1::2], strict=True)
    return {key: value for key, value in pairs if type(key) in _KEYS}


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": _Machine.global_, "STACK_GLOBAL": _Machine.stack_global, "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce, "NEWOBJ_EX": _Machine.newobj_ex, "OBJ": _Machine.obj,
    "INST": _Machine.inst, "BUILD": _Machine.build, "APPEND": _Machine.append,
    "APPENDS": _Machine.appends, "ADDITEMS": _Machine.appends, "EMPTY_SET": _Machine.set_,
    "FROZENSET": _Machine.frozen_set,
    "SETITEM": _Machine.setitem, "SETITEMS": _Machine.setitems, "DICT": _Machine.dict_,
    "POP_MARK": _Machine.pop_mark, "DUP": _Machine.dup,
    "BINPERSID": _Machine.persistent,
}  # fmt: skip
