"""What a weights file is, by its content: one of the kinds that are read, or one line that names
it."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from synq_tune.errors import InputError
from synq_tune.notes import counted, printable

Kind = Literal["safetensors", "torch", "archive"]
"""`torch`: what torch.save writes, zipped or older; `archive`: a zip file around a checkpoint."""

MEMBERS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that begins torch's older files
_OTHER = "Give the PyTorch checkpoint of the same network, as safetensors or a state_dict."
_UNPACK = "Unpack it and give the checkpoint inside."
_AGAIN = "Download it again, and check that the address gives the file itself."
_ARRAYS = (
    "Save its arrays as tensors under the network's names: "
    "safetensors.torch.save_file({name: torch.from_numpy(array), …}, 'weights.safetensors')."
)


@dataclass(frozen=True)
class _Other:
    """A kind that is recognised and not read."""

    what: str
    fix: str


_HEADS: tuple[tuple[int, bytes, _Other], ...] = (
    (0, b"\x93NUMPY", _Other("a NumPy array (.npy)", _ARRAYS)),
    (0, b"\x89HDF\r\n\x1a\n", _Other("an HDF5 file, as Keras writes it", _OTHER)),
    (4, b"TFL3", _Other("a TensorFlow Lite model", _OTHER)),
    (0, b"GGUF", _Other("a GGUF file", _OTHER)),
    (0, b"MATLAB 5.0", _Other("a MATLAB file", _ARRAYS)),
    (0, b"\x1f\x8b", _Other("packed with gzip", _UNPACK)),
    (0, b"BZh", _Other("packed with bzip2", _UNPACK)),
    (0, b"\xfd7zXZ\x00", _Other("packed with xz", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", _Other("packed with zstd", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", _Other("a 7z archive", _UNPACK)),
    (0, b"Rar!", _Other("a RAR archive", _UNPACK)),
    (257, b"ustar", _Other("a tar archive", _UNPACK)),
    (0, b"%PDF", _Other("a PDF document", _AGAIN)),
    (0, b"\x89PNG", _Other("a PNG image", _AGAIN)),
    (0, b"\xff\xd8\xff", _Other("a JPEG image", _AGAIN)),
    (0, b"\x7fELF", _Other("a program", _AGAIN)),
    (0, b"SQLite format 3", _Other("an SQLite database", _AGAIN)),
)
_SUFFIXES = {
    ".onnx": _Other("an ONNX model", "Give the checkpoint that it was exported from."),
    ".pb": _Other("a TensorFlow graph", _OTHER),
    ".h5": _Other("an HDF5 file", _OTHER),
    ".tflite": _Other("a TensorFlow Lite model", _OTHER),
    ".index": _Other("a part of a TensorFlow checkpoint", _OTHER),
    ".msgpack": _Other("a Flax checkpoint", _OTHER),
    ".caffemodel": _Other("a Caffe model", _OTHER),
    ".params": _Other("an MXNet checkpoint", _OTHER),
    ".pdparams": _Other("a PaddlePaddle checkpoint", _OTHER),
    ".engine": _Other("a TensorRT engine", _OTHER),
    ".npy": _Other("a NumPy array", _ARRAYS),
}
_TORCHSCRIPT = _Other(
    "a TorchScript archive",
    "Save its weights: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth').",
)
_EXPORTED = _Other(
    "an exported program (torch.export)",
    "Save its weights: torch.save(dict(torch.export.load(FILE).state_dict), 'weights.pth').",
)
_PLAIN_PICKLE = _Other(
    "a pickle that torch.save did not write, and which is not executed",
    "If you trust it, load it yourself and save its tensors with torch.save or safetensors.",
)


def kind_of(path: Path) -> Kind:
    """Which reader a file needs; the suffix decides nothing that the content says.

    Raises:
        InputError: it is missing, empty, cut short, a folder or of another kind; says what it is.
    """
    if path.is_dir():
        raise _refused(path, _folder(path))
    if not path.exists():
        raise InputError(f"`the weights file exists` must hold, but got weights={str(path)!r}.")
    if not path.is_file():
        raise _refused(path, _Other("no regular file", "Give a checkpoint's path."))
    size = path.stat().st_size
    if size == 0:
        raise _refused(path, _Other("an empty file (0 bytes)", "Download or copy it again."))
    with open(path, "rb") as file:
        head = file.read(8192)
    return _by_head(path, head, size)


def _by_head(path: Path, head: bytes, size: int) -> Kind:
    if head.startswith(b"PK\x03\x04"):
        return _zipped(path)
    if _TORCH_MAGIC in head[:64]:
        return "torch"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30:
        return "safetensors"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        raise _refused(path, _pickle(head))
    for offset, magic, other in _HEADS:
        if head[offset : offset + len(magic)] == magic:
            raise _refused(path, other)
    raise _refused(path, _text(path, head) or _binary(path, head, size))


def _refused(path: Path, other: _Other) -> InputError:
    return InputError(
        f"{path}: `the weights are safetensors, or a torch.save of tensors` must hold, but it is "
        f"{other.what}. {other.fix}"
    )


def _zipped(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [PurePosixPath(name) for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise InputError(
            f"{path}: `the zip file is whole` must hold, but got: {printable(error)}. It is "
            "truncated or damaged: download or copy it again."
        ) from error
    last = {name.name for name in names}
    if "constants.pkl" in last or "bytecode.pkl" in last:
        raise _refused(path, _TORCHSCRIPT)
    if "archive_format" in last or "serialized_exported_program.json" in last:
        raise _refused(path, _EXPORTED)
    if "data.pkl" in last:
        return "torch"
    if names and all(name.suffix == ".npy" for name in names):
        raise _refused(path, _Other("NumPy arrays (.npz)", _ARRAYS))
    if last & {"model.weights.h5", "keras_metadata.pb"}:
        raise _refused(path, _Other("a Keras model", _OTHER))
    if any(name.suffix in MEMBERS for name in names):
        return "archive"
    shown = ", ".join(printable(name, 40) for name in names[:3]) or "nothing"
    raise _refused(
        path, _Other(f"a zip file without a checkpoint (inside: {shown})", "Give the checkpoint.")
    )


def _pickle(head: bytes) -> _Other:
    words = head.replace(b"\n", b" ")
    if b"numpy" in words and b"torch" not in words:
        return _Other("a pickle of NumPy arrays, which is not executed", _ARRAYS)
    return _PLAIN_PICKLE


def _folder(path: Path) -> _Other:
    inside = sorted(child.name for child in path.iterdir())
    if "saved_model.pb" in inside:
        return _Other("a TensorFlow SavedModel", _OTHER)
    if any(name.endswith(".distcp") for name in inside):
        fix = "Merge it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR FILE."
        return _Other("a distributed checkpoint in several files", fix)
    if any(name.endswith(".index.json") for name in inside):
        return _Other("a folder with a checkpoint in several files", _MERGE)
    if "data.pkl" in inside:
        return _Other("an unpacked torch.save file", "Give the file as it was before unpacking.")
    files = [name for name in inside if PurePosixPath(name).suffix in MEMBERS]
    shown = ", ".join(printable(name) for name in files[:3])
    return _Other("a folder", f"Name the file in it: {shown}." if shown else "Name a file.")


_MERGE = (
    "Merge its files: load each with safetensors.torch.load_file or torch.load, update one "
    "dictionary and write it with safetensors.torch.save_file."
)


def _text(path: Path, head: bytes) -> _Other | None:
    try:
        # A character may be cut at the end of what was read.
        text = head.decode("utf-8", "strict" if len(head) < 8192 else "ignore").lstrip(
            "\ufeff \r\n\t"
        )
    except UnicodeDecodeError:
        return None
    if any(not (c.isprintable() or c in "\r\n\t\f") for c in text):
        return _PLAIN_PICKLE if text[:1] in "(]}" and head.rstrip()[-1:] == b"." else None
    if text.startswith("version https://git-lfs"):
        return _Other(
            "a pointer of git-lfs instead of the file", "Fetch the file itself: git lfs pull."
        )
    if text[:200].lower().startswith(("<!doctype", "<html", "<?xml", "<head", "<body")):
        return _Other("a web page or XML instead of the file", _AGAIN)
    if text.startswith(("{", "[")):
        return _json(path)
    if text.startswith(("(dp", "(lp", "ccollections", "c__", "ctorch")):
        return _PLAIN_PICKLE
    return _Other(f"a text that begins with {printable(text, 40)!r}", _AGAIN)


def _json(path: Path) -> _Other:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError, MemoryError):
        return _Other("a JSON text", _OTHER)
    if isinstance(content, dict) and isinstance(content.get("weight_map"), dict):
        files = {str(name) for name in content["weight_map"].values()}
        return _Other(f"the index of a checkpoint in {counted(len(files), 'file')}", _MERGE)
    return _Other("a JSON text", _OTHER)


def _binary(path: Path, head: bytes, size: int) -> _Other:
    # A protobuf: ONNX begins with its version and the producer's name, a SavedModel with 1.
    if head[:1] == b"\x08" and 2 <= head[1] < 0x20 and head[2:3] in (b"\x12", b":", b"\x1a"):
        return _SUFFIXES[".onnx"]
    if head.startswith(b"\x08\x01\x12"):
        return _Other("a TensorFlow SavedModel", _OTHER)
    with open(path, "rb") as file:
        file.seek(max(0, size - 8))
        if file.read() == b"\x57\xfb\x80\x8b\x24\x75\x47\xdb":
            return _SUFFIXES[".index"]
    if ".data-0" in path.name:
        return _SUFFIXES[".index"]
    if path.suffix.lower() in _SUFFIXES:
        return _SUFFIXES[path.suffix.lower()]
    if not head.strip(b"\x00"):
        return _Other("nothing but zero bytes where it begins", _AGAIN)
    return _Other(
        f"of no known kind (it begins with {head[:8].hex(' ')})",
        "It may be truncated or damaged: download or copy it again.",
    )
