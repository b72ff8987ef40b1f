"""Read plain values and arrays from a pickle without running anything of it.

A restricted `Unpickler` still calls what it admits, so that it is as safe as numpy's reconstruction
functions are when called with any arguments, and its BUILD sets attributes on whatever it is given.
Here `pickletools.genops` only takes the file apart; the stack knows no way to import or call:
a name is compared with a list, and what the names on it stand for is written out in this file.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synq_tune.errors import InputError
from synq_tune.pickle_stack import PickleStack

_DTYPE = re.compile(r"[uif][1248]")
_DAMAGE = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError)


@dataclass(frozen=True)
class _Name:
    """An admitted name, which is never looked up."""

    name: str


@dataclass
class _Dtype:
    code: str
    order: str = "="

    def build(self, state: Any) -> None:
        """Byte order; the rest of the state is for structured types, which are not admitted."""
        self.order = state[1]

    def dtype(self) -> np.dtype:
        if not _DTYPE.fullmatch(self.code) or self.order not in ("<", ">", "|", "="):
            raise ValueError(f"an array of type {self.order}{self.code}")
        return np.dtype(self.order + self.code)


@dataclass
class _Array:
    value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        """(version, shape, dtype, is Fortran order, bytes), as numpy writes it."""
        _, shape, dtype, is_fortran, content = state
        self.value = _array(content, dtype, shape, "F" if is_fortran else "C")


def _array(content: Any, dtype: _Dtype, shape: Any, order: str) -> np.ndarray:
    raw = content.encode("latin-1") if isinstance(content, str) else bytes(content)
    return np.frombuffer(raw, dtype.dtype()).reshape(shape, order=order)


_CALLS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": lambda text, coding: text.encode({"latin1": "latin-1"}[coding]),
    "numpy.dtype": lambda code, *flags: _Dtype(code),
    "_reconstruct": lambda kind, shape, code: _Array(),
    "_frombuffer": lambda content, dtype, shape, order: _Array(
        _array(content, dtype, shape, order)
    ),
}
_NAMES = {
    "_codecs.encode": "_codecs.encode",
    "numpy.dtype": "numpy.dtype",
    "numpy.ndarray": "numpy.ndarray",
    # numpy 2 moved its inner module from `core` to `_core`.
    **{f"numpy.{core}.multiarray._reconstruct": "_reconstruct" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": "_frombuffer" for core in ("core", "_core")},
}


def read_plain_pickle(path: Path) -> dict[str, Any]:
    """The dictionary a pickle holds: numbers, text, bytes, lists, tuples, dicts and numpy arrays.

    Protocols 0 to 5 are read, also those of Python 2; keys of bytes become text, and Python 2's
    strings become latin-1 text.

    Raises:
        InputError: the pickle asks for anything else, which is named and was not run, or it is
            damaged or no dictionary.
    """
    machine = _Machine(path)
    try:
        for opcode, argument, _ in pickletools.genops(path.read_bytes()):
            machine.step(opcode.name, argument)
        (value,) = machine.stack
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{path}: `the pickle is whole` must hold, but got: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(
            f"{path}: `the pickle holds a dictionary` must hold, but got {type(value).__name__}."
        )
    return {_text(k): v.value if isinstance(v, _Array) else v for k, v in value.items()}


def _text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


class _Machine(PickleStack):
    """For data alone: names, calls and states that are on no list are refused."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def operate(self, name: str, argument: Any) -> None:
        """One opcode; one that is not data is an error."""
        if not hasattr(self, f"_op_{name.lower()}"):
            raise self._refused(f"opcode {name}")
        getattr(self, f"_op_{name.lower()}")(argument)

    def _refused(self, what: str) -> InputError:
        return InputError(
            f"{self.path}: `the pickle holds only plain values and numpy arrays` must hold, but it "
            f"asks for {what}; nothing of it was run. Get the file from where it is published."
        )

    def _op_dict(self, _: Any) -> None:
        self.stack.append(_pairs(self.to_mark()))

    def _op_append(self, _: Any) -> None:
        (value,) = self.take(1)
        _of(list, self.stack[-1]).append(value)

    def _op_appends(self, _: Any) -> None:
        values = self.to_mark()
        _of(list, self.stack[-1]).extend(values)

    def _op_setitem(self, _: Any) -> None:
        pair = _pairs(self.take(2))
        _of(dict, self.stack[-1]).update(pair)

    def _op_setitems(self, _: Any) -> None:
        values = self.to_mark()
        _of(dict, self.stack[-1]).update(_pairs(values))

    def _op_global(self, name: str) -> None:
        module, _, attribute = name.partition(" ")
        self._push_name(f"{module}.{attribute}")

    def _op_stack_global(self, _: Any) -> None:
        module, attribute = self.take(2)
        self._push_name(f"{module}.{attribute}")

    def _push_name(self, name: str) -> None:
        if name not in _NAMES:
            raise self._refused(name)
        self.stack.append(_Name(_NAMES[name]))

    def _op_reduce(self, _: Any) -> None:
        function, arguments = self.take(2)
        if not isinstance(function, _Name) or function.name not in _CALLS:
            raise self._refused(f"a call of {getattr(function, 'name', type(function).__name__)}")
        self.stack.append(_CALLS[function.name](*arguments))

    def _op_build(self, _: Any) -> None:
        (state,) = self.take(1)
        target = self.stack[-1]
        if not isinstance(target, (_Array, _Dtype)):
            raise self._refused(f"the state of a {type(target).__name__}")
        target.build(state)


def _of(kind: type, value: Any) -> Any:
    """`value`, which must be of `kind`: another object's method is never called."""
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _pairs(values: list[Any]) -> dict[Any, Any]:
    """Key and value in turn; a deeply nested tuple as a key would end the process in its hash."""
    keys = values[0::2]
    wrong = next((key for key in keys if type(key) not in (str, bytes, int)), None)
    if wrong is not None:
        raise ValueError(f"a {type(wrong).__name__} as a key")
    return dict(zip(keys, values[1::2], strict=True))
