"""Files of the driver's machine reach a machine that lacks them, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from synq_tune.config import Teacher, Weights
from synq_tune.errors import InputError
from synq_tune.models.build import BUNDLED_WEIGHTS
from synq_tune.models.shared_teacher import check_identity, identity, share_teacher, with_shared
from synq_tune.models.teacher import load_teacher
from synq_tune.search import transfer as cargo_module
from synq_tune.search.cluster import ray_cluster
from synq_tune.search.environment import check_nodes
from synq_tune.search.transfer import FileManifest, bring_file, fetch_missing, pack, read_piece
from synq_tune.store import sha256_file

NAMES = ("datasets/a/images.safetensors", "datasets/a/manifest.json")


def _store(folder: Path) -> Path:
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"{{{number}}}".encode() * 100)
    return folder


def _cargo(store: Path, there: Path) -> FileManifest:
    """Files of `store`, for a machine on which the driver's path leads to `there`."""
    return FileManifest(str(there), "driver", {n: sha256_file(store / n) for n in NAMES}, None, "")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


@pytest.fixture
def brought(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of the driver's machine, in order; it is copied, without Ray."""
    names: list[str] = []

    def bring(manifest: FileManifest, name: str, target: Path) -> None:
        names.append(name)
        target.write_bytes((tmp_path / "store" / name).read_bytes())

    monkeypatch.setattr(cargo_module, "bring_file", bring)
    return names


def test_a_machine_that_has_the_files_gets_none(tmp_path: Path, brought: list[str]) -> None:
    """The driver's own, or one with a common file system: same paths, nothing written."""
    store = _store(tmp_path / "store")
    before = sorted(store.rglob("*"))
    assert fetch_missing(_cargo(store, store)) == store
    assert brought == [] and sorted(store.rglob("*")) == before


def test_files_come_under_the_drivers_path(tmp_path: Path, brought: list[str]) -> None:
    """In their order: the manifest, which says that a dataset is whole, comes last; and once."""
    store = _store(tmp_path / "store")
    manifest = _cargo(store, tmp_path / "there")
    for _ in range(2):
        assert fetch_missing(manifest) == tmp_path / "there"
    assert brought == list(NAMES)


def test_a_path_that_cannot_be_made_gets_a_private_folder(
    tmp_path: Path, temporary: Path, brought: list[str]
) -> None:
    """Under this machine's temporary folder, closed to other users."""
    (tmp_path / "file").touch()
    here = fetch_missing(_cargo(_store(tmp_path / "store"), tmp_path / "file" / "store"))
    assert here.parent == temporary and here.stat().st_mode & 0o777 == 0o700
    assert brought == list(NAMES)


def test_another_dataset_of_the_same_address_is_not_used(
    tmp_path: Path, temporary: Path, brought: list[str]
) -> None:
    """A machine that made it itself may have other pixels: it stays, the driver's is used."""
    store, other = _store(tmp_path / "store"), _store(tmp_path / "other")
    (other / NAMES[1]).write_bytes(b"{}")
    assert fetch_missing(_cargo(store, other)).parent == temporary
    assert (other / NAMES[1]).read_bytes() == b"{}"


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, temporary: Path, brought: list[str]
) -> None:
    """A link laid where the folder will be does not lead the files elsewhere."""
    (tmp_path / "file").touch()
    manifest = _cargo(_store(tmp_path / "store"), tmp_path / "file" / "store")
    here = fetch_missing(manifest)
    here.rename(tmp_path / "elsewhere")
    here.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="own folder"):
        fetch_missing(manifest)


def test_a_file_is_read_in_pieces(tmp_path: Path) -> None:
    """None is left out and the end is empty."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(10)))
    pieces = [read_piece(str(path), offset, 4) for offset in (0, 4, 8, 10)]
    assert b"".join(pieces) == path.read_bytes() and pieces[-1] == b""


@pytest.fixture(scope="module")
def joined() -> Iterator[None]:
    with ray_cluster(None):
        yield


@pytest.mark.ray
@pytest.mark.long
def test_a_file_is_brought_through_ray(joined: None, tmp_path: Path) -> None:
    """As it was, or not at all: a file that changed since the search began is refused."""
    store = _store(tmp_path / "store")
    manifest = pack(store, [store / name for name in NAMES], None, "")
    assert manifest.is_from_here and manifest.sums == _cargo(store, store).sums
    bring_file(manifest, NAMES[0], tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (store / NAMES[0]).read_bytes()
    with pytest.raises(InputError, match="it was changed or damaged since"):
        bring_file(
            replace(manifest, sums=dict.fromkeys(NAMES, "0" * 64)), NAMES[0], tmp_path / "other"
        )


@pytest.mark.ray
@pytest.mark.long
def test_this_machine_runs_what_this_machine_runs(joined: None) -> None:
    """A worker's process here answers as the driver's; it takes no CPU."""
    check_nodes()
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]


BUNDLED = Teacher(model="digits_resnet26", channels=1)
OWN = BUNDLED.model_copy(update={"weights": Weights(file=str(BUNDLED_WEIGHTS["digits_resnet26"]))})


def test_a_shared_teacher_is_the_same_network(tmp_path: Path) -> None:
    """Its tensors are one safetensors file, and what they are loaded into is the driver's teacher."""
    teacher = load_teacher(OWN)
    path = share_teacher(teacher, tmp_path)
    assert path is not None and path.parent == tmp_path / "teachers"
    there = load_teacher(with_shared(OWN, path))
    check_identity(there, identity(teacher))
    images = torch.randn(2, *teacher.preprocessing.shape)
    assert torch.equal(there(images), teacher(images))


def test_a_bundled_teacher_is_not_shared(tmp_path: Path) -> None:
    """Every machine has it with the package."""
    assert share_teacher(load_teacher(BUNDLED), tmp_path) is None


def test_another_teacher_is_refused() -> None:
    """Trials on it would be measured against another network."""
    teacher = load_teacher(OWN)
    expected = identity(teacher)
    other = replace(teacher, fingerprint="0" * 64)
    with pytest.raises(InputError, match="the teacher is the driver's on every machine"):
        check_identity(other, expected)
