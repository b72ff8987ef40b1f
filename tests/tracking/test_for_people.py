"""What MLflow's pages show: states, the best, datasets, sentences, short numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from synq_tune.config.load import load_space
from synq_tune.study.ledger import Ledger
from synq_tune.study.stages import Best, Dataset, Ladder, Rung, Teacher
from synq_tune.study.state import Run, StudyState
from synq_tune.tracking import Tracker, default_tracking_uri
from synq_tune.tracking.batch import shown
from synq_tune.tracking.inputs import Labelled, dataset_inputs
from synq_tune.tracking.sentences import NOTE, note_tags, run_sentence, study_sentences
from synq_tune.tracking.writer import TrackedStudy
from tests.helpers import tiny_onnx

MADE = Dataset("/secret/place/ab", "ab" * 32, 768, 128, "synq")
LABELLED = Labelled("cd" * 32, 448, 449)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.fixture
def folder(studies: Path, request: pytest.FixtureRequest) -> Path:
    """Of a study of its own; all share one database, which takes seconds to make."""
    return studies / request.node.name.replace("[", "-").rstrip("]")


@pytest.fixture
def client(folder: Path) -> MlflowClient:
    uri = default_tracking_uri(folder)
    return MlflowClient(uri, registry_uri=uri)


def _run(key: str, kind: Any, number: int | None, state: Any = "completed") -> Run:
    ended = {"finished_at": 1060.0} if state not in ("running", "interrupted") else {}
    return Run(key, kind, number, {"lr": 0.01}, 7, state=state, started_at=1000.0, **ended)


RUNS = [
    _run("trial-0000", "search", 0),
    _run("trial-0001", "search", 1, "stopped"),
    _run("trial-0002", "search", 2),
    _run("ladder-paper", "ladder", None, "diverged"),
    _run("confirm-0000-1", "confirm", 0, "failed"),
    _run("confirm-0002-1", "confirm", 2, "interrupted"),
]


def _state(folder: Path, best: int | None = None) -> StudyState:
    spec = load_space("digits_w3a3")
    state = StudyState(spec, {"id": folder.name, "name": spec.name}, {r.key: r for r in RUNS})
    if best is not None:
        state.stages.put(Best(f"trial-{best:04d}", best, {"lr": 0.01}, {}, "/best", files={}))
    return state


def _tracker(folder: Path, state: StudyState) -> Tracker:
    return Tracker.open(default_tracking_uri(folder), folder, state)


def _tags(client: MlflowClient, tracker: Tracker) -> dict[str, dict[str, str]]:
    """Tags of every child, by key."""
    trials = f"tags.`mlflow.parentRunId` = '{tracker.parent_id}'"
    found = client.search_runs([tracker.experiment_id], trials)
    return {run.data.tags["synq.key"]: run.data.tags for run in found}


def test_every_run_has_its_state_and_the_best_ones_a_mark(
    folder: Path, client: MlflowClient
) -> None:
    """The mark goes where the best goes; a driver that knows nothing yet takes none away twice."""
    for best, marked in (
        (None, set()),
        (0, {"trial-0000", "confirm-0000-1"}),
        (2, {"trial-0002", "confirm-0002-1"}),
        (2, {"trial-0002", "confirm-0002-1"}),
    ):
        state = _state(folder, best)
        tracker = _tracker(folder, state)
        tracker.sync(state)
        tags = _tags(client, tracker)
        assert {key: t["state"] for key, t in tags.items()} == {r.key: r.state for r in RUNS}
        assert {key for key, t in tags.items() if t.get("best") == "yes"} == marked


def test_runs_of_an_older_version_are_told_again(folder: Path, client: MlflowClient) -> None:
    """One that has no `state` gets it, though it is over, and no point twice."""
    state = _state(folder)
    state.runs["trial-0000"] = replace(RUNS[0], metrics={"top1": 98.88392857142857})
    tracker = _tracker(folder, state)
    tracker.sync(state)
    (child,) = (c for c in tracker.children() if c["key"] == "trial-0000")
    client.delete_tag(child["id"], "state")
    tracker = _tracker(folder, state)
    tracker.sync(state)
    assert _tags(client, tracker)["trial-0000"]["state"] == "completed"
    assert [p.value for p in client.get_metric_history(child["id"], "top1")] == [98.88]


def test_an_interrupted_mark_is_made_up_for(
    folder: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that dies between two runs leaves the rest to the next one."""
    tracker = _tracker(folder, _state(folder, 0))
    tracker.sync(_state(folder, 0))
    monkeypatch.setattr(
        MlflowClient, "delete_tag", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        tracker.sync(_state(folder, 2))
    monkeypatch.undo()
    again = _tracker(folder, _state(folder, 2))
    again.sync(_state(folder, 2))
    marked = {key for key, tags in _tags(client, again).items() if "best" in tags}
    assert marked == {"trial-0002", "confirm-0002-1"}


def test_study_and_runs_have_the_datasets_once(folder: Path, client: MlflowClient) -> None:
    """Digest, number of images and what they were for; logged again, none is added."""
    state = _state(folder)
    for _ in range(2):
        tracker = _tracker(folder, state)
        tracker.log_inputs(dataset_inputs(state.spec, MADE, LABELLED, with_paths=True))
        tracker.sync(state)
    children = client.search_runs([tracker.experiment_id], f"tags.`synq.study` = '{folder.name}'")
    assert len(children) == 1 + len(RUNS)
    for run in children:
        found = {i.dataset.name: i for i in run.inputs.dataset_inputs}
        assert len(run.inputs.dataset_inputs) == 2
        synthetic, labelled = found["synthetic images"], found["labelled images"]
        assert synthetic.dataset.digest == "ab" * 16
        assert json.loads(synthetic.dataset.profile) == {
            "num_rows": 768, "num_holdout": 128, "method": "synq",
        }  # fmt: skip
        assert json.loads(labelled.dataset.profile)["num_rows"] == 897
        assert [tag.value for tag in synthetic.tags] == ["training"]
        assert [tag.value for tag in labelled.tags] == ["evaluation"]


def test_a_store_elsewhere_is_not_told_where_images_lie() -> None:
    """Only this machine has the paths."""
    spec = load_space("digits_w3a3", ["study.val_data=/secret/labels"])
    for with_paths in (True, False):
        told = dataset_inputs(spec, MADE, LABELLED, with_paths)
        texts = [i.dataset.source for i in told] + [i.dataset.profile for i in told]
        assert any("/secret/" in text for text in texts) is with_paths


def test_without_labels_there_is_one_dataset() -> None:
    """The synthetic one."""
    (only,) = dataset_inputs(load_space("digits_w3a3"), MADE, None, with_paths=False)
    assert only.dataset.name == "synthetic images"


def test_runs_say_in_a_sentence_what_they_are(folder: Path, client: MlflowClient) -> None:
    """Trials, repeats and the rung of the ladder."""
    state = _state(folder)
    tracker = _tracker(folder, state)
    tracker.sync(state)
    notes = {key: tags[NOTE] for key, tags in _tags(client, tracker).items()}
    assert notes["trial-0001"].startswith(
        "Trial 1 of the space digits_w3a3: digits_resnet26 at W3A3, calibrated and fine-tuned"
    )
    assert notes["confirm-0002-1"].startswith("Trial 2 of the space digits_w3a3 again")
    assert "comparison" in notes["ladder-paper"]
    untrained = replace(RUNS[0], params={"epochs": 0})
    assert "calibrated only" in run_sentence(state.spec, untrained)


LADDER = Ladder((
    Rung("full precision", 100.0, 64, 64, top1=99.5535, low=98.0, high=99.9, num_images=448, chosen_on=448),
    Rung("the best found", 95.123, 64, 64, top1=98.8839, low=97.0, high=99.5, num_images=448, chosen_on=448),
))  # fmt: skip


def test_the_study_says_what_came_of_it(folder: Path) -> None:
    """What was asked; at the end the best, on images that chose nothing."""
    state = _state(folder, 2)
    asked = study_sentences(state)
    assert asked == (
        "A search for the best W3A3 version of digits_resnet26 without its training data (space "
        "digits_w3a3, recipe synq), chosen by top1."
    )
    state.stages.put(LADDER)
    assert study_sentences(state) == asked + (
        " The best is trial-0002: top-1 98.88 %, 99.55 % in full precision (chosen on 448, "
        "measured on 448 images)."
    )
    state.stages.put(Ladder((Rung("the best found", 95.123, 64, 32),)))
    assert "it agrees with full precision on 95.12 % of the probes" in study_sentences(state)


def test_a_description_of_the_users_own_stays(folder: Path, client: MlflowClient) -> None:
    """Ours is written, and written anew; what somebody typed on the page is left alone."""
    tracker = _tracker(folder, _state(folder))
    for text in ("first", "second"):
        tracker = _tracker(folder, _state(folder))
        tracker.describe_parent(text)
        assert client.get_run(tracker.parent_id).data.tags[NOTE] == text
    client.set_tag(tracker.parent_id, NOTE, "my own words")
    tracker = _tracker(folder, _state(folder))
    tracker.describe_parent("third")
    assert client.get_run(tracker.parent_id).data.tags[NOTE] == "my own words"
    assert note_tags("x", {NOTE: "theirs"}) == {}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("top1", 98.88392857142857, 98.88),
        ("agreement_best_epoch", 95.8333333, 95.83),
        ("best/top1", 99.555, 99.56),
        ("ladder/the best found", 99.3303571, 99.33),
        ("holdout_kl", 0.0512345, 0.0512345),
        ("best/holdout_kl", 0.0512345, 0.0512345),
        ("loss/total", 1.23456, 1.23456),
        ("epoch", 24, 24.0),
    ],
)
def test_percentages_have_two_decimals(name: str, value: float, told: float) -> None:
    """Nothing else is rounded."""
    assert shown(name, value) == told


@pytest.fixture
def finished(folder: Path) -> Ledger:
    """A study whose best is exported."""
    import onnx

    ledger = Ledger.create(folder, load_space("digits_w3a3"))
    ledger.record(Teacher("net", "ab"))
    ledger.record(MADE)
    ledger.record(LADDER)
    params = {"lr": 0.01, "cam": "gradcam"}
    metrics = {"top1": 98.4375123, "agreement": 93.0}
    ledger.record(Best("trial-0001", 1, params, metrics, "/study/best", files={}))
    (folder / "best").mkdir()
    onnx.save(tiny_onnx(), folder / "best" / "model.onnx")
    return ledger


def _upload(ledger: Ledger) -> TrackedStudy:
    study = TrackedStudy.open(ledger, None, ledger.folder)
    study.describe(ledger.state, LABELLED)
    image = np.ones((1, 1, 2, 2), np.float32)
    told = study.log_best(ledger.folder / "best", ledger.state, image)
    assert told.refused == {}
    study.finish("FINISHED")
    return study


def test_the_parent_has_the_best_parameters(finished: Ledger, client: MlflowClient) -> None:
    """As tags, since another trial may become the best; one that is no longer set is gone."""
    study = _upload(finished)
    tags = client.get_run(study.tracker.parent_id).data.tags
    assert {k: v for k, v in tags.items() if k.startswith("best.")} == {
        "best.lr": "0.01", "best.cam": "gradcam",
    }  # fmt: skip
    assert "The best is trial-0001" in tags[NOTE]
    finished.record(Best("trial-0000", 0, {"epochs": 0}, {}, "/study/best", files={}))
    study = _upload(finished)
    tags = client.get_run(study.tracker.parent_id).data.tags
    assert {k: v for k, v in tags.items() if k.startswith("best.")} == {"best.epochs": "0"}


def test_the_model_has_a_name_metrics_and_parameters(
    finished: Ledger, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that died before they were logged is made up for; nothing is logged twice."""
    log_batch, died = MlflowClient.log_batch, []

    def dies(self: MlflowClient, run_id: str, metrics: Any = (), *rest: Any, **more: Any) -> None:
        if not died and any(metric.model_id for metric in metrics):
            died.append(True)
            raise KeyboardInterrupt
        log_batch(self, run_id, metrics, *rest, **more)

    monkeypatch.setattr(MlflowClient, "log_batch", dies)
    with pytest.raises(KeyboardInterrupt):
        _upload(finished)
    for _ in range(2):
        study = _upload(finished)
    (model,) = client.search_logged_models(
        [study.tracker.experiment_id], f"source_run_id = '{study.tracker.parent_id}'"
    )
    assert model.name == "digits_w3a3-W3A3"
    assert model.params.items() >= {"lr": "0.01", "cam": "gradcam", "bits": "W3A3"}.items()
    found = {metric.key: metric.value for metric in client.get_logged_model(model.model_id).metrics}
    assert found == {
        "best/top1": 98.44, "best/agreement": 93.0, "ladder/full precision": 99.55,
        "ladder/the best found": 98.88,
    }  # fmt: skip
    for name, value in found.items():
        history = client.get_metric_history(study.tracker.parent_id, name)
        assert [point.value for point in history] == [value]


@pytest.mark.parametrize("uri", ["sqlite:////a/mlflow.db", "https://ann:pw@mlflow.example"])
def test_every_page_that_is_named_opens_as_training(uri: str) -> None:
    """Without the parameter MLflow 3.17 shows a trial as the evaluation of a language model."""
    tracker = Tracker(uri, Path("study"), "id", upload_images=False)
    pages = [
        word
        for line in TrackedStudy(tracker).closing_lines()
        for word in line.split()
        if word.startswith("http")
    ]
    assert pages and all("?workflowType=machine_learning" in page for page in pages)
    assert "pw" not in "".join(pages)
