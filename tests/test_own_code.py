"""The user's own code by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from synq_tune import own_code
from synq_tune.config import Teacher
from synq_tune.errors import InputError
from synq_tune.models.build import build_model


def _file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("net.py:make", True),
        ("/some/where/net.py:make", True),
        ("python:package.module:make", True),
        ("timm:resnet18", False),
        ("gradcam++", False),
        ("net.py", False),
    ],
)
def test_own_code_is_told_by_its_name(name: str, expected: bool) -> None:
    """A `.py` file or the prefix `python:`; no name of ours or of a library."""
    assert own_code.is_own_code(name) is expected


@pytest.mark.parametrize("name", ["python:net", "net.py:", "net.py:a-b", "python::f", "synq"])
def test_half_a_name_is_refused(name: str) -> None:
    """Both parts are needed, and the message shows the form."""
    with pytest.raises(InputError, match=r"FILE\.py:FUNCTION or python:PACKAGE\.MODULE:FUNCTION"):
        own_code.parse(name)


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    """a/net.py and b/net.py do not see each other, and neither takes the plain name."""
    for folder in "ab":
        _file(tmp_path / folder / "net.py", f"def which():\n    return {folder!r}\n")
    found = [own_code.load(f"{tmp_path / folder / 'net.py'}:which")() for folder in "aba"]
    assert found == ["a", "b", "a"] and "net" not in sys.modules


def test_functions_of_one_file_share_its_module(tmp_path: Path) -> None:
    """The file runs once."""
    path = _file(tmp_path / "net.py", "class A: pass\ndef one(): return A()\ndef A_(): return A\n")
    assert isinstance(own_code.load(f"{path}:one")(), own_code.load(f"{path}:A_")())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("import nothing_of_that_name", "A file stands alone"),
        ("def f(:", "SyntaxError"),
        ("import sys; sys.exit(1)", "SystemExit: 1"),
        ("x = 1", r"defines f\(\)"),
        ("f = 1", r"defines f\(\)"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    """Whatever the file does while it is imported, the user reads where and what."""
    path = _file(tmp_path / "bad.py", text)
    with pytest.raises(InputError, match=message) as error:
        own_code.load(f"{path}:f")
    assert str(path) in str(error.value)


def test_a_failed_import_leaves_no_module(tmp_path: Path) -> None:
    """The half module is taken out again: a second attempt fails in the same way."""
    path = _file(tmp_path / "bad.py", "raise RuntimeError('boom')")
    before = set(sys.modules)
    for _ in range(2):
        with pytest.raises(InputError, match="boom"):
            own_code.load(f"{path}:f")
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/nowhere/net.py:f", "/nowhere/net.py"),
        ("python:nowhere.net:f", "PYTHONPATH"),
        ("python:math:nothing", r"defines nothing\(\)"),
    ],
)
def test_what_is_not_there_is_named(name: str, message: str) -> None:
    """A missing file, module or function is the user's mistake."""
    with pytest.raises(InputError, match=message):
        own_code.load(name)


def test_what_a_process_read_first_stays(tmp_path: Path) -> None:
    """An edit in the middle of a study changes neither the code nor its sum; `provide` does."""
    path = _file(tmp_path / "net.py", "def f(): return 1\n")
    name = f"{path}:f"
    digest = own_code.source_sha256(name)
    path.write_text("def f(): return 2\n")
    assert own_code.load(name)() == 1 and own_code.source_sha256(name) == digest
    own_code.provide({str(path): path.read_text()})
    assert own_code.load(name)() == 2 and own_code.source_sha256(name) != digest


def test_the_label_does_not_say_where_the_file_lies(tmp_path: Path) -> None:
    """Results are filed under file name, function and source."""
    paths = [_file(tmp_path / folder / "net.py", "def f(): return 1\n") for folder in "ab"]
    one, other = (own_code.identity(f"{path}:f") for path in paths)
    assert one == other and one["name"] == "net.py:f"
    assert own_code.label("gradcam") == "gradcam"


def test_a_teacher_must_be_a_module(tmp_path: Path) -> None:
    """kwargs go to the function; what it returns is checked."""
    path = _file(tmp_path / "net.py", "def f(width): return width\n")
    config = Teacher(model=f"{path}:f", kwargs={"width": 3})
    with pytest.raises(InputError, match="returns a torch.nn.Module.*got int"):
        build_model(config)
