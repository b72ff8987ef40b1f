"""The one table that says which bundled spaces were measured, and what a study of each costs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from synq_tune.config import measured
from synq_tune.config.best_known import BEST_DIR
from synq_tune.config.cost import final_runs, most_updates, steps_per_epoch, trial_updates
from synq_tune.config.load import SPACES_DIR, load_space, names_in
from synq_tune.config.measured import measurements
from synq_tune.config.weights_source import weights_source
from synq_tune.errors import SearchSpaceError
from synq_tune.search.sampler import max_trials

ROOT = Path(__file__).parents[2]
NAMES = names_in(SPACES_DIR)


def _anchors(path: Path) -> set[str]:
    """Of a Markdown file's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_bundled_space_stands_in_the_table_once() -> None:
    """A new space has to say whether it was measured."""
    assert sorted(measurements()) == NAMES


def test_what_was_measured_is_written_where_the_table_says() -> None:
    """The file is there, and the heading in it."""
    for name, measurement in measurements().items():
        if measurement is not None:
            file, _, anchor = measurement.where.partition("#")
            assert (ROOT / file).is_file(), name
            assert not anchor or anchor in _anchors(ROOT / file), name


def test_a_space_with_a_best_known_configuration_was_measured() -> None:
    """Its file holds an accuracy."""
    table = measurements()
    assert all(table[name] is not None for name in names_in(BEST_DIR))


def test_a_damaged_table_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names its file."""
    path = tmp_path / "measured.yaml"
    path.write_text("digits_w3a3: {what: top-1}\n")
    monkeypatch.setattr(measured, "TABLE", path)
    with pytest.raises(SearchSpaceError, match=r"measured\.yaml: Field required"):
        measurements()


@pytest.mark.parametrize("name", NAMES)
def test_a_study_makes_as_many_updates_as_its_sampler_allows(name: str) -> None:
    """No bundled space has fewer configurations than trials."""
    spec = load_space(name)
    assert most_updates(spec) == (max_trials(spec) + final_runs(spec)) * trial_updates(spec)


def test_updates_are_counted_by_hand() -> None:
    """A last batch that is not full is an update; the ladder and confirming are runs, too."""
    sets = ["synthesis.num_images=130", "finetune.batch_size=64", "finetune.epochs=2"]
    spec = load_space("digits_w3a3", [*sets, "study.num_trials=5"])
    assert (steps_per_epoch(spec), trial_updates(spec), final_runs(spec)) == (3, 6, 3)
    assert most_updates(spec) == (5 + 2 * (2 - 1) + 1) * 6
    untrained = load_space("digits_w3a3", ["finetune.epochs=0"])
    assert (final_runs(untrained), most_updates(untrained)) == (0, 0)


@pytest.mark.parametrize(
    ("name", "place", "checksum"),
    [
        ("digits_w3a3", "in synq_tune/models/weights", "sha256 [0-9a-f]{64}"),
        ("resnet18_w4a4", "https://github.com/.*resnet18.*", "sha1 [0-9a-f]{40}"),
        ("efficientnet_lite0_w8a8", ".*pth of efficientnet-lite0-.*==.*", "sha256 [0-9a-f]{64}"),
        ("swin_tiny_w4a4", "https://huggingface.co/timm/swin_tiny_.*", "None"),
        ("cifar_resnet20_w4a4", "yours: --weights FILE", "None"),
    ],
)
def test_weights_come_from_where_the_space_says(name: str, place: str, checksum: str) -> None:
    """Bundled, a url, a package, the hub, or the user's own."""
    source = weights_source(load_space(name).teacher)
    assert re.fullmatch(place, source.place) and re.fullmatch(checksum, str(source.checksum))
