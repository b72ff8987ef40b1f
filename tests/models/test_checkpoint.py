"""Checkpoints: read without executing, fitted strictly, every mistake one line."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from synq_tune.config import Teacher, Weights
from synq_tune.errors import InputError
from synq_tune.models.build import BUNDLED_WEIGHTS, build_model
from synq_tune.models.checkpoint import fit_checkpoint, read_checkpoint
from synq_tune.models.teacher import load_teacher

DIGITS = Teacher(model="digits_resnet26", channels=1)


def _digits_state() -> dict[str, torch.Tensor]:
    return build_model(DIGITS).state_dict()


class _Bomb:
    """A pickle that would create a file if it were ever executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (open, (str(self.path), "w"))


def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path: Path) -> None:
    """Only tensors are read from a `.pth`."""
    bomb, path = tmp_path / "executed", tmp_path / "net.pth"
    path.write_bytes(pickle.dumps({"state_dict": _Bomb(bomb)}))
    with pytest.raises(InputError, match="not executed"):
        read_checkpoint(Weights(file=str(path)))
    torch.save({"state_dict": _Bomb(bomb)}, path)
    with pytest.raises(InputError, match="holds only tensors.*not executed"):
        read_checkpoint(Weights(file=str(path)))
    assert not bomb.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    """Half a download is not a network."""
    path = tmp_path / f"net{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(_digits_state(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"net.*whole"):
        read_checkpoint(Weights(file=str(path)))


def test_a_missing_file_is_named() -> None:
    """The path is in the message."""
    with pytest.raises(InputError, match="nowhere.pth"):
        read_checkpoint(Weights(file="nowhere.pth"))


def test_a_wrong_sum_is_refused() -> None:
    """Another file than the one pinned is not loaded."""
    weights = Weights(file=str(BUNDLED_WEIGHTS["digits_resnet26"]), sha1="deadbeef")
    with pytest.raises(InputError, match="sha1 == deadbeef"):
        read_checkpoint(weights)


@pytest.mark.parametrize("nest", [[], ["state_dict"], ["model"], ["ema", "state_dict"]], ids=str)
@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
def test_nested_and_prefixed_checkpoints_load(tmp_path: Path, nest: list[str], prefix: str) -> None:
    """DataParallel's prefix and trainers' wrappers are taken off."""
    content = {f"{prefix}{k}": v for k, v in _digits_state().items()}
    for key in nest:
        content = {key: content, "epoch": 3}
    path = tmp_path / "net.pth"
    torch.save(content, path)
    tensors = read_checkpoint(Weights(file=str(path)))
    fit_checkpoint(build_model(DIGITS), tensors, str(path))


def test_weights_that_do_not_fit_name_the_keys(tmp_path: Path) -> None:
    """Missing, left over and of another shape: the first of each is named."""
    tensors = dict(_digits_state())
    del tensors["conv1.weight"]
    tensors["extra.weight"] = torch.zeros(1)
    tensors["linear.weight"] = torch.zeros(11, 32)
    path = tmp_path / "net.safetensors"
    save_file(tensors, path)
    teacher = DIGITS.model_copy(update={"weights": Weights(file=str(path))})
    with pytest.raises(InputError) as caught:
        load_teacher(teacher)
    message = str(caught.value)
    assert "1 missing (conv1.weight)" in message
    assert "1 left over (extra.weight)" in message
    assert "linear.weight [11, 32] (the model's: [10, 32])" in message


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    """A checkpoint of something else."""
    path = tmp_path / "net.pth"
    torch.save({"epoch": 3}, path)
    with pytest.raises(InputError, match="state_dict"):
        read_checkpoint(Weights(file=str(path)))


def test_a_network_that_asks_for_its_layouts_version(tmp_path: Path) -> None:
    """torchvision's MNASNet refuses weights without a version, which safetensors cannot hold."""
    from torchvision.models import mnasnet0_5

    file = tmp_path / "weights.safetensors"
    expected = mnasnet0_5(num_classes=5).state_dict()
    save_file(expected, file)
    model = mnasnet0_5(num_classes=5)
    fit_checkpoint(model, read_checkpoint(Weights(file=str(file))), str(file))
    own = model.state_dict()
    assert all(torch.equal(own[k], v) for k, v in expected.items())
