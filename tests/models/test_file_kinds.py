"""What a weights file is, told by its content: each kind is one line with the fix."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from synq_tune.config import Weights
from synq_tune.errors import InputError
from synq_tune.models.checkpoint import fit_checkpoint, read_checkpoint


def _net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 3))


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content)


def _half(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])

    return cut


def _save(content: object, path: Path, zipped: bool = True) -> None:
    with open(path, "wb") as file:  # by path, torch would look at the suffix
        torch.save(content, file, _use_new_zipfile_serialization=zipped)


def _torch(path: Path) -> None:
    _save(_net().state_dict(), path)


def _legacy(path: Path) -> None:
    _save(_net().state_dict(), path, zipped=False)


def _script(path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))


def _exported(path: Path) -> None:
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, path.with_suffix(".pt2"))
    path.with_suffix(".pt2").rename(path)


def _onnx(path: Path) -> None:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [value])
    path.write_bytes(helper.make_model(graph, producer_name="test").SerializeToString())


def _npz(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, weight=np.zeros(3))


def _npy(path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


def _zip(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"x")

    return write


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("net.pth"), io.BytesIO())


def _index(path: Path) -> None:
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    path.write_text(json.dumps({"metadata": {}, "weight_map": names}))


def _folder(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.mkdir()
        for name in names:
            (path / name).write_bytes(b"x")

    return write


def _quantized(path: Path) -> None:
    state = {k: v for k, v in _net().state_dict().items() if v.is_floating_point()}
    _save({k: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8) for k, v in state.items()}, path)


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (_bytes(b""), "empty file.*again"),
    "torch, cut": (_half(_torch), "whole.*truncated"),
    "torch before zip, cut": (_half(_legacy), "whole.*truncated"),
    "safetensors, cut": (
        _half(lambda p: save_file({"a": torch.zeros(99)}, p)), "whole safetensors.*truncated"
    ),
    "safetensors, cut in its header": (_bytes(b"\xff\0\0\0\0\0\0\0{"), "whole safetensors"),
    "web page": (_bytes(b"<!DOCTYPE html><html><body>404"), "web page.*again"),
    "web page after blanks": (_bytes(b"\xef\xbb\xbf\n\n <html>"), "web page"),
    "access denied": (_bytes(b'<?xml version="1.0"?><Error/>'), "XML.*again"),
    "lfs pointer": (_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
    "text": (_bytes(b"Not Found"), "text that begins with 'Not Found'"),
    "text in another script": (_bytes("页面不存在".encode()), "text that begins"),
    "json": (_bytes(b'{"error": "no"}'), "JSON"),
    "sharded": (_index, "index of a checkpoint in 2 files.*Merge"),
    "TorchScript": (_script, r"TorchScript.*torch\.jit\.load.*state_dict"),
    "torch.export": (_exported, r"torch\.export.*state_dict"),
    "onnx": (_onnx, "ONNX.*exported from"),
    "npz": (_npz, r"NumPy arrays \(\.npz\).*from_numpy"),
    "npy": (_npy, r"NumPy array.*from_numpy"),
    "hdf5": (_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)), "HDF5.*Keras.*PyTorch"),
    "keras": (_zip("config.json", "metadata.json", "model.weights.h5"), "Keras.*PyTorch"),
    "tflite": (_bytes(b"\x1c\0\0\0TFL3" + bytes(64)), "TensorFlow Lite"),
    "saved model": (_bytes(b"\x08\x01\x12\xf0\x01" + bytes(range(128, 255))), "SavedModel"),
    "saved model folder": (_folder("saved_model.pb"), "SavedModel"),
    "tensorflow index": (
        _bytes(bytes(range(200)) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"), "TensorFlow checkpoint"
    ),
    "folder": (_folder("model.safetensors", "config.json"), "a folder.*Name the file.*model.safetensors"),
    "empty folder": (_folder(), "a folder. Name a file"),
    "sharded folder": (_folder("model.safetensors.index.json"), "several files.*Merge"),
    "distributed": (_folder("__0_0.distcp", ".metadata"), "distributed checkpoint.*dcp_to_torch"),
    "unpacked": (_folder("data.pkl", "version"), "unpacked torch.save"),
    "zip of other things": (_zip("a.txt"), "zip file without a checkpoint.*a.txt"),
    "zip, cut": (_half(_zip("a.pth", "b.txt")), "zip file is whole"),
    "tar": (_tar, "tar archive.*Unpack"),
    "gzip": (_bytes(b"\x1f\x8b" + bytes(64)), "gzip.*Unpack"),
    "image": (_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64)), "PNG image"),
    "plain pickle": (_bytes(pickle.dumps({"a": torch.zeros(2)})), "pickle.*not executed.*torch.save"),
    "plain pickle, protocol 0": (_bytes(pickle.dumps({"a": 1.5}, 0)), "pickle.*not executed"),
    "pickled arrays": (_bytes(pickle.dumps({"a": np.zeros(2)})), "pickle of NumPy arrays"),
    "zeros": (_bytes(bytes(9000)), "zero bytes"),
    "noise": (_bytes(bytes(range(129, 250)) * 9), "of no known kind"),
    "quantized": (_quantized, "plain float tensors.*quantized.*full-precision"),
    "arrays in a torch file": (
        lambda p: _save({"a": np.zeros(2), "b": np.zeros(3)}, p), "NumPy arrays.*from_numpy"
    ),
    "only an optimizer": (
        lambda p: _save({"optimizer": {"lr": 1}, "epoch": 3}, p), "keys optimizer, epoch"
    ),
    "a lone tensor": (lambda p: _save(torch.zeros(3), p), "a Tensor and no tensors by name"),
    "a list": (lambda p: _save([torch.zeros(3)], p), "a list and no tensors by name"),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ""], ids=["pth", "safetensors", "none"])
@pytest.mark.parametrize(("write", "message"), KINDS.values(), ids=KINDS.keys())
def test_each_kind_is_named_whatever_its_suffix(
    tmp_path: Path, write: Callable[[Path], None], message: str, suffix: str
) -> None:
    """One line: the file, what it is, and what to do."""
    path = tmp_path / f"weights{suffix}"
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        fit_checkpoint(_net(), read_checkpoint(Weights(file=str(path))), str(path))
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".zip", ".bin", ""])
@pytest.mark.parametrize("write", [_torch, _legacy, lambda p: save_file(_net().state_dict(), p)])
def test_readable_kinds_are_read_whatever_their_suffix(
    tmp_path: Path, write: Callable[[Path], None], suffix: str
) -> None:
    """Content decides between safetensors and both of torch's formats."""
    path = tmp_path / f"weights{suffix}"
    write(path)
    assert fit_checkpoint(_net(), read_checkpoint(Weights(file=str(path))), str(path)) == []


def test_every_cut_of_a_file_is_one_line(tmp_path: Path) -> None:
    """Wherever a download stopped."""
    for write in (_torch, _legacy, lambda p: save_file(_net().state_dict(), p)):
        path = tmp_path / "whole"
        write(path)
        whole = path.read_bytes()
        for size in range(0, len(whole) - 64, max(1, len(whole) // 40)):
            path.write_bytes(whole[:size])
            with pytest.raises(InputError):
                read_checkpoint(Weights(file=str(path)))


def test_a_pinned_file_says_what_it_is_instead(tmp_path: Path) -> None:
    """The sum differs because it is a web page."""
    path = tmp_path / "net.pth"
    path.write_bytes(b"<html>")
    with pytest.raises(InputError, match="sha1 == deadbeef.*web page"):
        read_checkpoint(Weights(file=str(path), sha1="deadbeef"))


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permission is one line too."""
    path = tmp_path / "net.pth"
    _torch(path)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match="can be read.*Permission denied"):
        read_checkpoint(Weights(file=str(path)))


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~/w.pth` in a space is a file of the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    _torch(tmp_path / "w.pth")
    assert read_checkpoint(Weights(file="~/w.pth")).nests
