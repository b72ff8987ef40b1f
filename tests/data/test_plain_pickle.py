"""Pickles are taken apart as data; whatever else they ask for is named and never run."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synq_tune.data.plain_pickle import read_plain_pickle
from synq_tune.errors import InputError

# As Python 2 wrote it: strings of bytes, numpy's old module.
PYTHON2 = (
    b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\x09eU\x04dataq\x04cnumpy.core.multiarray\n"
    b"_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x01K\x03\x86"
    b"cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff"
    b"\xffK\x00tb\x89U\x03\x00\x7f\xfftbu."
)


def _file(tmp_path: Path, content: bytes) -> Path:
    (tmp_path / "batch").write_bytes(content)
    return tmp_path / "batch"


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["uint8", "<i8", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_protocol_reads_back(tmp_path: Path, protocol: int, dtype: str, order: str) -> None:
    """Arrays of any byte order and layout, and nested plain values, are what was written."""
    array = np.asarray(np.arange(12).reshape(3, 4), dtype=dtype, order=order)
    plain = {"a": [1, -2, 2**70, (True, None), [], {}], "b": "näme", "c": 1.5, "d": (1, 2, 3, 4)}
    content = pickle.dumps({**plain, "array": array}, protocol)
    read = read_plain_pickle(_file(tmp_path, content))
    restored = read.pop("array")
    assert restored.dtype == array.dtype and np.array_equal(restored, array)
    assert read == plain


def test_python_2_is_read(tmp_path: Path) -> None:
    """Strings of bytes become text, and the array's bytes survive."""
    read = read_plain_pickle(_file(tmp_path, PYTHON2))
    assert read["labels"] == [6, 9]
    assert read["data"].tolist() == [[0, 127, 255]]


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"(S'true'\nios\nsystem\n.", "opcode INST"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "opcode NEWOBJ"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "a call of numpy.ndarray"),
        (b"\x80\x02cnumpy\ndtype\n}b.", "the state of a _Name"),
        (b"P1\n.", "opcode PERSID"),
        (b"\x82\x01.", "opcode EXT1"),
        (pickle.dumps({"a": collections.Counter("aab")}), "collections.Counter"),
    ],
)
def test_what_is_not_data_is_named(tmp_path: Path, content: bytes, asked: str) -> None:
    """A name, a call or an opcode that is not admitted is an error that says which."""
    with pytest.raises(InputError, match=f"asks for {asked}; nothing of it was run"):
        read_plain_pickle(_file(tmp_path, content))


@pytest.mark.parametrize(
    ("head", "tail"), [(b"}", b"K\x01s."), (b"}(", b"K\x01u."), (b"(", b"K\x01d.")],
    ids=["setitem", "setitems", "dict"],
)  # fmt: skip
def test_a_nested_key_does_not_end_the_process(tmp_path: Path, head: bytes, tail: bytes) -> None:
    """Python's own hash of a deeply nested tuple overflows the C stack."""
    key = b"K\x01" + b"\x85" * 500_000
    with pytest.raises(InputError, match="a tuple as a key"):
        read_plain_pickle(_file(tmp_path, b"\x80\x02" + head + key + tail))


def test_object_arrays_are_refused(tmp_path: Path) -> None:
    """An array of objects would hold anything."""
    content = pickle.dumps({"data": np.array([{}, []], dtype=object)})
    with pytest.raises(InputError, match="batch"):
        read_plain_pickle(_file(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [b"", b".", b"text", PYTHON2[:60], b"}(K\x01u.", b"h\x05.", b"]K\x01s.", b"K\x01a."],
)
def test_damage_is_one_line(tmp_path: Path, content: bytes) -> None:
    """Cut, empty and nonsensical files are named."""
    with pytest.raises(InputError, match=r"batch: `the pickle (is whole|holds a dictionary)"):
        read_plain_pickle(_file(tmp_path, content))


def test_something_else_than_a_dictionary_is_an_error(tmp_path: Path) -> None:
    """A list has no keys."""
    content: Any = pickle.dumps([1, 2])
    with pytest.raises(InputError, match="holds a dictionary.*list"):
        read_plain_pickle(_file(tmp_path, content))
