"""The example of own code in docs/extend.md is run as it is printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from synq_tune import own_code
from synq_tune.testing import check_cam, check_network, check_synthesizer

ROOT = Path(__file__).parents[1]
SMALL = [
    "synthesis.num_images=24", "synthesis.num_holdout=8", "finetune.epochs=1",
    "finetune.batch_size=12", "finetune.num_views=1", "finetune.calibration_batches=1",
]  # fmt: skip


def _example() -> tuple[str, list[str]]:
    """The code block and the arguments of the command below it."""
    section = ROOT.joinpath("docs/extend.md").read_text()
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1)
    command = re.search(r"\n    python (scripts/finetune\.py .*?)\n\n", section, re.DOTALL).group(1)
    return code, shlex.split(command.replace("\\\n", " "))


@pytest.mark.long
def test_the_example_runs_as_printed(tmp_path: Path) -> None:
    """A network, a CAM technique and a synthesis method in one short file, and one command."""
    code, (script, *arguments) = _example()
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    (tmp_path / "my_ideas.py").write_text(code)
    sets = [part for value in SMALL for part in ("--set", value)]
    store = ["--store", str(tmp_path / "store")]
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments, *sets, *store],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"epoch +1 .*agreement \d.*loss/cam \d", done.stdout), done.stdout


def test_the_example_keeps_its_contracts(tmp_path: Path) -> None:
    """What we print passes the checks that we offer."""
    path = tmp_path / "my_ideas.py"
    path.write_text(_example()[0])
    check_network(own_code.load(f"{path}:network")(), (1, 8, 8))
    check_cam(own_code.load(f"{path}:positive_gradients"))
    check_synthesizer(own_code.load(f"{path}:smooth_noise"))
