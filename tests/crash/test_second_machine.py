"""A study whose trials run on a machine that shares neither files nor network with the driver's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from synq_tune.data.digits import digits_half
from synq_tune.models.build import BUNDLED_WEIGHTS
from synq_tune.store import sha256_file
from synq_tune.study.ledger import Ledger
from tests.crash.checker import Verdict, check_finished
from tests.crash.second_machine import second_machine, why_not
from tests.crash.study import TinyStudy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]


@pytest.fixture
def own(tmp_path: Path) -> TinyStudy:
    """A study of weights and labelled images that lie in files of the driver's machine."""
    folder = tmp_path / "mine"
    folder.mkdir()
    weights = shutil.copy(BUNDLED_WEIGHTS["digits_resnet26"], folder / "weights.safetensors")
    digits = digits_half("test")
    np.save(folder / "images.npy", digits.images.numpy())
    np.save(folder / "labels.npy", digits.labels.numpy())
    files = ("--weights", str(weights), "--val-data", f"npy:{folder}")
    return TinyStudy(tmp_path / "studies" / "tiny", arguments=files, num_trials=2)


@pytest.mark.parametrize("is_sealed", [False, True], ids=["store can be made", "cannot be made"])
def test_a_machine_without_our_files(own: TinyStudy, tmp_path: Path, is_sealed: bool) -> None:
    """It gets dataset, labelled images and teacher once, and the study is whole."""
    store = own.folder.parent / "store"
    with second_machine(tmp_path, store if is_sealed else None) as machine:
        assert machine.run("find", str(tmp_path), "-type", "f") == ""
        own.arguments += ("--ray-address", machine.address)
        own.finish()
        found = machine.run(
            "find", "/tmp", "-path", "/tmp/ray", "-prune", "-o", "-type", "f", "-print"
        )
        (images,) = [x for x in found.split() if x.endswith("/images.safetensors")]
        assert images.startswith(str(store)) != is_sealed
        there = machine.run("sha256sum", images).split()[0]
    dataset = Ledger.open(own.folder, read_only=True).state.stages.dataset
    assert there == dataset.sha256 == sha256_file(Path(dataset.path) / "images.safetensors")
    for kind in ("labelled", "teachers", "views", "probes"):
        assert f"/{kind}/" in found, kind
    assert not [x for x in found.split() if x.startswith((str(own.folder), str(tmp_path / "mine")))]
    assert check_finished(own.folder, own.finals, own.num_trials) == Verdict(0, 0)
