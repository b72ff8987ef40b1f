"""Ray's token protects a study's Ray, and is known to nobody else."""

from __future__ import annotations

import stat

import pytest

from tests.security.conftest import Watched

pytestmark = pytest.mark.ray


@pytest.mark.long
def test_it_is_left_on(study: Watched) -> None:
    """Ray made one for this user, who had none: it asks for it."""
    token = study.folder / "home/.ray/auth_token"
    assert len(token.read_text()) == 64


@pytest.mark.long
def test_nobody_else_can_read_it(study: Watched) -> None:
    """With it code can be run in the workers."""
    token = study.folder / "home/.ray/auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


@pytest.mark.long
def test_it_is_never_printed_or_written(study: Watched) -> None:
    """Neither on the console nor in any file of the study, the store or MLflow."""
    path = study.folder / "home/.ray/auth_token"
    token = path.read_text()
    assert token not in study.said
    found = [p for p in study.files() if p != path and token.encode() in p.read_bytes()]
    assert found == []
