"""One table says how commands end."""

from __future__ import annotations

import re
from pathlib import Path

from synq_tune.process import exit_codes

ROOT = Path(__file__).parents[2]


def test_the_readme_lists_every_exit_code() -> None:
    """Scripts around a command rely on the list, so it holds neither more nor less than the table."""
    sentence = re.search(r"Exit codes:\s*(.+?)\.", (ROOT / "README.md").read_text(), re.DOTALL)
    listed = {int(code) for code in re.findall(r"(?:^|,\s)(\d+) ", sentence[1])}
    assert listed == {value for name, value in vars(exit_codes).items() if name.isupper()}


def test_no_other_file_gives_an_exit_code_a_name() -> None:
    """A second name for a code would come apart from the first."""
    names = "|".join(name for name in vars(exit_codes) if name.isupper())
    pattern = re.compile(rf"^(?:{names}|[A-Z_]*(?:EXIT|FINISHED|UPLOADED)) = \d+", re.MULTILINE)
    found = [p for p in (ROOT / "synq_tune").rglob("*.py") if pattern.search(p.read_text())]
    assert found == [ROOT / "synq_tune/process/exit_codes.py"]
