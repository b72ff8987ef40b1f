"""Plain small networks, what strangers do to them, and networks that cheat."""

from __future__ import annotations

import functools
import types
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub, QuantWrapper
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel
from torchvision.ops.misc import FrozenBatchNorm2d
from torchvision.transforms import Compose, Normalize, v2

from synq_tune.models.unwrap import eagerly

SHAPE, CLASSES = (3, 8, 8), 5


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.running_mean, -0.5, 0.5)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, -0.5, 0.5)
    return norm


def sequential() -> nn.Sequential:
    """Layers in a row."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), _norm(6), nn.ReLU(), nn.Conv2d(6, 6, 3, bias=False), _norm(6),
        nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES),
    )  # fmt: skip


class Residual(nn.Module):
    """A shortcut, functions, a ReLU module called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn1 = nn.Conv2d(3, 6, 3, padding=1), _norm(6)
        self.conv, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, groups=2), _norm(6)
        self.act = nn.ReLU()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn1(self.stem(x)))
        x = self.act(x + self.bn2(self.conv(x)))
        return self.head(self.drop(F.dropout(x.mean((2, 3)), 0.2, self.training)))


class Nested(nn.Module):
    """Networks in a network, hard activations."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict(
            {"a": nn.Sequential(nn.Conv2d(3, 6, 3), _norm(6), nn.Hardswish())}
        )
        self.blocks = nn.ModuleList([nn.Conv2d(6, 6, 1), nn.SiLU(), nn.Conv2d(6, 6, 1)])
        self.head = nn.Linear(6 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body["a"](x)
        for block in self.blocks:
            x = block(x)
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))


BASES = {"sequential": sequential, "residual": Residual, "nested": Nested}

Change = Callable[[nn.Module], nn.Module]


def _convolutions(net: nn.Module) -> list[nn.Conv2d]:
    return [m for m in net.modules() if isinstance(m, nn.Conv2d)]


def _each(change: Callable[[nn.Conv2d], Any]) -> Change:
    def apply(net: nn.Module) -> nn.Module:
        for layer in _convolutions(net):
            change(layer)
        return net

    return apply


def _replace(kind: type, make: Callable[[Any], nn.Module]) -> Change:
    def apply(net: nn.Module) -> nn.Module:
        for parent in list(net.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is kind:
                    setattr(parent, name, make(child))
        return net

    return apply


def frozen(norm: nn.BatchNorm2d, kind: type = FrozenBatchNorm2d) -> nn.Module:
    """A BatchNorm whose numbers are constants."""
    made = kind(norm.num_features, eps=norm.eps)
    made.load_state_dict({k: v for k, v in norm.state_dict().items() if "tracked" not in k})
    return made


class _Held(nn.Module):
    """Holds a network where PyTorch does not look."""

    def __init__(self, **held: Any) -> None:
        super().__init__()
        vars(self).update(held)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net[0](x)


class _Closure(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.call = lambda x: net(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


class _Partial(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.call = functools.partial(_apply, net)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


def _apply(net: nn.Module, x: Tensor) -> Tensor:
    return net(x)


class _Box:
    def __init__(self, net: nn.Module) -> None:
        self.net = net.eval()


class _Boxed(nn.Module):
    """In an object that is no container: only tracing meets it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.box = _Box(net)

    def forward(self, x: Tensor) -> Tensor:
        return self.box.net(x)


class _Sliced(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.rows = net if isinstance(net, nn.Sequential) else nn.Sequential(nn.Identity(), net)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows[1:](self.rows[:1](x))


class _MadeInForward(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return nn.Sequential(nn.Identity(), self.net)(nn.Identity()(x))


class Returns(nn.Module):
    """Gives its logits in something else."""

    def __init__(self, net: nn.Module, pack: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.pack = net, pack

    def forward(self, x: Tensor) -> Any:
        return self.pack(self.net(x))


Pair = namedtuple("Pair", ("loss", "logits"))


@dataclass
class Output:
    """As libraries return it."""

    loss: Tensor | None = None
    logits: Tensor | None = None


@dataclass
class DictOutput(OrderedDict):
    """A mapping and a dataclass at once, in which None is no entry."""

    loss: Tensor | None = None
    logits: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("loss", "logits"):
            if getattr(self, name) is not None:
                self[name] = getattr(self, name)


class _Double(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight.tanh()


def _compiled_in_place(net: nn.Module) -> nn.Module:
    net.compile()
    return net


def _compiled_part(net: nn.Module) -> nn.Module:
    return nn.Sequential(torch.compile(net), nn.Identity())


def _compiled_forward(net: nn.Module) -> nn.Module:
    net.forward = torch.compile(net.forward)
    return net


def _stubs(net: nn.Module) -> nn.Module:
    return nn.Sequential(QuantStub(), net, DeQuantStub())


def _own_forward(net: nn.Module) -> nn.Module:
    inner = net.forward
    net.forward = types.MethodType(lambda self, x: inner(x.flip(3)) * 2, net)
    return net


def _hook_at_root(net: nn.Module) -> nn.Module:
    net.register_forward_hook(lambda module, inputs, output: output * 3 + 1)
    net.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0.5,))
    return net


def _hook_at_layer(net: nn.Module) -> nn.Module:
    layer = _convolutions(net)[0]
    layer.register_forward_hook(lambda module, inputs, output: output.clamp(-0.1, 0.1))
    layer.register_forward_pre_hook(
        lambda module, args, kwargs: ((args[0] + 1,), kwargs), with_kwargs=True
    )
    return net


def _hook_that_looks(net: nn.Module) -> nn.Module:
    net.seen = []
    for layer in _convolutions(net):
        layer.register_forward_hook(lambda m, i, o: net.seen.append(o.detach().numpy().sum()))
    return net


def _hook_that_makes_weights(net: nn.Module) -> nn.Module:
    layer = _convolutions(net)[0]
    raw = layer.weight
    del layer.weight
    layer.register_parameter("raw", raw)
    layer.register_forward_pre_hook(lambda m, i: setattr(m, "weight", m.raw * 0.5))
    return net


def _first_writes(net: nn.Module) -> nn.Module:
    return nn.Sequential(nn.ReLU(inplace=True), net)


_COMPOSE = Compose([Normalize([0.1], [2.0])])

WRAPPERS: dict[str, Change] = {
    "data_parallel": nn.DataParallel,
    "data_parallel_inside": lambda net: nn.Sequential(nn.DataParallel(net), nn.Identity()),
    "averaged": AveragedModel,
    "averaged_compiled_parallel": lambda net: nn.DataParallel(torch.compile(AveragedModel(net))),
    "compiled": torch.compile, "compiled_in_place": _compiled_in_place,
    "compiled_part": _compiled_part, "compiled_forward": _compiled_forward,
    "stubs": _stubs, "quant_wrapper": QuantWrapper,
    "pruned": _each(lambda m: prune.l1_unstructured(m, "weight", 0.5)),
    "pruned_twice": _each(lambda m: (
        prune.random_unstructured(m, "weight", 0.3), prune.ln_structured(m, "weight", 0.3, n=2, dim=0)
    )),
    "pruned_globally": lambda net: (prune.global_unstructured(
        [(m, "weight") for m in _convolutions(net)], prune.L1Unstructured, amount=0.4), net)[1],
    "weight_norm": _each(weight_norm), "spectral_norm": _each(spectral_norm),
    "parametrized_weight_norm": _each(parametrizations.weight_norm),
    "parametrized_spectral_norm": _each(parametrizations.spectral_norm),
    "orthogonal": _each(parametrizations.orthogonal),
    "own_parametrization": _each(lambda m: parametrize.register_parametrization(m, "weight", _Double())),
    "frozen_batchnorm": _replace(nn.BatchNorm2d, frozen),
    "sync_batchnorm": nn.SyncBatchNorm.convert_sync_batchnorm,
    "list": lambda net: _Held(net=[net]), "tuple": lambda net: _Held(net=(net,)),
    "dict": lambda net: _Held(net={0: net}), "list_in_dict": lambda net: _Held(net=[net, {"a": [net]}]),
    "closure": _Closure, "partial": _Partial, "boxed": _Boxed, "sliced": _Sliced,
    "made_in_forward": _MadeInForward,
    "normalize": lambda net: nn.Sequential(Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.1]), net),
    "normalize_v2": lambda net: nn.Sequential(v2.Normalize([0.4], [0.2], inplace=True), net),
    "normalize_composed": lambda net: nn.Sequential(
        v2.Compose([v2.Normalize([0.4], [0.2]), v2.CenterCrop(8)]), net),
    "normalize_in_a_list": lambda net: Returns(
        nn.Sequential(net), lambda y, c=_COMPOSE: c(y[:, :, None, None])[:, :, 0, 0]),
    "dict_output": lambda net: Returns(net, lambda y: {"aux": y[:, :2], "logits": y}),
    "dict_of_dicts": lambda net: Returns(net, lambda y: {"out": {"x": None, "y": y}}),
    "tuple_output": lambda net: Returns(net, lambda y: (None, y, y[:, :1])),
    "list_output": lambda net: Returns(net, lambda y: [y]),
    "namedtuple_output": lambda net: Returns(net, lambda y: Pair(y.sum(), y)),
    "dataclass_output": lambda net: Returns(net, lambda y: Output(logits=y)),
    "mapping_output": lambda net: Returns(net, lambda y: DictOutput(logits=y)),
    "own_forward": _own_forward,
    "hook_at_root": _hook_at_root, "hook_at_layer": _hook_at_layer,
    "hook_that_looks": _hook_that_looks, "hook_that_makes_weights": _hook_that_makes_weights,
    "first_writes": _first_writes,
}  # fmt: skip
"""Name → what a stranger does to a network."""

CASTS = {"half": torch.float16, "bfloat16": torch.bfloat16, "double": torch.float64}


def wrapped(base: str, wrapper: str) -> nn.Module:
    """A network with something done to it, in evaluation mode, with the same weights each time."""
    torch.manual_seed(0)
    return WRAPPERS[wrapper](BASES[base]().eval()).eval()


def answer(net: nn.Module, images: Tensor) -> Tensor:
    """What PyTorch computes, eagerly and on a copy of the images."""
    with torch.no_grad(), eagerly():
        output = net(images.clone())
    while not isinstance(output, Tensor):
        if isinstance(output, dict):
            output = output.get("logits", output.get("y", output.get("out")))
        elif hasattr(output, "logits"):
            output = output.logits
        else:
            output = next(part for part in output if part is not None)
    return output
