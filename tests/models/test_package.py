"""Weights from a wheel on the user's index: fetched once, checked, matched by order, kept."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from synq_tune.config import Teacher, Weights
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.models import package
from synq_tune.models.build import build_model
from synq_tune.models.checkpoint import Checkpoint, fit_checkpoint, read_checkpoint
from synq_tune.models.package import fetch_package
from synq_tune.models.teacher import load_teacher

NAME = "tiny_teacher"
MEMBER = f"{NAME}/models/net.pth"
NET = Teacher(model="digits_resnet26", channels=1, num_classes=10)


def _state() -> OrderedDict[str, Tensor]:
    """Seeded weights of the bundled network, under a stranger's names, in its order."""
    torch.manual_seed(0)
    own = build_model(NET).state_dict()
    return OrderedDict(
        (f"_blocks.{i}.{k.rpartition('.')[2]}", v) for i, (k, v) in enumerate(own.items())
    )


def _wheel(folder: Path, content: bytes, member: str = MEMBER, version: str = "1.2") -> Path:
    """A wheel that holds one file, as PyPI's hold weights."""
    info = f"{NAME}-{version}.dist-info"
    files = {
        f"{NAME}/__init__.py": b"raise SystemExit('executed')\n",
        member: content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny-teacher\nVersion: {version}\n"
        "Requires-Dist: nowhere-to-be-found\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    folder.mkdir(exist_ok=True)
    path = folder / f"{NAME}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        rows = [f"{n},sha256={_record_sum(d)},{len(d)}" for n, d in files.items()]
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")
    return path


def _record_sum(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels in place of the user's index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for tool in ("PIP", "UV"):
        monkeypatch.setenv(f"{tool}_NO_INDEX", "1")
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return folder


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """A `.pth` file."""
    path = tmp_path / "net.pth"
    torch.save(_state(), path)
    return path.read_bytes()


def _weights(content: bytes, **changes: object) -> Weights:
    given = {"package": "tiny-teacher==1.2", "file": MEMBER}
    return Weights.model_validate(
        {**given, "sha256": hashlib.sha256(content).hexdigest(), **changes}
    )


def _without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package.importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_a_teacher_comes_from_a_wheel(
    tmp_path: Path, index: Path, content: bytes, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip and uv fetch the same file; the network then has its tensors, in their order."""
    _wheel(index, content)
    if tool == "uv":
        _without_pip(monkeypatch)
    config = NET.model_copy(update={"weights": _weights(content)})
    teacher = load_teacher(config, store=tmp_path / "store")
    torch.manual_seed(0)
    model = build_model(NET)
    images = torch.rand(4, 1, 8, 8)
    assert torch.allclose(teacher(images), model(images), atol=1e-5)
    kept = list((tmp_path / "store/weights").rglob("*.pth"))
    assert [path.read_bytes() for path in kept] == [content]


def test_a_second_time_asks_no_index(
    tmp_path: Path, index: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the store is read: no process, no network."""
    _wheel(index, content)
    first = fetch_package(_weights(content), tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("asked again"))
    assert fetch_package(_weights(content), tmp_path) == first
    assert first.package is None and Path(first.file or "").read_bytes() == content


def test_nothing_of_the_package_is_executed_or_installed(
    tmp_path: Path, index: Path, content: bytes
) -> None:
    """Its `__init__` would end the process, and what it requires does not exist."""
    _wheel(index, content)
    fetch_package(_weights(content), tmp_path)
    assert NAME not in sys.modules
    shown = subprocess.run([sys.executable, "-c", f"import {NAME}"], capture_output=True)
    assert shown.returncode == 1


def test_another_file_is_not_kept(tmp_path: Path, index: Path, content: bytes) -> None:
    """The message says both sums; a later call tries again."""
    _wheel(index, content + b"x")
    with pytest.raises(InputError, match=r"tiny-teacher==1\.2.*sha256=[0-9a-f]{64} of"):
        fetch_package(_weights(content), tmp_path)
    assert not list((tmp_path / "weights").rglob("*.pth"))


@pytest.mark.parametrize("tool", ["pip", "uv"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"package": "tiny-teacher==9"}, "tiny-teacher==9"),
        ({"package": "nobody-has-this==1"}, "nobody-has-this==1"),
        ({"file": f"{NAME}/other.pth"}, f"no file {NAME}/other.pth in it"),
    ],
)
def test_what_is_not_there_is_one_line(
    tmp_path: Path,
    index: Path,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    tool: str,
    changes: dict[str, str],
    said: str,
) -> None:
    """Package, version and file are named, and the way around them."""
    _wheel(index, content)
    if tool == "uv":
        _without_pip(monkeypatch)
    with pytest.raises(InputError, match=said) as caught:
        fetch_package(_weights(content, **changes), tmp_path)
    assert "--weights FILE" in str(caught.value) and "\n" not in str(caught.value)


def test_a_source_distribution_is_not_built(tmp_path: Path, index: Path, content: bytes) -> None:
    """Building one runs the package's code."""
    import io
    import tarfile

    with tarfile.open(index / "tiny_teacher-1.2.tar.gz", "w:gz") as archive:
        for name, data in {"PKG-INFO": b"Name: tiny-teacher\n", "setup.py": b"1 / 0\n"}.items():
            info = tarfile.TarInfo(f"tiny_teacher-1.2/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with pytest.raises(InputError, match="can be fetched"):
        fetch_package(_weights(content), tmp_path)


def test_without_pip_and_uv_it_says_so(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment may have neither."""
    _without_pip(monkeypatch)
    monkeypatch.setattr(package.shutil, "which", lambda *_, **__: None)
    with pytest.raises(InputError, match="pip or uv is installed"):
        fetch_package(_weights(content), tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"package": "tiny-teacher"}, "package"),
        ({"package": "--index-url=evil==1"}, "package"),
        ({"package": "a==1 b==2"}, "package"),
        ({"sha256": None}, "no sha256"),
        ({"file": None}, "no file"),
        ({"url": "https://example.org/net.pth"}, "url too"),
        ({"file": "/etc/passwd"}, "inside the package"),
        ({"file": "../net.pth"}, "inside the package"),
    ],
)
def test_settings_that_name_no_file_are_refused(
    content: bytes, changes: dict[str, object], said: str
) -> None:
    """A package is pinned, and its file has a sum."""
    with pytest.raises(ValueError, match=said):
        _weights(content, **changes)


class TestOrder:
    """Tensors are matched by order only where nothing else is possible."""

    def _fitted(self, state: dict[str, Tensor], **changes: object) -> list[str]:
        return fit_checkpoint(build_model(NET), Checkpoint.of(state, **changes), "net.pth")

    def test_names_come_first(self) -> None:
        """A file with the network's names is read by them, in whatever order."""
        state = dict(reversed(build_model(NET).state_dict().items()))
        assert self._fitted(state, by_order=True) == []

    def test_it_is_said(self) -> None:
        """One line says that names were not used."""
        assert "order and shape" in self._fitted(_state(), by_order=True)[0]

    def test_it_is_asked_for(self) -> None:
        """A file of the user's own is not read by order unless they say so."""
        with pytest.raises(InputError, match=r"teacher\.weights\.match=order"):
            self._fitted(_state())

    def test_two_layers_in_another_order_are_refused(self) -> None:
        """Shapes tell them apart."""
        state = _state()
        first = next(iter(state))
        state.move_to_end(first)
        with pytest.raises(InputError, match="fit the model"):
            self._fitted(state, by_order=True)

    def test_a_mean_is_no_variance(self) -> None:
        """Tensors of one shape are told apart by what they are."""
        state = _state()
        mean, var = (
            next(k for k in state if k.endswith(e)) for e in ("running_mean", "running_var")
        )
        swapped = OrderedDict(
            ({mean: var, var: mean}.get(key, key), value) for key, value in state.items()
        )
        with pytest.raises(InputError, match="fit the model"):
            self._fitted(swapped, by_order=True)

    @pytest.mark.parametrize("change", ["one less", "one more"])
    def test_all_are_there(self, change: str) -> None:
        """A network with a layer more or less is another one."""
        state = _state()
        if change == "one less":
            state.popitem()
        else:
            state["_more.weight"] = torch.zeros(3)
        with pytest.raises(InputError, match="fit the model"):
            self._fitted(state, by_order=True)

    def test_safetensors_keep_no_order(self, tmp_path: Path) -> None:
        """They are sorted by name when they are written."""
        path = tmp_path / "net.safetensors"
        save_file({k: v.clone() for k, v in _state().items()}, path)
        checkpoint = read_checkpoint(Weights(file=str(path), match="order"))
        with pytest.raises(InputError, match="fit the model") as caught:
            fit_checkpoint(build_model(NET), checkpoint, "net")
        assert "match=order" not in str(caught.value)


class TestMerge:
    """A file takes the package's place; the sum stays."""

    SPACE = "efficientnet_lite0_w8a8"

    def test_flags_replace_it(self) -> None:
        """`--weights FILE`, also a wheel that was fetched elsewhere."""
        spec = load_space(self.SPACE, [], {"teacher": {"weights": {"file": "/x/net.whl"}}})
        weights = spec.teacher.weights
        assert (weights.package, weights.file) == (None, "/x/net.whl")
        assert weights.sha256 and weights.by_order

    @pytest.mark.parametrize("key", ["teacher.weights", "teacher.weights.file"])
    def test_settings_replace_it(self, key: str) -> None:
        """`--set teacher.weights=FILE`."""
        weights = load_space(self.SPACE, [f"{key}=/x/net.pth"]).teacher.weights
        assert (weights.package, weights.file) == (None, "/x/net.pth")

    def test_another_package_does_not(self) -> None:
        """A package and its file may come in two settings."""
        sets = ["teacher.weights.package=mine==2", "teacher.weights.file=mine/net.pth"]
        weights = load_space(self.SPACE, sets).teacher.weights
        assert (weights.package, weights.file) == ("mine==2", "mine/net.pth")


def test_a_wheel_fetched_elsewhere_is_read(tmp_path: Path, content: bytes) -> None:
    """`--weights FILE.whl`: the sum is that of the file inside."""
    wheel = _wheel(tmp_path / "elsewhere", content)
    sum_ = hashlib.sha256(content).hexdigest()
    config = NET.model_copy(
        update={"weights": Weights(file=str(wheel), sha256=sum_, match="order")}
    )
    assert load_teacher(config).num_classes == 10
