"""The stack and the memo of a pickle that is taken apart and never executed.

`pickletools.genops` splits a pickle into operations. Those that only hold, move and group values
are done here; what names, calls and objects mean is for the two readers that build on this to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_MARK = object()
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SILENT = {"PROTO", "FRAME", "STOP"}


class PickleStack:
    """Does the operations on plain values; a subclass's `operate` does, or refuses, all others."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do one operation of `pickletools.genops`.

        Raises:
            ValueError, IndexError, KeyError: the pickle is not whole.
        """
        if name in _SILENT:
            return
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(self.take(_TUPLES[name])))
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        else:
            self.operate(name, argument)

    def operate(self, name: str, argument: Any) -> None:
        """Do an operation that is more than a plain value, or raise ValueError."""
        raise ValueError(f"operation {name}")

    def take(self, count: int) -> list[Any]:
        """The last `count` values, taken off."""
        if len(self.stack) < count:
            raise ValueError("a stack that is too short")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def to_mark(self) -> list[Any]:
        """The values behind the last mark, taken off with it."""
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                taken = self.stack[at + 1 :]
                del self.stack[at:]
                return taken
        raise ValueError("no mark")

    def _mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def _pop(self, _: Any) -> None:
        self.take(1)

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.to_mark()))

    def _list(self, _: Any) -> None:
        self.stack.append(self.to_mark())


_OPERATIONS: dict[str, Callable[[PickleStack, Any], None]] = {
    "MARK": PickleStack._mark, "POP": PickleStack._pop, "MEMOIZE": PickleStack._memoize,
    "PUT": PickleStack._put, "BINPUT": PickleStack._put, "LONG_BINPUT": PickleStack._put,
    "GET": PickleStack._get, "BINGET": PickleStack._get, "LONG_BINGET": PickleStack._get,
    "TUPLE": PickleStack._tuple, "LIST": PickleStack._list,
}  # fmt: skip
