"""A comparison is fair: merged by one rule, paired by seed, resumed, and honest about its spread."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from synq_tune.cli.compare import main
from synq_tune.config import FineTune
from synq_tune.errors import InputError, SearchSpaceError
from synq_tune.experiments.compare import checked, compare
from synq_tune.experiments.compare_runs import Bench, cost
from synq_tune.experiments.compare_table import (
    paired_gain,
    read_recorded,
    read_rows,
    report,
)
from synq_tune.experiments.variants import Comparison, load_comparison, settings_of

ROOT = Path(__file__).parents[2]
SMALL = [
    "synthesis.num_images=48", "synthesis.num_holdout=16", "synthesis.batch_size=64",
    "synthesis.iterations=4", "synthesis.center_iterations=4", "synthesis.perturbation=0",
    "finetune.batch_size=24", "finetune.num_views=1", "finetune.calibration_batches=2",
]  # fmt: skip


def _load(
    tmp_path: Path, variants: str, *sets: str, baseline: str = "base", space: str = "digits_w8a8"
) -> Comparison:
    path = tmp_path / "variants.yaml"
    path.write_text(f"baseline: {baseline}\nvariants: {variants}\n")
    return load_comparison(path, space, sets)


def _run(comparison: Comparison, tmp_path: Path, seeds: int) -> list[str]:
    return list(compare(comparison, seeds, tmp_path / "rows.jsonl", tmp_path / "store", ["-x"]))


def _rows(tmp_path: Path) -> list[dict[str, Any]]:
    return read_rows(tmp_path / "rows.jsonl")


# --- merging ---


def test_a_variants_recipe_lies_over_the_space_but_keeps_its_budget(tmp_path: Path) -> None:
    """The recipe's d0 and crops win over the space's; the space's epochs and batches stay."""
    variants = "{base: {}, paper: {recipe: synq_paper}, code: {recipe: synq_code}}"
    trials = {
        k: v.finetune for k, v in _load(tmp_path, variants, space="digits_w3a3").variants.items()
    }
    assert (trials["base"].d0, trials["paper"].d0) == (4, 80)
    assert (trials["base"].crop_scale, trials["paper"].crop_scale) == ((0.8, 1.0), None)
    assert trials["code"].temperature == 20.0
    for trial in trials.values():
        assert (trial.epochs, trial.batch_size, trial.steps_per_epoch) == (24, 128, None)


def test_a_variants_own_settings_lie_over_its_recipe_and_set_over_all(tmp_path: Path) -> None:
    """recipe < space < variant < --set, for the budget as well."""
    settings = (
        "{recipe: synq_code, quantizer: lsq, finetune: {temperature: 3, tau: 0.9, epochs: 7}}"
    )
    comparison = _load(tmp_path, f"{{base: {settings}}}", "finetune.tau=0.1", space="digits_w3a3")
    spec = comparison.variants["base"]
    assert (spec.recipe, spec.quantizer) == ("synq_code", "lsq")
    trial = spec.finetune
    assert (trial.temperature, trial.epochs, trial.tau, trial.kd_weight) == (3, 7, 0.1, 20)


def test_a_variants_recipe_is_whole_and_its_images_are_the_spaces(tmp_path: Path) -> None:
    """Fields that a space states and the recipe leaves out are not mixed in; variants share a dataset."""
    variants = "{base: {}, paper: {recipe: synq_paper}}"
    found = _load(tmp_path, variants, "study.val_data=digits", space="cifar_resnet20_w3a3").variants
    assert (found["base"].finetune.range_share, found["paper"].finetune.range_share) == (0.6, 1.0)
    assert found["base"].synthesis == found["paper"].synthesis


def test_a_recipe_for_all_variants_lies_under_their_own_settings(tmp_path: Path) -> None:
    """`--set recipe` asks for another common ground; what is set before and after it keeps its order."""
    variants = "{base: {finetune: {tau: 0.9}}}"
    sets = ("finetune.lr=1", "recipe=synq_paper", "finetune.d0=7")
    trial = _load(tmp_path, variants, *sets).variants["base"].finetune
    assert (trial.tau, trial.d0, trial.lr, trial.temperature) == (0.9, 7, 1e-4, 1.0)


def test_a_recipe_file_beside_the_variants_is_found(tmp_path: Path) -> None:
    """Names in the file are looked for beside it."""
    (tmp_path / "own.yaml").write_text("format: 1\nfinetune: {temperature: 9}\n")
    spec = _load(tmp_path, "{base: {recipe: own.yaml}}").variants["base"]
    assert spec.finetune.temperature == 9


def test_what_a_space_searches_can_be_a_variant(tmp_path: Path) -> None:
    """The search is ignored, and with it the configurations a study tries first."""
    text = (ROOT / "search_spaces/digits_w3a3.yaml").read_text()
    space = tmp_path / "space.yaml"
    space.write_text(text.replace("\nstudy:", "\nstudy:\n  first: [{lr: 1.0e-2}]"))
    variants = "{base: {finetune: {lr: 0.5}}}"
    spec = _load(tmp_path, variants, space=str(space)).variants["base"]
    assert (spec.finetune.lr, spec.search, spec.study.first) == (0.5, {}, ())


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("{base: {finetune: {lamda_cam: 0}}}", r"variants\.base: .*finetune: .*mean 'lambda_cam'"),
        ("{base: {quantiser: lsq}}", r"variants\.base: Unknown key 'quantiser'.*'quantizer'"),
        ("{base: {recipe: sinq}}", r"variants\.base: Unknown recipe 'sinq'"),
        ("{base: {study: {val_data: digits}}}", r"`a variant has no study`"),
        ("{base: {search: {}}}", r"`a variant has no search`"),
        ("{base: 3}", r"variants\.base: `settings are a mapping`"),
        ("{other: {}}", r"`baseline is one of the variants`.*baseline='base'"),
        ("[]", r"`variants: \{NAME: SETTINGS"),
    ],
)
def test_a_wrong_variant_is_refused_by_name(tmp_path: Path, variants: str, message: str) -> None:
    """One line that says where and what."""
    with pytest.raises(SearchSpaceError, match=message):
        _load(tmp_path, variants)


def test_two_recipes_for_one_variant_are_refused(tmp_path: Path) -> None:
    """`--set recipe` would hide what the variant is about."""
    with pytest.raises(SearchSpaceError, match="beside --set recipe"):
        _load(tmp_path, "{base: {recipe: synq_paper}}", "recipe=synq_code")


def test_labelled_images_are_required(tmp_path: Path) -> None:
    """The script ends with one line before anything is loaded."""
    (tmp_path / "v.yaml").write_text("{baseline: a, variants: {a: {}}}")
    command = [sys.executable, str(ROOT / "scripts/compare.py"), "--space", "resnet18_w8a8"]
    command += ["--variants", "v.yaml", "--output", "rows.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "Pass --val-data." in done.stderr
    assert not (tmp_path / "rows.jsonl").exists()


def test_the_settings_leave_names_and_folders_out(tmp_path: Path) -> None:
    """A recipe spelled out is the recipe; own code counts by its text, wherever it lies."""
    same = _load(tmp_path, "{base: {}, again: {recipe: synq, finetune: {d0: 4}}}", "finetune.d0=4")
    base, again = (settings_of(spec) for spec in same.variants.values())
    assert "weights" not in base["teacher"] and "name" not in base
    assert base["finetune"]["temperature"] == again["finetune"]["temperature"]
    (tmp_path / "my.py").write_text("def weights(activations, gradients): ...\n")
    own = _load(tmp_path, "{base: {finetune: {cam: 'my.py:weights'}}}").variants["base"]
    identity = settings_of(own)["finetune"]["cam"]
    assert identity["name"] == "my.py:weights" and len(identity["source_sha256"]) == 64


# --- running ---


@pytest.mark.long
def test_a_comparison_end_to_end(tmp_path: Path) -> None:
    """Seed by seed with the same seeds for all; resumed without a run; a changed setting runs again."""
    variants = "{base: {finetune: {epochs: 1}}, calibrated: {finetune: {epochs: 0}}}"
    lines = _run(_load(tmp_path, variants, *SMALL), tmp_path, seeds=2)
    rows = _rows(tmp_path)
    order = [(0, "base"), (0, "calibrated"), (1, "base"), (1, "calibrated")]
    assert [(row["seed"], row["variant"]) for row in rows] == order
    assert [(row["updates"], row["images_seen"]) for row in rows[:2]] == [(2, 48), (0, 0)]
    for row in rows:
        halves = row["labelled"]["choose"] * row["top1_choose"]
        halves += row["labelled"]["report"] * row["top1_report"]
        assert row["top1"] == pytest.approx(halves / sum(row["labelled"].values()))
        assert (row["state"], row["error"]) == ("completed", None)
    assert len({row["dataset"]["address"] for row in rows}) == 1
    assert rows[0]["holdout_kl"] != rows[2]["holdout_kl"]
    assert any(line.startswith("| full precision | – | 9") for line in lines)

    before = (tmp_path / "rows.jsonl").read_bytes()
    assert _run(_load(tmp_path, variants, *SMALL), tmp_path, 2)[1:] == lines[5:]
    assert (tmp_path / "rows.jsonl").read_bytes() == before

    changed = variants.replace("epochs: 0", "epochs: 0, d0: 2")
    _run(_load(tmp_path, changed, *SMALL), tmp_path, seeds=1)
    assert [(r["seed"], r["variant"]) for r in _rows(tmp_path)[4:]] == [(0, "calibrated")]


@pytest.mark.long
def test_variants_are_paired_by_seed(tmp_path: Path) -> None:
    """A setting without effect changes nothing: same batches in the same order, and a gain of zero."""
    variants = "{base: {finetune: {tau: 0.5}}, same: {finetune: {tau: 0.9}}}"
    sets = [*SMALL, "finetune.epochs=1", "finetune.lambda_ce=0", "finetune.lr=0.1"]
    lines = _run(_load(tmp_path, variants, *sets), tmp_path, seeds=2)
    losses = [row["holdout_kl"] for row in _rows(tmp_path)]
    assert losses[0] == losses[1] != losses[2] == losses[3]
    assert any("+0.00 [+0.00, +0.00], 2 pairs" in line for line in lines)


@pytest.mark.long
def test_an_interrupted_comparison_makes_the_rest(tmp_path: Path) -> None:
    """Of a file cut after one run only the others are made; a renamed variant keeps its runs."""
    variants = "{base: {finetune: {epochs: 0}}, d0: {finetune: {epochs: 0, d0: 2}}}"
    _run(_load(tmp_path, variants, *SMALL), tmp_path, seeds=1)
    path = tmp_path / "rows.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(first + "\n")
    _run(_load(tmp_path, variants.replace("d0:", "wide:", 1), *SMALL), tmp_path, seeds=1)
    made = _rows(tmp_path)[1]
    assert (made["variant"], path.read_text().splitlines()[0]) == ("wide", first)
    path.write_text(f"{first}\n{second}\n")
    _run(_load(tmp_path, variants.replace("d0:", "wide:", 1), *SMALL), tmp_path, seeds=1)
    assert _rows(tmp_path)[2] == {**json.loads(second), "variant": "wide"}


def test_a_run_that_diverges_is_a_row(tmp_path: Path) -> None:
    """It is counted, has no accuracy, is not run again, and the others go on."""
    bad = "{epochs: 1, lr: 1.0e+30, grad_clip: null}"
    variants = f"{{bad: {{finetune: {bad}}}, base: {{finetune: {{epochs: 0}}}}}}"
    comparison = _load(tmp_path, variants, *SMALL)
    lines = _run(comparison, tmp_path, seeds=1)
    bad_row, good_row = _rows(tmp_path)
    assert (bad_row["state"], bad_row["top1_report"]) == ("diverged", None)
    assert "not finite" in bad_row["error"] and good_row["state"] == "completed"
    assert "| bad | 0 | – | – | 1 | – | – |" in lines
    _run(comparison, tmp_path, seeds=1)
    assert len(_rows(tmp_path)) == 2


def test_a_variant_that_cannot_run_stops_all_before_any_run(tmp_path: Path) -> None:
    """The second variant's CAM layer is wrong: nothing was written, not even a dataset."""
    variants = "{base: {}, wrong: {finetune: {cam_layer: nowhere}}}"
    with pytest.raises(InputError, match="nowhere"):
        _run(_load(tmp_path, variants, *SMALL), tmp_path, seeds=1)
    assert list(tmp_path.iterdir()) == [tmp_path / "variants.yaml"]


def test_teachers_and_images_are_loaded_once(tmp_path: Path) -> None:
    """Variants of one teacher share it; one with another normalisation has its own, on equal images."""
    variants = "{base: {}, lsq: {quantizer: lsq}, dark: {teacher: {mean: [0.29], std: [0.38]}}}"
    comparison = _load(tmp_path, variants)
    bench = Bench(tmp_path)
    shas = checked(comparison, bench)
    base, lsq, dark = (bench.ground(spec) for spec in comparison.variants.values())
    assert base is lsq and base is not dark
    assert base.teacher.fingerprint != dark.teacher.fingerprint
    assert len(set(shas.values())) == 3


@pytest.mark.parametrize(
    ("steps", "expected"), [(None, (4, 100)), (1, (2, 60)), (3, (6, 160)), (4, (8, 200))]
)
def test_the_cost_counts_short_batches(steps: int | None, expected: tuple[int, int]) -> None:
    """Two epochs over 50 images in batches of 30: a pass is 30 and 20, then the next one starts."""
    config = FineTune(epochs=2, batch_size=30, steps_per_epoch=steps)
    assert cost(config, 50) == expected


# --- the table ---


def test_the_interval_is_students_t_on_paired_differences() -> None:
    """Differences 1, 2, 3: mean 2, standard deviation 1, t(0.975; 2) = 4.302653, over √3."""
    gain = paired_gain([(91.0, 90.0), (82.0, 80.0), (73.0, 70.0)])
    assert (gain.mean, gain.pairs) == (pytest.approx(2.0), 3)
    assert gain.half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)


def test_one_pair_has_no_interval() -> None:
    """And none at all has no gain."""
    assert paired_gain([(91.0, 90.0)]).half is None
    assert paired_gain([]) is None


def _recorded(comparison: Comparison, name: str, seed: int, top1: float | None, **more) -> dict:
    return {
        "variant": name, "seed": seed, "settings_sha": f"sha-{name}",
        "settings": settings_of(comparison.variants[name]),
        "teacher": {"model": "digits_resnet26", "fingerprint": "f" * 64, "top1_report": 98.5},
        "labelled": {"choose": 450, "report": 449},
        "dataset": {"method": "synq", "address": "a" * 32, "num_images": 48, "num_holdout": 16},
        "top1_report": top1, "updates": 12 if top1 else None, "seconds": 2.0,
        "state": "completed" if top1 else "diverged", "error": None if top1 else "kd loss is nan",
        "machine": "a processor, 2 cores", "versions": {"torch": "2.0", "synq_tune": "0.1"}, **more,
    }  # fmt: skip


def _write(tmp_path: Path, rows: list[dict]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_page_is_written_of_recorded_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--report --page` runs nothing, prints the table, and says where the page is."""
    comparison = _load(tmp_path, "{base: {}, lsq: {quantizer: lsq}}")
    rows = [_recorded(comparison, name, 0, 90.0) for name in ("base", "lsq")]
    _write(tmp_path, rows)
    words = ["--space", "digits_w8a8", "--variants", f"{tmp_path}/variants.yaml", "--report"]
    where = ["--output", f"{tmp_path}/rows.jsonl", "--page", f"{tmp_path}/table.html"]
    assert main([*words, *where]) == 0
    out = capsys.readouterr().out
    assert "| lsq | 1 |" in out and f"page      {tmp_path}/table.html" in out
    page = (tmp_path / "table.html").read_text()
    assert "What each variant gains" in page and "--page" not in page.rpartition("<pre")[2]


def test_the_report_of_a_recorded_file(tmp_path: Path) -> None:
    """Means over completed runs, gains over common seeds only, diverged ones counted."""
    comparison = _load(tmp_path, "{base: {}, lsq: {quantizer: lsq}}")
    base = [_recorded(comparison, "base", s, v) for s, v in enumerate((90.0, 80.0, 70.0, None))]
    lsq = [_recorded(comparison, "lsq", s, v) for s, v in enumerate((91.0, 82.0, 73.0, 50.0))]
    path = _write(tmp_path, [*base, *lsq])
    lines = report("base", read_recorded(comparison, path), ["--space", "a b"])
    assert lines[:5] == [
        "| variant | runs | top-1 (%) | gain over base [95 %] | diverged | updates per run | "
        "seconds per run |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| full precision | – | 98.50 | – | – | – | – |",
        "| base | 3 | 80.00 ± 10.00 | – | 1 | 12 | 2.0 |",
        "| lsq | 4 | 74.00 ± 17.61 | +2.00 [-0.48, +4.48], 3 pairs | 0 | 12 | 2.0 |",
    ]
    text = "\n".join(lines[5:])
    for fact in ("scripts/compare.py --space 'a b'", "fingerprint ffffffffffff", "449 reported on",
                 "48 to train on, 16 held out", "a processor, 2 cores", "torch 2.0"):  # fmt: skip
        assert fact in text


def test_rows_of_other_settings_are_not_shown(tmp_path: Path) -> None:
    """A variant of the same name with other settings is another; a field added since is no difference."""
    comparison = _load(tmp_path, "{base: {}}")
    now = _recorded(comparison, "base", 0, 90.0)
    other = _recorded(comparison, "base", 1, 10.0)
    other["settings"] = {**other["settings"], "quantizer": "lsq"}
    older = json.loads(json.dumps(_recorded(comparison, "base", 2, 80.0)))
    del older["settings"]["finetune"]["cam_resize"]
    chosen = read_recorded(comparison, _write(tmp_path, [now, other, older]))
    assert [row["seed"] for row in chosen["base"]] == [0, 2]


def test_variants_with_the_same_settings_are_named(tmp_path: Path) -> None:
    """`--set` comes last: it may take away what a variant is about, which the report says."""
    comparison = _load(tmp_path, "{base: {}, short: {finetune: {epochs: 1}}}", "finetune.epochs=2")
    rows = [_recorded(comparison, n, 0, 90.0, settings_sha="one") for n in ("base", "short")]
    lines = report("base", read_recorded(comparison, _write(tmp_path, rows)), [])
    assert "same settings: base, short (--set lies over the variants)." in lines


def test_a_damaged_file_is_refused_by_its_line(tmp_path: Path) -> None:
    """The user deletes the line; a missing file is said to be missing."""
    comparison = _load(tmp_path, "{base: {}}")
    with pytest.raises(InputError, match="Run without --report first"):
        read_recorded(comparison, tmp_path / "rows.jsonl")
    path = _write(tmp_path, [_recorded(comparison, "base", 0, 90.0)])
    path.write_text(path.read_text() + '{"variant": "ba')
    with pytest.raises(InputError, match="line 2: `the line is one run`"):
        read_recorded(comparison, path)


@pytest.mark.long
def test_a_reconstruction_is_compared_too(tmp_path: Path) -> None:
    """Its settings tell variants apart and come with the recipe; what is measured is the end."""
    few = "reconstruct: {iterations: 1, batch_size: 8, blocks: [layer1, layer2, layer3]}"
    variants = (
        f"{{base: {{recipe: genie, {few}}}, more: {{recipe: genie, reconstruct: {{iterations: 2, "
        "batch_size: 8, blocks: [layer1, layer2, layer3]}}, "
        f"trained: {{recipe: genie_synq, finetune: {{epochs: 1}}, {few}}}, "
        "plain: {recipe: synq, quantizer: genie, finetune: {epochs: 1}}}"
    )
    comparison = _load(tmp_path, variants, *SMALL, "quantizer=genie")
    specs = comparison.variants
    assert [spec.finetune.epochs for spec in specs.values()] == [0, 0, 1, 1]
    assert [spec.reconstruct.is_on for spec in specs.values()] == [True, True, True, False]
    assert "reconstruct" in settings_of(specs["base"]) and "reconstruct" not in settings_of(
        specs["plain"]
    )
    shas = checked(comparison, Bench(tmp_path / "store"))
    assert len(set(shas.values())) == 4
    _run(comparison, tmp_path, 1)
    rows = {row["variant"]: row for row in _rows(tmp_path)}
    assert all(row["state"] == "completed" for row in rows.values())
    assert rows["base"]["updates"] == 0 and rows["trained"]["updates"] == 2
    assert all(read_recorded(comparison, tmp_path / "rows.jsonl").values())
