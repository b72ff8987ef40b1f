"""How far a reconstruction is, on standard error."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from synq_tune.process.progress import progress_bar

_EVERY = 50
"""Updates between two looks at the loss: reading it off a GPU makes the program wait."""


class PartsBar:
    """A bar over the updates of all parts, with the part, its loss and the time left."""

    def __init__(self, parts: int, iterations: int, done: int = 0) -> None:
        """Show `parts` · `iterations` updates, of which `done` parts are behind us."""
        self._parts, self._number = parts, done
        self._bar = progress_bar(parts * iterations, "reconstruction", done=done * iterations)

    def __enter__(self) -> PartsBar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def of(self, name: str) -> Callable[[Tensor], None]:
        """What the next part calls with the loss of each update."""
        self._number += 1
        place, count = f"{name} ({self._number} of {self._parts})", 0

        def advance(loss: Tensor) -> None:
            nonlocal count
            if count % _EVERY == 0:
                self._bar.set_postfix_str(f"{place}, loss {float(loss):.4g}", refresh=False)
            count += 1
            self._bar.update()

        return advance
