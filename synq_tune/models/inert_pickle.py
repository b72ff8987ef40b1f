"""Take a stranger's pickle apart without importing, calling or changing anything of it.

`pickletools.genops` splits the bytes into operations. The machine below knows values, containers and
tensors; every other name becomes an `Inert` that remembers what was asked for and does nothing.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

_MARK = object()
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


_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": list
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SILENT = {"PROTO", "FRAME", "STOP"}


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self, calls: dict[str, Callable[..., Any]]) -> None:
        self.calls = calls
        self.stack: list[Any] = []
        self.memo: dict[Any, Any] = {}
        self.names: set[str] = set()
        self.references: list[Persistent] = []

    def step(self, name: str, argument: Any) -> None:
        """Do one operation, or raise ValueError for one that is unknown."""
        if name in _SILENT:
            return
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(self._take(_TUPLES[name])))
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        else:
            raise ValueError(f"operation {name}")

    def _take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("a stack that is too short")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _to_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                taken = self.stack[at + 1 :]
                del self.stack[at:]
                return taken
        raise ValueError("no mark")

    def push_name(self, text: str) -> None:
        self.names.add(text)
        self.stack.append(Name(text))

    def global_(self, argument: str) -> None:
        module, _, attribute = argument.partition(" ")
        self.push_name(f"{module}.{attribute}")

    def stack_global(self, _: Any) -> None:
        module, attribute = self._take(2)
        self.push_name(f"{module}.{attribute}")

    def call(self, function: Any, arguments: Any) -> None:
        """Only a `Name` in `calls` means anything; the result of a call is never called."""
        name = function.text if isinstance(function, Name) else "the result of a call"
        known = self.calls.get(name) if isinstance(arguments, tuple) else None
        self.stack.append(known(*arguments) if known else Inert(name, arguments))

    def reduce(self, _: Any) -> None:
        self.call(*self._take(2))

    def newobj_ex(self, _: Any) -> None:
        function, arguments, _keywords = self._take(3)
        self.call(function, arguments)

    def obj(self, _: Any) -> None:
        function, *arguments = self._to_mark()
        self.call(function, tuple(arguments))

    def inst(self, argument: str) -> None:
        arguments = tuple(self._to_mark())
        self.global_(argument)
        self.call(self.stack.pop(), arguments)

    def build(self, _: Any) -> None:
        (state,) = self._take(1)
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state

    def append(self, _: Any) -> None:
        self._extend(self._take(1))

    def appends(self, _: Any) -> None:
        self._extend(self._to_mark())

    def _extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(values)

    def setitem(self, _: Any) -> None:
        self._update(self._take(2))

    def setitems(self, _: Any) -> None:
        self._update(self._to_mark())

    def _update(self, values: list[Any]) -> None:
        target = self.stack[-1]
        pairs = target.pairs if isinstance(target, Inert) else target
        if type(pairs) is dict:
            pairs.update(_pairs(values))

    def dict_(self, _: Any) -> None:
        self.stack.append(_pairs(self._to_mark()))

    def list_(self, _: Any) -> None:
        self.stack.append(self._to_mark())

    def tuple_(self, _: Any) -> None:
        self.stack.append(tuple(self._to_mark()))

    def mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def pop(self, _: Any) -> None:
        self._take(1)

    def pop_mark(self, _: Any) -> None:
        self._to_mark()

    def dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def put(self, index: Any) -> None:
        self.memo[int(index)] = self.stack[-1]

    def get(self, index: Any) -> None:
        self.stack.append(self.memo[int(index)])

    def persistent(self, _: Any) -> None:
        (identity,) = self._take(1)
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
    "APPENDS": _Machine.appends, "ADDITEMS": _Machine.appends, "FROZENSET": _Machine.list_,
    "SETITEM": _Machine.setitem, "SETITEMS": _Machine.setitems, "DICT": _Machine.dict_,
    "LIST": _Machine.list_, "TUPLE": _Machine.tuple_, "MARK": _Machine.mark, "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark, "DUP": _Machine.dup, "MEMOIZE": _Machine.memoize,
    "PUT": _Machine.put, "BINPUT": _Machine.put, "LONG_BINPUT": _Machine.put, "GET": _Machine.get,
    "BINGET": _Machine.get, "LONG_BINGET": _Machine.get, "BINPERSID": _Machine.persistent,
}  # fmt: skip
