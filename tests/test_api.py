"""`from synq_tune import search, load_space, Study`: a study from Python."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import synq_tune
from synq_tune.config import StudySpec
from synq_tune.errors import InputError
from synq_tune.study.ledger import Ledger

ROOT = Path(__file__).parents[1]


def _add(ledger: Ledger, number: int, state: str, **metrics: float) -> None:
    key = f"trial-{number:04d}"
    params = {"lr": 0.01, "cam": "gradcam", "d0": 4}
    ledger.append(
        "proposed", key=key, kind="search", number=number, params=params, seed=number, label=""
    )
    ledger.append("started", key=key)
    ledger.append("evaluated", key=key, epoch=3, metrics=metrics, losses={"total": 1.0})
    ended = {"metrics": {**metrics, "epoch": 3}, "epochs_run": 3, "seconds": 2.0}
    ledger.append("finished", key=key, state=state, **ended)


@pytest.fixture
def study(ledger: Ledger) -> synq_tune.Study:
    """Two completed trials and a stopped one."""
    for number, (state, top1) in enumerate(
        [("completed", 80.0), ("completed", 90.0), ("stopped", 70.0)]
    ):
        _add(ledger, number, state, top1=top1, agreement=top1 - 1)
    ledger.close()
    return synq_tune.Study(ledger.folder)


def test_importing_costs_nothing() -> None:
    """Neither torch nor pydantic is loaded before something is asked for."""
    code = "import sys, synq_tune; print([m for m in ('torch', 'pydantic') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_search_can_be_called_whatever_was_imported_before() -> None:
    """The room of that name is the function, too."""
    import synq_tune.search.design  # noqa: F401
    from synq_tune import load_space, search

    assert callable(search) and isinstance(load_space("digits_w3a3"), StudySpec)
    with pytest.raises(InputError, match="digits_w3a9"):
        search("digits_w3a9")
    with pytest.raises(InputError, match="unrecognized arguments: --num-trails=3"):
        search("digits_w3a3", num_trails=3)
    with pytest.raises(InputError, match="exactly one of --space and --resume"):
        search()
    with pytest.raises(AttributeError, match="nothing"):
        synq_tune.nothing  # noqa: B018


def test_a_study_is_an_object(study: synq_tune.Study) -> None:
    """Its trials are a table, its best trial and its settings are at hand."""
    trials = study.trials
    assert list(trials["number"]) == [0, 1, 2]
    assert list(trials["state"]) == ["completed", "completed", "stopped"]
    assert list(trials["metrics.top1"]) == [80.0, 90.0, 70.0]
    assert set(trials["params.cam"]) == {"gradcam"}
    assert (study.best["number"], study.spec.name) == (1, "digits_w3a3")
    assert study.ladder.empty and "digits_w3a3" in repr(study)


def test_a_study_is_read_again(study: synq_tune.Study) -> None:
    """A driver may be at work meanwhile."""
    with_more = Ledger.open(study.folder)
    _add(with_more, 3, "completed", top1=95.0, agreement=94.0)
    with_more.close()
    assert len(study.trials) == 3
    assert len(study.refresh().trials) == 4 and study.best["number"] == 3


def test_a_study_is_one_of_optunas(study: synq_tune.Study) -> None:
    """Finished trials with their values, parameters and distributions."""
    found = study.to_optuna()
    assert found.best_trial.number == 1 and found.best_value == 90.0
    assert [t.state.name for t in found.trials] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert found.trials[2].intermediate_values == {3: 70.0}
    assert found.best_params == {"lr": 0.01, "cam": "gradcam", "d0": 4}


def test_a_study_opens_without_what_runs_one(study: synq_tune.Study) -> None:
    """Reading one needs neither torch nor Ray, Optuna or MLflow."""
    code = (
        "import sys, synq_tune; s = synq_tune.Study(sys.argv[1]); repr(s), s.trials, s.best, s.ladder\n"
        "print([m for m in ('torch', 'ray', 'optuna', 'mlflow') if m in sys.modules])"
    )
    call = [sys.executable, "-c", code, str(study.folder)]
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_optunas_notes_to_its_developers_are_not_shown(
    study: synq_tune.Study, recwarn: pytest.WarningsRecorder
) -> None:
    """The metric has its name in plots, and nobody reads that this is experimental."""
    assert study.to_optuna().metric_names == ["top1"]
    assert not recwarn.list


@pytest.mark.parametrize(
    ("sets", "texts"),
    [
        ("finetune.lr=0.01", ["finetune.lr=0.01"]),
        (["finetune.lr=0.01", "study.confirm=null"], ["finetune.lr=0.01", "study.confirm=null"]),
        ({"study.confirm": None}, ["study.confirm=null"]),
        ({"finetune.epochs": np.int64(2)}, ["finetune.epochs=2"]),
        ({"search.lr": {"choice": np.array([0.5, 0.25])}}, ['search.lr={"choice": [0.5, 0.25]}']),
        ({"study.val_data": Path("dé")}, ['study.val_data="dé"']),
    ],
)
def test_settings_are_given_as_python_has_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sets: Any, texts: list[str]
) -> None:
    """A text, texts, or values: NumPy's and paths too. A folder's name may look like an option."""
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(
        "synq_tune.commands.search.search_command", lambda a: asked.append(a) or 130
    )
    with pytest.raises(KeyboardInterrupt):
        synq_tune.search("digits_w3a3", sets, output_dir="-x", num_trials=np.int64(3))
    assert asked[0].sets == texts and asked[0].num_trials == 3
    assert asked[0].output_dir == str(tmp_path / "-x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": "digits_w3a3", "dry_run": True}, "synq-tune search --dry-run"),
        ({"space": "digits_w3a3", "sets": {"finetune.lr": object()}}, "finetune.lr: .* got object"),
        ({"space": synq_tune.load_space("digits_w3a3")}, "Give its name, 'digits_w3a3'"),
    ],
)
def test_what_cannot_make_a_study_is_refused_before_any_work(
    arguments: dict[str, Any], message: str
) -> None:
    """One line says what to give instead."""
    with pytest.raises(InputError, match=message):
        synq_tune.search(**arguments)


def test_a_search_outside_the_main_thread_is_refused() -> None:
    """Python lets no other thread heed signals, which a study ends by."""
    with ThreadPoolExecutor(1) as pool, pytest.raises(InputError, match="the main thread"):
        pool.submit(synq_tune.search, "digits_w3a3").result()


@pytest.mark.slow
@pytest.mark.ray
def test_the_notebook_runs(tmp_path: Path) -> None:
    """docs/python.ipynb, cell by cell, as a reader would."""
    cells = json.loads((ROOT / "docs" / "python.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 3
    # Workers import the main module: a file, as for any script.
    (tmp_path / "cells.py").write_text("\n\n".join(code))
    run = subprocess.run(
        [sys.executable, "cells.py"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
