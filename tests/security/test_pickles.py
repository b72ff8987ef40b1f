"""No pickle of ours is written or read: a pickle is a program that runs when it is opened."""

from __future__ import annotations

import ast
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.security.conftest import ROOT, Watched

FILES = sorted([*(ROOT / "synq_tune").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])
MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "pickletools", "_pickle"}
ALLOWED = {
    ("synq_tune/data/plain_pickle.py", "pickletools"): "takes CIFAR's files apart, runs nothing",
    (
        "synq_tune/models/inert_pickle.py",
        "pickletools",
    ): "takes strangers' files apart, runs nothing",
    ("synq_tune/models/torch_file.py", "pickle"): "the name of the error torch raises",
    ("synq_tune/search/payload.py", "pickle"): "PickleBuffer: bytes on their way within Ray",
    (
        "synq_tune/search/tune_adapter.py",
        "cloudpickle",
    ): "Ray's own note of an error, written just now",
}


def _imported(tree: ast.AST) -> set[str]:
    """Last parts of the names of all modules a file imports, such as `from ray import cloudpickle`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").split(".")[0], *(alias.name for alias in node.names)}
    return found & MODULES


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nobody_imports_pickle(path: Path) -> None:
    """But for the five files named above, each for one thing."""
    here = str(path.relative_to(ROOT))
    found = _imported(ast.parse(path.read_text()))
    assert {module for module in found if (here, module) not in ALLOWED} == set()


def _calls(path: Path) -> list[tuple[str, ast.Call]]:
    nodes = ast.walk(ast.parse(path.read_text()))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func), call) for call in calls]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_load_refuses_pickles(path: Path) -> None:
    """`torch.load` says weights_only=True, `np.load` allow_pickle=False; nothing is saved with torch."""
    for name, call in _calls(path):
        given = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
        if name == "torch.load":
            assert given.get("weights_only") is True, f"{path}:{call.lineno}"
        if name == "np.load":
            assert given.get("allow_pickle") is False, f"{path}:{call.lineno}"
        assert name != "torch.save", f"{path}:{call.lineno}"


def test_the_exceptions_call_nothing_else() -> None:
    """Of `pickle` only names are used, and Ray's note is all that `cloudpickle` reads."""
    called = {
        (here, name)
        for here, _ in ALLOWED
        for name, _ in _calls(ROOT / here)
        if name.split(".")[0] in MODULES
    }
    assert called == {
        ("synq_tune/data/plain_pickle.py", "pickletools.genops"),
        ("synq_tune/models/inert_pickle.py", "pickletools.genops"),
        ("synq_tune/search/payload.py", "pickle.PickleBuffer"),
        ("synq_tune/search/tune_adapter.py", "cloudpickle.load"),
    }


def _is_pickle(content: bytes) -> bool:
    """A pickle, a `torch.save`, or an array file with objects in it."""
    if content.startswith(b"\x93NUMPY"):
        return b"'descr': '|O'" in content[:256]
    if content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(_is_pickle(archive.read(name)) for name in archive.namelist())
    return content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05" and content[-1:] == b"."


@pytest.mark.ray
def test_a_study_leaves_no_pickle(finished: tuple[Path, str]) -> None:
    """Study folder, store, MLflow's artifacts: by content and by name."""
    files = [path for path in finished[0].parent.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [p for p in files if _is_pickle(p.read_bytes())] == []
    named = {".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt"}
    assert [p for p in files if p.suffix in named] == []


@pytest.mark.long
def test_a_trial_leaves_no_pickle(trial: Watched) -> None:
    """Nor do the dataset and what is exported."""
    assert (trial.folder / "exported/model.onnx").is_file()
    assert [p for p in trial.files() if _is_pickle(p.read_bytes())] == []


def test_pickles_are_recognised(tmp_path: Path) -> None:
    """This is what makes the other two a proof."""
    torch.save({"a": torch.zeros(1)}, tmp_path / "torch")
    np.savez(tmp_path / "arrays.npz", a=np.array([{}], dtype=object))
    (tmp_path / "plain").write_bytes(pickle.dumps({"a": 1}))
    np.savez(tmp_path / "numbers.npz", a=np.zeros(3))
    found = {path.name for path in tmp_path.iterdir() if _is_pickle(path.read_bytes())}
    assert found == {"torch", "arrays.npz", "plain"}
