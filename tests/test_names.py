"""Every name has one home, and the user's own objects are found as ours are."""

from __future__ import annotations

from pathlib import Path

import pytest

from synq_tune.errors import InputError
from synq_tune.names import FAMILIES, check, known, resolve
from tests.helpers import not_loaded

EVERY = [(family, name) for family in FAMILIES for name in FAMILIES[family]]


@pytest.mark.parametrize(("family", "name"), EVERY)
def test_what_a_table_names_is_there(family: str, name: str) -> None:
    """A table's text is no promise until the object behind it was found."""
    assert check(family, name) == name
    assert resolve(family, name) is resolve(family, name) is not None


@pytest.mark.parametrize("family", [family for family in FAMILIES if FAMILIES[family]])
def test_an_unknown_name_is_told_the_nearest(family: str) -> None:
    """A misspelt name is an error that says which names there are."""
    name = known(family)[0]
    for ask in (check, resolve):
        with pytest.raises(InputError, match=f"Unknown {family} 'x{name}'.*{name}"):
            ask(family, f"x{name}")


@pytest.mark.parametrize("family", FAMILIES)
def test_own_objects_resolve_as_ours(family: str, tmp_path: Path) -> None:
    """A function, a class or an object of a file of the user's own."""
    (tmp_path / "my.py").write_text("thing = object()\n")
    name = f"{tmp_path}/my.py:thing"
    assert check(family, name) == name
    assert resolve(family, name) is resolve(family, name)
    with pytest.raises(InputError, match="defines nothing"):
        resolve(family, f"{tmp_path}/my.py:nothing")


def test_names_are_checked_without_heavy_libraries() -> None:
    """A table is text: what it names is imported when it is asked for."""
    code = (
        "from synq_tune.names import FAMILIES, check; "
        "[check(f, n) for f in FAMILIES for n in FAMILIES[f]]"
    )
    assert not_loaded(code, ("torch", "onnx", "timm"))
