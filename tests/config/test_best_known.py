"""Best-known configurations and `--from`."""

from __future__ import annotations

from pathlib import Path

import pytest

from synq_tune.cli import search
from synq_tune.config.best_known import BEST_DIR, read_best_known
from synq_tune.config.load import load_space
from synq_tune.errors import SearchSpaceError

NAMES = sorted(path.stem for path in BEST_DIR.glob("*.yaml"))
MEASURED = """
measured:
  top1: [99.0, 98.5]
  seeds: [0, 1]
  interval: [95.6, 100.0]
  full_precision: 99.5
  num_images: 448
  command: python scripts/compare.py
  machine: two cores
  versions: {torch: 2.15.0}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A configuration with searched fields and one that is not."""
    path = tmp_path / "mine.yaml"
    finetune = "finetune: {lr: 2.0e-2, tau: 0.6, temperature: 2.0}"
    path.write_text(f"format: 1\nspace: digits_w3a3\n{finetune}\n{MEASURED}")
    return str(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_configuration_fits_its_space_and_says_where_it_was_measured(name: str) -> None:
    """Named like its space, one accuracy per seed, three seeds or more, the mean in the interval."""
    best = read_best_known(name)
    spec = load_space(best.space, start=name)
    assert spec.study.first[0].items() <= best.finetune.items()
    assert best.space == name
    measured = best.measured
    assert len(measured.top1) == len(set(measured.seeds)) >= 3
    mean = sum(measured.top1) / len(measured.top1)
    assert measured.interval[0] <= mean <= measured.interval[1]
    assert mean <= measured.full_precision + 1


def test_it_is_the_start_and_the_first_trial(file: str) -> None:
    """Searched fields are tried first, the others hold for every trial."""
    spec = load_space("digits_w3a3", ["study.first=[{tau: 0.7}]"], start=file)
    assert spec.study.first == ({"lr": 2e-2, "tau": 0.6}, {"tau": 0.7})
    assert (spec.finetune.lr, spec.finetune.temperature) == (2e-2, 2.0)


def test_a_flag_wins_over_it(file: str) -> None:
    """What `--set` fixes is neither searched nor taken from the configuration."""
    spec = load_space("digits_w3a3", ["finetune.lr=0.5"], start=file)
    assert spec.finetune.lr == 0.5
    assert spec.study.first == ({"tau": 0.6},)


def test_a_value_that_the_space_does_not_search_is_named(file: str) -> None:
    """A configuration of another space may not fit; nothing is bent to fit."""
    with pytest.raises(SearchSpaceError, match=r"study.first\[0\].*tau is searched"):
        load_space("digits_w3a3", ["search.tau={choice: [0.5]}"], start=file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("tau:", "taw:"), r"Unknown .*field of finetune 'taw'.*Did you mean 'tau'"),
        (("seeds: [0, 1]", "seeds: []"), r"measured\.seeds"),
        (("space:", "spaces:"), r"space"),
    ],
)
def test_a_damaged_file_is_one_line(file: str, change: tuple[str, str], message: str) -> None:
    """The file and the key are named."""
    path = Path(file)
    path.write_text(path.read_text().replace(*change))
    with pytest.raises((SearchSpaceError, ValueError), match=message) as error:
        read_best_known(file)
    assert "\n" not in str(error.value)


def test_an_unknown_name_is_refused() -> None:
    """With what there is."""
    with pytest.raises(ValueError, match="best-known configuration"):
        read_best_known("digits_w33a")


def test_a_resumed_study_has_its_start_already() -> None:
    """`--from` beside `--resume` is refused by the command line."""
    with pytest.raises(SystemExit) as stop:
        search.parse(["--resume", "studies/x", "--from", "digits_w3a3"])
    assert stop.value.code == 2
