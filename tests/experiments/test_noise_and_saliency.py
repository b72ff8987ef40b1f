"""What Tables 5 and 9 measure: the divergence of maps, and noise in the synthetic images."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.experiments.compare_table import read_rows
from synq_tune.experiments.noise import add_noise
from synq_tune.experiments.paper import read_item
from synq_tune.experiments.paper_table import Noise, PaperTable
from synq_tune.experiments.reproduce import jobs, result, rows_file, run
from synq_tune.experiments.saliency import map_divergence
from synq_tune.models.preprocessing import Preprocessing
from tests.experiments.small_runs import SMALL

PREPROCESSING = Preprocessing(16, 16, 3, (0.5, 0.4, 0.3), (0.25, 0.25, 0.5))


def _dataset() -> SyntheticDataset:
    """80 images of mid-grey, 16 of them held out."""
    pixels = torch.full((80, 3, 16, 16), 0.5)
    images, labels = PREPROCESSING.normalize(pixels).half(), torch.zeros(80, dtype=torch.long)
    return SyntheticDataset(images, labels, 16, "noise", "0" * 32, "0" * 64, Path("none"), {})


def _changes(kind: str, strength: float) -> Tensor:
    """What is added to mid-grey, where pixels are 0 to 1."""
    noisy = add_noise(_dataset(), Noise(kind=kind, strength=strength), PREPROCESSING)
    return PREPROCESSING.denormalize(noisy.train_images.float()) - 0.5


@pytest.mark.parametrize(("kind", "std"), [("gaussian", 0.1), ("speckle", 0.05)])
def test_noise_is_as_strong_as_asked(kind: str, std: float) -> None:
    """Speckle on mid-grey is half of Gaussian noise, in every channel's own scale."""
    for channel in _changes(kind, 0.1).unbind(1):
        assert float(channel.std()) == pytest.approx(std, rel=0.03)


def test_bounded_noise_has_its_bounds() -> None:
    """Uniform noise ends at its strength; salt and pepper turn whole pixels white and black."""
    uniform = _changes("uniform", 0.2)
    assert 0.19 < float(uniform.abs().max()) < 0.2005
    pixels = _changes("salt_pepper", 0.1)
    salt, pepper = ((pixels - side).abs() < 1e-3 for side in (0.5, -0.5))
    for share in (salt, pepper):
        assert float(share.double().mean()) == pytest.approx(0.05, abs=0.01)
        assert torch.equal(share.all(1), share.any(1))


def test_noise_is_the_same_again_and_spares_the_holdout() -> None:
    """Two calls agree; another noise is another dataset."""
    noise, plain = Noise(kind="gaussian", strength=0.1), _dataset()
    one, other = (add_noise(plain, noise, PREPROCESSING) for _ in range(2))
    assert torch.equal(one.images, other.images) and one.address == other.address
    assert torch.equal(one.holdout_images, plain.holdout_images)
    stronger = add_noise(plain, Noise(kind="gaussian", strength=0.2), PREPROCESSING)
    assert len({d.address for d in (plain, one, stronger)}) == 3
    assert len({d.sha256 for d in (plain, one, stronger)}) == 3


@pytest.mark.long
def test_a_noisy_column_has_runs_of_its_own(tmp_path: Path) -> None:
    """The same settings on noisy images are another run, on another dataset."""
    space = {"paper": "digits_w8a8", "small": "digits_w8a8"}
    noise = {"kind": "gaussian", "strength": 1.0}
    columns = {"clean": space, "noisy": {**space, "noise": noise}}
    tree = {"title": "noise", "columns": columns, "rows": {"SynQ": {"settings": {}}}}
    table = PaperTable.model_validate(tree)
    found = jobs(table, "small", assignments=SMALL, flags={"study": {"val_data": "digits"}})
    list(run(table, found, 1, tmp_path, tmp_path / "store"))
    clean, noisy = (read_rows(rows_file(tmp_path, name))[0] for name in columns)
    assert clean["settings"] == noisy["settings"]
    assert clean["settings_sha"] != noisy["settings_sha"]
    assert clean["dataset"]["address"] != noisy["dataset"]["address"]
    assert clean["top1"] != noisy["top1"] or clean["holdout_kl"] != noisy["holdout_kl"]
    lines = list(result(table, found, tmp_path, ["table9", "--seeds", "1"]))
    assert sum("1 run, seed 0" in line for line in lines) == 2
    assert any(line.endswith("reproduce.py table9 --seeds 1") for line in lines)


def test_maps_are_compared_as_distributions() -> None:
    """Their size does not count; a map elsewhere does; a map of zeros is an even one."""
    maps = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert map_divergence(maps, 7 * maps) == pytest.approx(0, abs=1e-6)
    corner = torch.zeros(1, 4, 4)
    corner[0, 0, 0] = 5.0
    assert map_divergence(corner, corner.flip(1, 2)) > 4
    even, zeros = torch.ones(1, 4, 4), torch.zeros(1, 4, 4)
    assert map_divergence(even, zeros) == pytest.approx(0, abs=1e-9)
    p = 0.99 + 0.01 / 16
    rest = 15 * 0.01 / 16 * math.log(0.01)
    assert map_divergence(corner, zeros) == pytest.approx(p * math.log(16 * p) + rest)


def test_changes_that_the_paper_prints_follow_from_its_numbers() -> None:
    """Table 5's shares by which maps come closer, Table 9's by which noise costs accuracy."""
    five = read_item("table5").rows
    for name, printed in {"IntraQ": -18.29, "HAST": -16.89, "TexQ": -17.94}.items():
        with_synq, alone = five[f"{name} + SynQ"].paper["W3A3"], five[name].paper["W3A3"]
        assert 100 * (with_synq / alone - 1) == pytest.approx(printed, abs=0.01)
    printed = {"TexQ": (-34.35, -40.74, -18.81, -20.74), "SynQ": (-16.78, -31.53, -10.01, -13.28)}
    for name, row in read_item("table9").rows.items():
        clean, *noisy = row.paper.values()
        lost = [100 * (value / clean - 1) for value in noisy]
        assert lost == [pytest.approx(share, abs=0.01) for share in printed[name]]
