"""Words that are the same everywhere."""

from __future__ import annotations

import pytest

from synq_tune.errors import InputError, lookup
from synq_tune.notes import counted


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 epochs"), (1, "1 epoch"), (2, "2 epochs"), (1000, "1,000 epochs")]
)
def test_one_is_singular(number: int, text: str) -> None:
    """There is no "1 epochs"."""
    assert counted(number, "epoch") == text


def test_the_nearest_name_stands_before_all_of_them() -> None:
    """A list of sixty fields would hide it; what is far from every name has no guess."""
    with pytest.raises(InputError) as caught:
        lookup("field", "taw", ["tau", "lr"])
    assert str(caught.value) == "Unknown field 'taw'. Did you mean 'tau'? Available: lr, tau."
    with pytest.raises(InputError) as caught:
        lookup("field", "zzz", ["tau", "lr"])
    assert str(caught.value) == "Unknown field 'zzz'. Available: lr, tau."
