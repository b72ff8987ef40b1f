"""The store of datasets: made once, shared, resumed, checked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from synq_tune.config import Teacher
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.synthesis.dataset import synthesize
from tests.synthesis.conftest import MakeSpec


def _folders(store: Path) -> set[str]:
    return {f.name for f in (store / "datasets").iterdir() if f.is_dir()}


def test_a_dataset_is_reused(teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path) -> None:
    """The second request finds the first one's dataset; nothing but it and its base is left."""
    first, made_before = synthesize(teacher, make_spec(), tmp_path, progress=False)
    again, reused = synthesize(teacher, make_spec(), tmp_path, progress=False)
    assert (made_before, reused) == (False, True)
    assert torch.equal(first.images, again.images)
    assert _folders(tmp_path) == {first.address, first.provenance["base"]}


def test_bit_widths_share_the_base(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """W3A3 and W4A4 differ in the perturbation alone; the optimisation is done once."""
    w3, _ = synthesize(teacher, make_spec("digits_w3a3"), tmp_path, progress=False)
    w4, _ = synthesize(teacher, make_spec("digits_w4a4"), tmp_path, progress=False)
    assert w3.address != w4.address
    assert w3.provenance["base"] == w4.provenance["base"]
    assert len(_folders(tmp_path)) == 3
    assert torch.equal(w3.holdout_images, w4.holdout_images)
    assert not torch.equal(w3.train_images, w4.train_images)


def test_a_skips_width_is_part_of_the_address_once_it_is_given(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Datasets from before there was such a width are still found."""
    spec = make_spec()
    plain, _ = synthesize(teacher, spec, tmp_path, progress=False)
    bits = spec.bits.model_copy(update={"skip": 8})
    wide, _ = synthesize(teacher, spec.model_copy(update={"bits": bits}), tmp_path, progress=False)
    settings = [dataset.provenance["settings"]["bits"] for dataset in (plain, wide)]
    assert [bits.get("skip", "absent") for bits in settings] == ["absent", 8]
    assert plain.address != wide.address
    assert plain.provenance["base"] == wide.provenance["base"]


def test_without_perturbation_bits_do_not_matter(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """With ε = 0 both bit widths have one dataset: the base."""
    w3, _ = synthesize(teacher, make_spec(perturbation=0), tmp_path, progress=False)
    w4, reused = synthesize(
        teacher, make_spec("digits_w4a4", perturbation=0), tmp_path, progress=False
    )
    assert reused and w3.address == w4.address


def test_settings_of_another_method_do_not_matter(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """`noise` makes no centres, so their settings are not part of its address."""
    first, _ = synthesize(teacher, make_spec(method="noise"), tmp_path, progress=False)
    spec = make_spec(method="noise", center_iterations=99)
    again, reused = synthesize(teacher, spec, tmp_path, progress=False)
    assert reused and first.address == again.address


def test_provenance_says_what_it_was_made_from(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Teacher, settings, seed, losses of every batch and versions are in the manifest."""
    dataset, _ = synthesize(teacher, make_spec(seed=5), tmp_path, progress=False)
    about = json.loads((dataset.path / "manifest.json").read_text())
    assert about["teacher"] == teacher.fingerprint and about["seed"] == 5
    assert about["settings"]["iterations"] == 3 and about["settings"]["bits"]["weights"] == 3
    assert len(about["losses"]) == 3 and len(about["center_losses"]) == 2
    assert about["versions"]["torch"] == torch.__version__


def test_a_flipped_byte_is_found(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """A damaged stored dataset is an error, never used."""
    dataset, _ = synthesize(teacher, make_spec(), tmp_path, progress=False)
    file = dataset.path / "images.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"Delete {dataset.path}"):
        synthesize(teacher, make_spec(), tmp_path, progress=False)


def test_of_two_at_once_one_makes_it(make_spec: MakeSpec, tmp_path: Path) -> None:
    """The second waits for the first and reuses its dataset."""
    config = Teacher(model="digits_resnet26", channels=1, num_classes=10)
    teachers = [load_teacher(config) for _ in range(2)]
    spec = make_spec(method="noise")
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda t: synthesize(t, spec, tmp_path, False), teachers))
    assert sorted(reused for _, reused in results) == [False, True]
    assert results[0][0].sha256 == results[1][0].sha256


_CHILD = """
import sys, torch
from pathlib import Path
from synq_tune.config import StudySpec
from synq_tune.models.teacher import load_teacher
from synq_tune.synthesis.dataset import synthesize

torch.set_num_threads(1)
spec = StudySpec.model_validate_json(sys.argv[1])
synthesize(load_teacher(spec.teacher), spec, Path(sys.argv[2]), progress=False)
"""


def _kill_after(spec_json: str, store: Path, shard: str) -> set[str]:
    """Start a run in a process of its own and kill -9 it once `shard` is on disk; its files."""
    child = subprocess.Popen([sys.executable, "-c", _CHILD, spec_json, str(store)])
    try:
        end = time.monotonic() + 120
        while not (found := list(store.glob(f"datasets/*.partial/{shard}.json"))):
            assert child.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.005)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    return {f.name for f in found[0].parent.glob("*.json")}


@pytest.mark.parametrize("shard", ["centers-00000", "images-00001"])
@pytest.mark.long
def test_a_killed_run_continues_bit_by_bit(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path, shard: str
) -> None:
    """After kill -9 finished batches are kept, and the result is that of an undisturbed run."""
    spec = make_spec(num_images=26, iterations=8, center_iterations=8, crop_scale=[0.5, 1.0])
    whole, _ = synthesize(teacher, spec, tmp_path / "whole", progress=False)
    left = _kill_after(spec.model_dump_json(by_alias=True), tmp_path / "killed", shard)
    assert f"{shard}.json" in left and "images-00004.json" not in left
    resumed, reused = synthesize(teacher, spec, tmp_path / "killed", progress=False)
    assert not reused
    assert (resumed.address, resumed.sha256) == (whole.address, whole.sha256)
    assert resumed.provenance == whole.provenance
    assert _folders(tmp_path / "killed") == {whole.address, whole.provenance["base"]}
