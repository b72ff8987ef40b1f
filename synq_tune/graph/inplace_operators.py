"""`x += y` on a placeholder changes the tensor, as it does in the network itself.

fx knows no in-place operators: Python falls back to `x = x + y`, and another name of the same
tensor would keep its old values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import Tensor

_OPERATORS = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor",
    "lshift", "rshift",
)  # fmt: skip


def _in_place(operator_name: str) -> Callable[[Any, Any], Any]:
    plain = getattr(operator, f"__{operator_name}__")
    changing = getattr(operator, f"__i{operator_name}__")

    def record(self: Any, other: Any) -> Any:
        target = changing if isinstance(self.value, Tensor) else plain
        # Named as `x + y` is: names of nodes appear in files.
        name = plain.__name__
        return self.tracer.create_proxy("call_function", target, (self, other), {}, name=name)

    return record


class InPlaceOperators:
    """For placeholders with `value` and `tracer`: every in-place operator, and `x[…] = y`."""

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})


for _name in _OPERATORS:
    setattr(InPlaceOperators, f"__i{_name}__", _in_place(_name))
