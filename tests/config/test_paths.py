"""Files of the user's own that a space names."""

from __future__ import annotations

from pathlib import Path

import pytest

from synq_tune.config.load import load_space
from synq_tune.errors import SearchSpaceError

SPACE = """
format: 1
name: mine
recipe: my.yaml
teacher: {model: "ideas.py:net", num_classes: 2, class_names: names.txt}
bits: {weights: 4, activations: 4}
synthesis: {method: "ideas.py:make"}
search:
  cam: {choice: [gradcam, "ideas.py:weigh"]}
study: {first: [{cam: "ideas.py:weigh"}]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A space with everything it names beside it."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "space.yaml").write_text(SPACE)
    (home / "my.yaml").write_text("finetune: {lr: 0.125, cam: 'ideas.py:weigh'}\n")
    (home / "ideas.py").write_text("")
    (home / "names.txt").write_text("cat\ndog, large\n\n")
    return home


def test_names_are_found_beside_the_space(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any folder, every name becomes absolute: recipe, network, method, CAM, class names."""
    monkeypatch.chdir(tmp_path)
    spec = load_space(str(folder / "space.yaml"))
    ideas = folder / "ideas.py"
    assert spec.recipe == str(folder / "my.yaml") and spec.finetune.lr == 0.125
    assert spec.teacher.model == f"{ideas}:net" and spec.synthesis.method == f"{ideas}:make"
    assert spec.finetune.cam == f"{ideas}:weigh" and spec.study.first[0]["cam"] == f"{ideas}:weigh"
    assert spec.search["cam"].values == ("gradcam", f"{ideas}:weigh")
    assert spec.teacher.class_names == ("cat", "dog, large")


def test_the_current_folder_comes_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in both places is taken from where the command runs."""
    (tmp_path / "my.yaml").write_text("finetune: {lr: 0.25}\n")
    (tmp_path / "ideas.py").write_text("")
    monkeypatch.chdir(tmp_path)
    spec = load_space(str(folder / "space.yaml"))
    assert spec.finetune.lr == 0.25 and spec.recipe == str(tmp_path / "my.yaml")
    assert spec.teacher.model == f"{tmp_path / 'ideas.py'}:net"


def test_an_assignment_names_a_file_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--set` means the same as the space: also for a bundled space."""
    monkeypatch.chdir(folder)
    spec = load_space("digits_w3a3", ["finetune.cam=ideas.py:weigh", "recipe=my.yaml"])
    assert spec.finetune.cam == f"{folder / 'ideas.py'}:weigh" and spec.finetune.lr == 0.125


@pytest.mark.parametrize("name", ["my.yaml", "ideas.py", "names.txt"])
def test_a_missing_file_is_named_with_where_it_was_looked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """One line, before any work."""
    (folder / name).unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SearchSpaceError, match=f"{name}.*Looked in: {tmp_path}, {folder}"):
        load_space(str(folder / "space.yaml"))


def test_half_a_name_is_refused_when_the_space_is_read(folder: Path) -> None:
    """The form of a name needs no network to be checked."""
    text = SPACE.replace("ideas.py:net", "ideas.py:no-name")
    (folder / "space.yaml").write_text(text)
    with pytest.raises(SearchSpaceError, match=r"FILE\.py:FUNCTION"):
        load_space(str(folder / "space.yaml"))
