"""Bytes on their way from a worker to the driver, within a result."""

from __future__ import annotations

import pickle
from typing import Any


class Payload:
    """Bytes that can be taken out once.

    Tune keeps each trial's last result, and prints results into messages. A payload that was taken
    holds no bytes any more, and it always prints as one short word.
    """

    def __init__(self, data: Any) -> None:
        self._data = data

    def take(self) -> Any:
        """The bytes (or a view of the worker's), forgotten here; None if they were taken before."""
        data, self._data = self._data, None
        return data

    def __repr__(self) -> str:
        return "Payload(empty)" if self._data is None else f"Payload({len(self._data)} bytes)"

    def __reduce__(self) -> tuple[Any, ...]:
        # A buffer is read where Ray put it, instead of being copied twice more.
        data = None if self._data is None else pickle.PickleBuffer(self._data)
        return Payload, (data,)
