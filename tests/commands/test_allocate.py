"""`scripts/allocate.py`: what it prints keeps the budget, and its file is a space."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from synq_tune.allocation.network import network_of
from synq_tune.cli.allocate import count, main, parser, positive, size
from synq_tune.commands.allocate import mixed_space
from synq_tune.config.load import build_spec, load_space
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher

SMALL = [
    "synthesis.num_images=20", "synthesis.num_holdout=4", "synthesis.iterations=2",
    "synthesis.center_iterations=2", "finetune.batch_size=8", "finetune.num_views=1",
    "finetune.calibration_batches=1", "study.val_data=null", "bits.activations=4",
]  # fmt: skip


def _words(folder: Path, *more: str) -> list[str]:
    sets = [word for text in SMALL for word in ("--set", text)]
    return ["--space", "digits_w3a3", *sets, "--store", str(folder / "store"), *more]


@pytest.mark.long
def test_the_file_is_the_space_with_other_widths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within the size; values keep the space's width, since a size says nothing of them."""
    output = tmp_path / "mixed.yaml"
    words = _words(
        tmp_path, "--max-size", "30kB", "--output", str(output), "--check", "2", "--images", "4"
    )
    assert main(words) == 0
    said = capsys.readouterr().out
    chosen = next(line for line in said.splitlines() if line.startswith("chosen")).split()
    assert 25_000 < int(chosen[1].replace(",", "")) <= 30_000
    assert chosen[3] == "4.00"
    assert "2 random assignments within the budget" in said and "Spearman's ρ" in said
    assert said.endswith(f"search.py --space {output} has these widths\n")
    plain, mixed = load_space("digits_w3a3", SMALL), load_space(str(output))
    assert mixed.bits.is_mixed and mixed.name == "digits_w3a3_mixed"
    assert mixed.model_copy(update={"bits": plain.bits, "name": plain.name}) == plain
    assert all(isinstance(width, int) for width in mixed.bits.overrides.values())


def test_a_budget_too_small_is_said_before_any_work(tmp_path: Path) -> None:
    """One line with the smallest; no dataset is made."""
    with pytest.raises(InputError, match=r"--max-bits: `the budget is at least 2`"):
        main(_words(tmp_path, "--max-bits", "1.5"))
    assert not (tmp_path / "store" / "datasets").exists()


def test_a_budget_is_needed_and_a_space_ends_in_yaml(tmp_path: Path) -> None:
    """Both are said in one line."""
    with pytest.raises(InputError, match="a budget is given"):
        main(_words(tmp_path))
    with pytest.raises(InputError, match="its name ends in .yaml"):
        main(_words(tmp_path, "--max-bits", "3", "--output", "mixed.txt"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2.1MB", 2.1e6), ("2.1 MB", 2.1e6), ("1KiB", 1024), ("500", 500), ("5e5B", 5e5)],
)
def test_sizes(text: str, expected: float) -> None:
    """Bytes with decimal or binary units, or alone."""
    assert size(text) == expected
    assert count("0.4G") == 0.4e9


@pytest.mark.parametrize("text", ["", "MB", "2.1XB", "-1", "nan", "inf", "0", "1.2.3", "1e999"])
def test_other_sizes_are_refused(text: str) -> None:
    """Not a number, not above zero, or of an unknown unit."""
    with pytest.raises(argparse.ArgumentTypeError, match="must hold, but got"):
        size(text)
    with pytest.raises(argparse.ArgumentTypeError, match="must hold, but got"):
        positive(text)
    with pytest.raises(SystemExit):
        parser().parse_args(["--space", "x", f"--max-bits={text}"])


@pytest.mark.parametrize("name", ["resnet18_genie_w2a4", "deit_tiny_w4a8", "cifar_resnet20_w3a3"])
def test_other_spaces_are_read_back_too(teacher: LoadedTeacher, name: str) -> None:
    """Recipe, search and numbers survive the file's tree, whatever the space says."""
    spec = load_space(name)
    network = network_of(teacher, load_space("digits_w3a3").bits, "minmax")
    again = build_spec(mixed_space(spec, network, network.uniform), name)
    assert again.model_copy(update={"name": name}) == spec
