"""Which state dict of a checkpoint is read, under which names, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from synq_tune.config import Weights
from synq_tune.errors import InputError
from synq_tune.models.checkpoint import Checkpoint, fit_checkpoint, read_checkpoint
from synq_tune.models.nests import find_nests, is_average

State = dict[str, Tensor]


def _net() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    return nn.ModuleDict({"features": body, "head": nn.Linear(2, 3)})


def _state(value: float) -> State:
    state = {k: torch.full_like(v, value) for k, v in _net().state_dict().items()}
    state["features.1.num_batches_tracked"] = torch.tensor(7)
    return state


def _prefixed(prefix: str, value: float) -> State:
    return {f"{prefix}{k}": v for k, v in _state(value).items()}


def _read(content: object, key: str | None = None) -> tuple[float, list[str]]:
    """The value that fills the network after reading, and the notes."""
    net = _net()
    notes = fit_checkpoint(net, Checkpoint(find_nests(content), key), "net.pth")
    return net["head"].bias[0].item(), notes


NESTS = (
    "state_dict", "model", "model_state_dict", "net", "network", "weights", "params", "model_state",
    "module", "teacher", "student", "ema", "state_dict_ema", "model_ema", "ema_state_dict", "params_ema",
    "generator", "best_model_yet", "weights.best", "模型",
)  # fmt: skip


@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_nest_may_have_any_name(nest: str, prefix: str) -> None:
    """It is found by what is in it, at any depth."""
    counted = {"epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
    content = {**counted, nest: {"inner": _prefixed(prefix, 2.0)}}
    assert _read(content)[0] == 2.0


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "model.",
        "backbone.",
        "encoder.",
        "xyz.abc.",
        "module.module.",
    ],
)
@pytest.mark.parametrize("counter", [None, "n_averaged", "epoch"])
def test_one_common_prefix_is_taken_off_and_said(prefix: str, counter: str | None) -> None:
    """Also beside a counter, such as torch.optim.swa_utils writes."""
    state = _prefixed(prefix, 2.0)
    if counter:
        state[counter] = torch.tensor(5)
    value, notes = _read({"state_dict": state})
    assert value == 2.0
    assert notes == [f"net.pth: prefix {prefix!r} taken off, so that the weights fit the network."]


def test_a_plain_file_is_read_without_a_word() -> None:
    """Nothing was chosen, so nothing is said."""
    assert _read(_state(1.0)) == (1.0, [])
    assert _read({"state_dict": _state(1.0), "epoch": 1}) == (1.0, [])


AVERAGES: dict[str, tuple[dict[str, object], str, str]] = {
    "timm": ({"state_dict": _state(1.0), "state_dict_ema": _state(2.0)}, "state_dict_ema", "state_dict"),
    "deit": ({"model": _state(1.0), "model_ema": _state(2.0)}, "model_ema", "model"),
    "basicsr": ({"params": _state(1.0), "params_ema": _state(2.0)}, "params_ema", "params"),
    "nested": (
        {"model": _state(1.0), "ema": {"decay": torch.tensor(0.9), "module": _state(2.0)}},
        "ema.module", "model",
    ),
    "swa": ({"net": _state(1.0), "swa_model": {**_prefixed("module.", 2.0), "n_averaged": torch.tensor(3)}},
            "swa_model", "net"),
    "lightning": (
        {"state_dict": {**_prefixed("model.", 1.0), **_prefixed("ema_model.module.", 2.0)}},
        "state_dict.ema_model.module", "state_dict.model",
    ),
    "beside raw names": ({**_state(1.0), **_prefixed("ema.", 2.0)}, "ema", "the file itself"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "read", "other"), AVERAGES.values(), ids=AVERAGES.keys())
def test_of_raw_and_averaged_weights_the_average_is_read(
    content: dict[str, object], read: str, other: str
) -> None:
    """The note says which was read and how to take the other; that way works."""
    value, notes = _read(content)
    assert value == 2.0
    (note,) = [n for n in notes if "would fit too" in n]
    assert f"read {read} (an average over training); {other} would fit" in note
    assert f"--set teacher.weights.key={other}" in note
    assert _read(content, other)[0] == 1.0
    assert _read(content, read)[0] == 2.0


def test_an_average_that_does_not_fit_is_said() -> None:
    """An EMA of the parameters alone lacks the statistics: the raw weights are read."""
    part = {k: v for k, v in _state(2.0).items() if "running" not in k}
    value, notes = _read({"state_dict": _state(1.0), "state_dict_ema": part})
    assert value == 1.0
    assert "state_dict_ema does not fit the network: 2 missing" in notes[0]


def test_of_two_equal_ones_the_better_known_is_read() -> None:
    """And it is said how to take the other."""
    value, notes = _read({"student": _state(2.0), "teacher": _state(1.0), "zzz": _state(3.0)})
    assert value == 1.0
    assert "read teacher (the first of its kind); student, zzz would fit too" in notes[0]


def test_another_network_beside_it_is_no_question() -> None:
    """What does not fit the network is not offered."""
    other = {"conv.weight": torch.zeros(3), "conv.bias": torch.zeros(3)}
    assert _read({"teacher": other, "student": _state(1.0)}) == (1.0, [])


def test_an_unknown_key_names_those_there_are() -> None:
    """A mistyped key is one line."""
    with pytest.raises(InputError, match=r"key='sate_dict'.*There are: state_dict, state_dict_ema"):
        _read({"state_dict": _state(1.0), "state_dict_ema": _state(2.0)}, "sate_dict")


LEFT_OVER: dict[str, Callable[[State], State]] = {
    "another head": lambda s: {**s, "aux.weight": torch.zeros(3, 3)},
    "another head beside a prefix": lambda s: {
        **{f"model.{k}": v for k, v in s.items()}, "criterion.weight": torch.zeros(3)
    },
    "a scalar weight": lambda s: {**s, "logit_scale": torch.zeros(())},
    "a counter of many": lambda s: {**s, "n_averaged": torch.zeros(3)},
}  # fmt: skip


@pytest.mark.parametrize("change", LEFT_OVER.values(), ids=LEFT_OVER.keys())
def test_weights_that_are_left_over_stay_an_error(change: Callable[[State], State]) -> None:
    """Only counters may be left; anything else is named."""
    with pytest.raises(InputError, match=r"`the weights fit the model`.*1 left over \("):
        _read({"state_dict": change(_state(1.0))})


def test_a_wrong_shape_under_a_prefix_is_named_without_it() -> None:
    """The network's own name, so that it can be found."""
    state = _prefixed("module.", 1.0)
    state["module.head.weight"] = torch.zeros(10, 2)
    with pytest.raises(
        InputError, match=r"1 wrong shape \(head\.weight \[10, 2\] \(the model's: \[3, 2\]\)"
    ):
        _read({"state_dict": state})


def test_wrappers_inside_names_are_taken_off() -> None:
    """A part that was wrapped alone, as in AlexNet's and VGG's training code."""
    state = {
        k.replace("features.", "features.module._orig_mod."): v for k, v in _state(4.0).items()
    }
    value, notes = _read(state)
    assert value == 4.0 and "wrappers inside the names" in notes[0]


def test_a_network_with_a_prefix_of_its_own_takes_plain_weights() -> None:
    """The user's module around a known network."""
    net = nn.ModuleDict({"backbone": _net()})
    notes = fit_checkpoint(net, Checkpoint(find_nests(_state(4.0))), "net.pth")
    assert net["backbone"]["head"].bias[0] == 4.0 and "prefix 'backbone.' put on" in notes[0]


@pytest.mark.parametrize(
    "name", ["ema", "model_ema", "EMA", "ema.module", "swa_model", "net_avg", "averaged"]
)
def test_names_of_averages(name: str) -> None:
    """What trainers call them."""
    assert is_average(name)


@pytest.mark.parametrize("name", ["schema", "emap", "avgpool", "cinema", "model", "swap"])
def test_names_that_only_look_like_it(name: str) -> None:
    """A part of a longer word says nothing."""
    assert not is_average(name)


_parts = st.text("abcxyz_0", min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.lists(_parts, max_size=4), st.lists(_parts, max_size=3))
def test_any_path_and_prefix_is_found(path: list[str], prefix: list[str]) -> None:
    """Nothing hangs on a list of names."""
    content: object = _prefixed("".join(f"{part}." for part in prefix), 2.0)
    for part in reversed(path):
        content = {part: content, "epoch": 1}
    assert _read(content)[0] == 2.0


def test_the_key_is_a_setting(tmp_path: Path) -> None:
    """`teacher.weights.key` reaches the file."""
    path = tmp_path / "net.pth"
    torch.save({"state_dict": _state(1.0), "state_dict_ema": _state(2.0)}, path)
    for key, expected in (("state_dict", 1.0), (None, 2.0)):
        net = _net()
        fit_checkpoint(net, read_checkpoint(Weights(file=str(path), key=key)), str(path))
        assert net["head"].bias[0] == expected
