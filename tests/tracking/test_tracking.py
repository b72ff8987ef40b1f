"""MLflow shows what the ledger says, once, whatever happens in between."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.redact import redact_uri
from synq_tune.study.state import Run, StudyState
from synq_tune.tracking import (
    Tracker,
    TrackingError,
    default_tracking_uri,
    is_local,
    resolve_tracking_uri,
    study_page,
    study_params,
    study_tags,
    ui_command,
)
from tests.helpers import tiny_onnx

PARAMS = {"lr": 1e-3, "tau": 0.5, "d0": 8, "lambda_ce": 0.005, "lambda_cam": 20, "cam": "cam"}


def entry(epoch, top1):
    return {
        "epoch": epoch,
        "metrics": {"top1": top1, "agreement": top1 - 1, "epoch": epoch},
        "losses": {"total": 1 / epoch, "kd": 0.5 / epoch},
    }


def trial(number, top1s, state="completed"):
    history = [entry(3 * i, top1) for i, top1 in enumerate(top1s, start=1)]
    metrics = {**history[-1]["metrics"], "top1_best_epoch": max(top1s)} if history else {}
    finished = None if state == "running" else 1060.0
    return Run(
        key=f"trial-{number:04d}",
        kind="search",
        number=number,
        params=PARAMS,
        seed=7,
        state=state,
        started_at=1000.0 + number,
        finished_at=finished,
        epochs_run=3 * len(history),
        metrics=metrics,
        history=history,
        moments={e["epoch"]: (1000.0 + e["epoch"], e) for e in history},
    )


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A folder of studies; its database is created once."""
    return tmp_path_factory.mktemp("studies")


@pytest.fixture
def study_dir(studies, request):
    """A new study of that folder."""
    path = studies / request.node.name
    path.mkdir()
    return path


@pytest.fixture
def uri(study_dir):
    return default_tracking_uri(study_dir)


@pytest.fixture
def client(uri):
    return MlflowClient(uri, registry_uri=uri)


def state_of(study_dir, *runs):
    spec = load_space("digits_w3a3")
    header = {"id": study_dir.name.encode().hex(), "name": spec.name}
    return StudyState(spec, header, {run.key: run for run in runs})


def children(client, tracker, order_by=None):
    trials = f"tags.`mlflow.parentRunId` = '{tracker.parent_id}'"
    return client.search_runs([tracker.experiment_id], trials, order_by=order_by)


def points(client, tracker):
    """Every metric point of every child: (name, key, step, value)."""
    return sorted(
        (child.info.run_name, key, point.step, point.value)
        for child in children(client, tracker)
        for key in child.data.metrics
        for point in client.get_metric_history(child.info.run_id, key)
    )


def the_child(client, tracker):
    (child,) = children(client, tracker)
    return child


def test_child_shows_its_run(study_dir, uri, client):
    """A child carries the run's params, seed, curves by epoch, final metrics, state and times."""
    tracker = Tracker.open(uri, study_dir, state_of(study_dir))
    tracker.sync(state_of(study_dir, trial(0, [50.0, 80.0, 70.0])))
    child = the_child(client, tracker)
    assert child.info.run_name == "trial-0000"
    assert child.data.params == {**{k: str(v) for k, v in PARAMS.items()}, "seed": "7"}
    assert child.data.metrics["top1"] == 70.0
    assert child.data.metrics["top1_best_epoch"] == 80.0
    assert child.data.tags["synq.state"] == "completed"
    assert (child.info.start_time, child.info.end_time) == (1_000_000, 1_060_000)
    curve = client.get_metric_history(child.info.run_id, "loss/kd")
    assert [(p.step, p.value) for p in curve] == [(3, 0.5 / 3), (6, 0.5 / 6), (9, 0.5 / 9)]


def test_losses_have_a_point_an_epoch(study_dir, uri, client):
    """Also of epochs that nobody evaluated; logged again, none is doubled."""
    run = trial(0, [50.0, 60.0])
    for n, e in enumerate(run.history):
        e["earlier"] = {str(3 * n + i): {"total": 10.0 / (3 * n + i)} for i in (1, 2)}
    state = state_of(study_dir, run)
    for _ in range(2):
        tracker = Tracker.open(uri, study_dir, state)
        tracker.sync(state)
    curve = client.get_metric_history(the_child(client, tracker).info.run_id, "loss/total")
    assert [(p.step, p.value) for p in sorted(curve, key=lambda p: p.step)] == [
        (1, 10.0), (2, 5.0), (3, 1 / 3), (4, 2.5), (5, 2.0), (6, 1 / 6),
    ]  # fmt: skip
    assert {
        p.step for p in client.get_metric_history(the_child(client, tracker).info.run_id, "top1")
    } == {3, 6}


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("running", "RUNNING"),
        ("completed", "FINISHED"),
        ("stopped", "FINISHED"),
        ("diverged", "FAILED"),
        ("failed", "FAILED"),
        ("interrupted", "KILLED"),
    ],
)
def test_state_becomes_status(study_dir, uri, client, state, status):
    """MLflow's own status follows the ledger's state."""
    tracker = Tracker.open(uri, study_dir, state_of(study_dir))
    tracker.sync(state_of(study_dir, trial(0, [50.0], state)))
    assert the_child(client, tracker).info.status == status


def test_second_sync_changes_nothing(study_dir, uri, client, monkeypatch):
    """Syncing the same state again sends no request."""
    state = state_of(study_dir, trial(0, [50.0]), trial(1, [40.0], "running"))
    tracker = Tracker.open(uri, study_dir, state)
    tracker.sync(state)
    before = points(client, tracker)
    for name in ("create_run", "log_batch", "update_run", "set_terminated", "search_runs"):
        monkeypatch.delattr(MlflowClient, name)
    tracker.sync(state)
    monkeypatch.undo()
    assert points(client, tracker) == before


def test_reopened_study_is_continued(study_dir, uri, client):
    """A new process finds parent and children, and logs only what is new."""
    done, running = trial(0, [50.0, 60.0]), trial(1, [40.0], "running")
    first = Tracker.open(uri, study_dir, state_of(study_dir, done, running))
    first.sync(state_of(study_dir, done, running))
    before = points(client, first)
    state = state_of(study_dir, done, trial(1, [40.0, 45.0], "running"))
    second = Tracker.open(uri, study_dir, state)
    second.sync(state)
    assert second.parent_id == first.parent_id
    new = {p for p in points(client, second) if p not in before}
    assert {(name, step) for name, _, step, _ in new} == {("trial-0001", 6)}
    assert len(points(client, second)) == len(before) + len(new)


@pytest.mark.parametrize("state", ["running", "completed", "stopped"])
def test_killed_between_values_and_what_says_so_doubles_no_point(
    study_dir, uri, client, monkeypatch, state
):
    """A store takes metrics, params and tags of one request in transactions of their own."""
    begun = state_of(study_dir, trial(0, [50.0], "running"))
    tracker = Tracker.open(uri, study_dir, begun)
    tracker.sync(begun)
    log_batch = MlflowClient.log_batch

    def killed(self, run_id, metrics=(), params=(), tags=(), **options):
        log_batch(self, run_id, metrics, params, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(MlflowClient, "log_batch", killed)
    now = state_of(study_dir, trial(0, [50.0, 60.0], state))
    with pytest.raises(KeyboardInterrupt):
        tracker.sync(now)
    monkeypatch.undo()
    before = points(client, tracker)
    again = Tracker.open(uri, study_dir, now)
    again.sync(now)
    assert points(client, again) == before
    assert len(before) == len(set(before))


def test_a_study_larger_than_a_page_is_read_back(study_dir, uri, client, monkeypatch):
    """Children beyond the first page of a search are found."""
    state = state_of(study_dir, *(trial(n, [50.0]) for n in range(5)))
    Tracker.open(uri, study_dir, state).sync(state)
    search = MlflowClient.search_runs
    monkeypatch.setattr(
        MlflowClient, "search_runs", lambda *a, max_results, **k: search(*a, max_results=2, **k)
    )
    tracker = Tracker.open(uri, study_dir, state)
    tracker.sync(state)
    monkeypatch.undo()
    assert len(children(client, tracker)) == 5


def test_restarted_run_keeps_its_child(study_dir, uri, client):
    """An interrupted run that starts again goes on in the same child and ends with new values."""
    first = state_of(study_dir, trial(0, [50.0, 90.0], "interrupted"))
    tracker = Tracker.open(uri, study_dir, first)
    tracker.sync(first)
    run_id = the_child(client, tracker).info.run_id
    restarted = state_of(study_dir, trial(0, [], "running"))
    tracker.sync(restarted)
    assert the_child(client, tracker).info.status == "RUNNING"
    tracker = Tracker.open(uri, study_dir, restarted)
    tracker.sync(state_of(study_dir, trial(0, [55.0], "stopped")))
    child = the_child(client, tracker)
    assert (child.info.run_id, child.info.status) == (run_id, "FINISHED")
    assert child.data.metrics["top1"] == 55.0


def test_an_epoch_gone_through_again_adds_no_point(study_dir, uri, client):
    """A run that goes on from before its last evaluation evaluates it again: MLflow has it once."""
    first = state_of(study_dir, trial(0, [50.0, 60.0], "running"))
    tracker = Tracker.open(uri, study_dir, first)
    tracker.sync(first)
    before = points(client, tracker)
    for values in ([50.0], [50.0, 60.0]):
        tracker.sync(state_of(study_dir, trial(0, values, "running")))
    assert points(client, tracker) == before
    tracker.sync(state_of(study_dir, trial(0, [50.0, 60.0, 70.0], "running")))
    new = [p for p in points(client, tracker) if p not in before]
    assert {step for _, _, step, _ in new} == {9}
    assert len(points(client, tracker)) == len(before) + len(new)


def test_two_drivers_may_open_a_new_store_at_once(study_dir, uri, monkeypatch):
    """The one whose experiment was created by the other meanwhile uses that."""
    first = Tracker.open(uri, study_dir, state_of(study_dir))
    find, asked = MlflowClient.get_experiment_by_name, []

    def late(self, name):
        asked.append(name)
        return None if len(asked) == 1 else find(self, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late)
    second = Tracker.open(uri, study_dir, state_of(study_dir))
    assert (second.experiment_id, second.parent_id) == (first.experiment_id, first.parent_id)


def test_waiting_run_has_no_child(study_dir, uri, client):
    """A proposed run appears when it starts."""
    run = trial(0, [], "running")
    run.started_at = None
    tracker = Tracker.open(uri, study_dir, state_of(study_dir))
    tracker.sync(state_of(study_dir, run))
    assert not children(client, tracker)


def test_one_request_holds_many_epochs(study_dir, uri, monkeypatch):
    """All that is new in a run goes in one batch, and never metric by metric."""
    requests = []
    log_batch = MlflowClient.log_batch

    def counted(self, *args, **kwargs):
        requests.append(args)
        return log_batch(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    for name in ("log_metric", "log_param", "set_tag"):
        monkeypatch.delattr(MlflowClient, name)
    tracker = Tracker.open(uri, study_dir, state_of(study_dir))
    tracker.sync(state_of(study_dir, trial(0, [float(n) for n in range(40)])))
    assert len(requests) == 1


def test_batches_stay_within_the_limit(study_dir, uri, client):
    """A run with more points than one request may hold is logged whole."""
    tracker = Tracker.open(uri, study_dir, state_of(study_dir))
    tracker.sync(state_of(study_dir, trial(0, [float(n % 100) for n in range(400)])))
    child = the_child(client, tracker)
    assert len(client.get_metric_history(child.info.run_id, "top1")) == 400


def test_order_by_metric_is_best_first(study_dir, uri, client):
    """Sorting the children by accuracy puts the best last epoch first."""
    state = state_of(study_dir, trial(0, [50.0]), trial(1, [99.0, 40.0]), trial(2, [70.0]))
    tracker = Tracker.open(uri, study_dir, state)
    tracker.sync(state)
    names = [c.info.run_name for c in children(client, tracker, ["metrics.`top1` DESC"])]
    assert names == ["trial-0002", "trial-0000", "trial-0001"]


def test_page_shows_trials_best_first(study_dir, uri, client):
    """The printed address opens a stored view: this study's trials, sorted, with their columns."""
    tracker = Tracker.open(uri, study_dir, state_of(study_dir, trial(0, [50.0])))
    tracker.sync(state_of(study_dir, trial(0, [50.0])))
    key = study_page(tracker).partition("viewStateShareKey=")[2]
    experiment = client.get_experiment(tracker.experiment_id)
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`top1`", False)
    assert {"metrics.`top1`", "params.`lambda_cam`"} <= set(view["selectedColumns"])
    assert len(client.search_runs([tracker.experiment_id], view["searchFilter"])) == 1


def test_parent_describes_the_study(study_dir, uri, client):
    """The parent has the spec, tags to find it by and the best metrics; a rerun adds no point."""
    state = state_of(study_dir)
    for top1 in (90.0, 90.0, 91.0):
        tracker = Tracker.open(uri, study_dir, state)
        tags = study_tags(state.spec, "top1", dataset="ab" * 32)
        tracker.log_parent(study_params(state.spec), tags, {"best/top1": top1})
    parent = client.get_run(tracker.parent_id)
    assert parent.info.run_name == study_dir.name
    assert parent.data.params["bits.weights"] == "3"
    assert parent.data.params["search.tau"] == '{"choice": [0.5, 0.55, 0.6, 0.65, 0.7]}'
    assert parent.data.tags["bits"] == "W3A3"
    assert parent.data.tags["teacher"] == "digits_resnet26"
    best = client.get_metric_history(tracker.parent_id, "best/top1")
    assert [point.value for point in best] == [90.0, 91.0]


def test_a_study_with_wide_skips_says_so():
    """Nobody takes a stream of 8 bits for W3A3."""
    spec = load_space("digits_w3a3", ["bits.skip=8"])
    assert study_tags(spec, "top1")["bits"] == "W3A3 skip 8"


def test_a_study_of_mixed_widths_says_so():
    """W3A3 is then what layers have that have no width of their own."""
    spec = load_space("digits_w3a3", ["bits.overrides={conv1: {weights: 8}}"])
    assert study_tags(spec, "top1")["bits"] == "W3A3 mixed"


def test_extended_study_keeps_its_params(study_dir, uri, client):
    """More trials on resume change a tag, because MLflow lets no param change."""
    for spec in (load_space("digits_w3a3"), load_space("digits_w3a3", ["study.num_trials=99"])):
        tracker = Tracker.open(uri, study_dir, state_of(study_dir))
        tracker.log_parent(study_params(spec), study_tags(spec, "top1"))
    data = client.get_run(tracker.parent_id).data
    assert (data.params["study.num_trials"], data.tags["num_trials"]) == ("12", "99")


def test_long_values_are_cut(study_dir, uri, client):
    """A param or tag longer than MLflow allows is cut, not refused."""
    tracker = Tracker.open(uri, study_dir, state_of(study_dir))
    tracker.log_parent({"long": "x" * 10_000}, {"long": "y" * 10_000})
    assert len(client.get_run(tracker.parent_id).data.params["long"]) == 6000


def test_finished_study_runs_again(study_dir, uri, client):
    """The parent ends with the study, and is running again when a new run starts."""
    state = state_of(study_dir, trial(0, [50.0]))
    tracker = Tracker.open(uri, study_dir, state)
    tracker.sync(state)
    tracker.finish()
    tracker = Tracker.open(uri, study_dir, state)
    tracker.sync(state)
    assert client.get_run(tracker.parent_id).info.status == "FINISHED"
    tracker.sync(state_of(study_dir, trial(0, [50.0]), trial(1, [], "running")))
    assert client.get_run(tracker.parent_id).info.status == "RUNNING"


def test_artifacts_lie_beside_the_database(study_dir, uri):
    """Images of a local store go to `mlartifacts/` beside `mlflow.db`."""
    picture = study_dir / "synthetic.png"
    picture.write_bytes(b"png")
    tracker = Tracker.open(uri, study_dir, state_of(study_dir))
    assert tracker.log_image_grid(picture)
    (copy,) = (study_dir.parent / "mlartifacts").glob("*/artifacts/images/synthetic.png")
    assert tracker.parent_id in str(copy)


@pytest.mark.parametrize(
    ("uri", "asked", "allowed"),
    [
        ("sqlite:////tmp/mlflow.db", False, True),
        ("https://mlflow.example", False, False),
        ("https://mlflow.example", True, True),
        ("postgresql://db.example/mlflow", False, False),
    ],
)
def test_images_stay_unless_asked(uri, asked, allowed):
    """Only a store on this machine gets synthetic images unasked."""
    tracker = Tracker(uri, Path("study"), "id", upload_images=asked)
    assert tracker.may_log_images is allowed


def test_images_are_not_sent_to_a_server(tmp_path):
    """Refusing an image needs no connection."""
    tracker = Tracker("https://mlflow.example", tmp_path, "id", upload_images=False)
    assert not tracker.log_image_grid(tmp_path / "grid.png")


def test_best_model_serves(study_dir, uri, client, monkeypatch):
    """The logged model predicts any number of images, without pickle; logging again adds none."""
    import mlflow

    tracker = Tracker.open(uri, study_dir, state_of(study_dir))
    notes = study_dir / "parity.json"
    notes.write_text("{}")
    image = np.ones((1, 1, 2, 2), np.float32)
    model_uri = tracker.log_best_model(tiny_onnx(), image, [notes], {"best/top1": 91.0})
    assert tracker.log_best_model(tiny_onnx(), image, [notes]) == model_uri
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    model = mlflow.pyfunc.load_model(model_uri)
    logits = model.predict(np.ones((2, 1, 2, 2), np.float32))["logits"]
    assert logits.tolist() == [[18.0, 22.0, 26.0]] * 2
    assert [o.model_id for o in client.get_run(tracker.parent_id).outputs.model_outputs] == [
        model_uri.removeprefix("models:/")
    ]
    (folder,) = (study_dir.parent / "mlartifacts").glob("models/*/artifacts")
    assert (folder / "extra_files" / "parity.json").exists()
    assert not list(folder.rglob("*.pkl"))
    assert (folder / "requirements.txt").read_text().startswith("mlflow==")


def test_outage_is_a_tracking_error(tmp_path, monkeypatch):
    """A server that does not answer raises TrackingError, without its address's credentials."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match="MLflow at http://127.0.0.1:9") as caught:
        Tracker.open("http://ann:hunter2@127.0.0.1:9", tmp_path, state_of(tmp_path))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_after_an_outage_nothing_is_doubled(study_dir, uri, client, monkeypatch):
    """A request that succeeded although its answer was lost is not repeated."""
    from mlflow.exceptions import MlflowException

    create_run = MlflowClient.create_run

    def lost_answer(self, *args, **kwargs):
        create_run(self, *args, **kwargs)
        raise MlflowException("connection reset")

    state = state_of(study_dir, trial(0, [50.0]))
    tracker = Tracker.open(uri, study_dir, state)
    monkeypatch.setattr(MlflowClient, "create_run", lost_answer)
    with pytest.raises(TrackingError, match="connection reset"):
        tracker.sync(state)
    monkeypatch.undo()
    tracker.sync(state)
    assert the_child(client, tracker).data.metrics["top1"] == 50.0


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "ftp://host/x"])
def test_unknown_store_is_refused(uri):
    """A URI that is neither a database nor a server is the user's mistake, found without MLflow."""
    with pytest.raises(InputError, match="the tracking URI starts with one of"):
        resolve_tracking_uri(uri)


def test_sqlite_path_becomes_absolute(tmp_path, monkeypatch):
    """The printed command works from any folder."""
    monkeypatch.chdir(tmp_path)
    uri = resolve_tracking_uri("sqlite:///runs/mlflow.db")
    assert uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert is_local(uri)
    assert ui_command(uri).endswith(f"mlflow ui --backend-store-uri {uri}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:pw@host:5000/x", "https://host:5000/x"),
        ("https://token@host/x@y", "https://host/x@y"),
        ("postgresql+psycopg2://ann:p/w@host/db", "postgresql+psycopg2://host/db"),
        ("mysql://host/db?user=a&password=pw&ssl=1", "mysql://host/db?user=a&password=***&ssl=1"),
        ("http://h/#/x?orderByKey=a&api_key=pw", "http://h/#/x?orderByKey=a&api_key=***"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("no answer from http://a:b@h:1/api: refused", "no answer from http://h:1/api: refused"),
    ],
)
def test_credentials_are_redacted(text, shown):
    """Nothing shown or stored carries a user, a password or a token."""
    assert redact_uri(text) == shown


@pytest.mark.long
def test_first_use_is_silent(tmp_path):
    """Creating the database prints nothing and leaves telemetry off."""
    code = (
        "import os, sys, pathlib\n"
        "from synq_tune.config.load import load_space\n"
        "from synq_tune.study.state import StudyState\n"
        "from synq_tune.tracking import Tracker, default_tracking_uri\n"
        "study = pathlib.Path(sys.argv[1])\n"
        "state = StudyState(load_space('digits_w3a3'), {'id': 'ab'})\n"
        "Tracker.open(default_tracking_uri(study), study, state).finish()\n"
        "assert os.environ['MLFLOW_DISABLE_TELEMETRY'] == 'true'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a study"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
