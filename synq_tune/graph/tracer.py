"""Symbolic tracing that knows every shape but the batch size.

torch.fx follows a network with placeholders for tensors and gives up where Python asks them for
their size: padding "as in TensorFlow", windows, shuffles. Our networks have one input size, so each
placeholder here carries the value of a batch of two and answers with its height and width; only the
batch stays symbolic.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from synq_tune.graph.hidden import install
from synq_tune.graph.hooks import around, call_hooked, has_hooks
from synq_tune.graph.inplace_operators import InPlaceOperators

_TRANSFORMS = "torchvision.transforms"


class ShapedProxy(InPlaceOperators, fx.Proxy):
    """A placeholder that answers questions about shape, type and length from its value."""

    @property
    def value(self) -> Any:
        """What the node computes for the example."""
        return self.tracer.values[self.node]

    def size(self, dim: int | None = None) -> Any:
        """Sizes as numbers, except the first: the batch stays symbolic."""
        shape = self.value.shape
        if dim is None:
            return (self.size(0), *map(int, shape[1:])) if len(shape) else ()
        if dim % len(shape) == 0:
            return self.tracer.create_proxy("call_method", "size", (self, 0), {})
        return int(shape[dim])

    shape = property(lambda self: self.size() if isinstance(self.value, Tensor) else None)
    ndim = property(lambda self: self.value.ndim)
    dtype = property(lambda self: self.value.dtype)
    device = property(lambda self: self.value.device)
    is_cuda = property(lambda self: False)

    def dim(self) -> int:
        """Number of dimensions."""
        return self.value.dim()

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.value, (tuple, list)):
            return iter([self[i] for i in range(len(self.value))])
        return super().__iter__()


class ShapeTracer(fx.Tracer):
    """fx.Tracer whose nodes have the values of an example; `values` and `shapes` are by node."""

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        self.example = example
        self.values: dict[fx.Node, Any] = {}
        self.installed: list[str] = []
        """Paths of modules and parameters that were called but belonged to no module."""
        self._is_evaluating = False

    def proxy(self, node: fx.Node) -> ShapedProxy:
        """The placeholder of a node."""
        return ShapedProxy(node, self)

    def create_proxy(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any | None = None,
        proxy_factory_fn: Callable[[fx.Node], fx.Proxy] | None = None,
    ) -> Any:
        """A node with its value; an optional argument of the network takes its default."""
        if kind == "placeholder" and args:
            return args[0]
        proxy = super().create_proxy(kind, target, args, kwargs, name, type_expr, proxy_factory_fn)
        with self._evaluating():
            self.values[proxy.node] = self._evaluate(proxy.node)
        return proxy

    def create_arg(self, a: Any) -> Any:
        """As in torch; get_attr nodes made here get their value too."""
        if isinstance(a, nn.Parameter) and not any(a is p for p in self.root.parameters()):
            self._install_parameter(a)
        arg = super().create_arg(a)
        if isinstance(arg, fx.Node) and arg not in self.values:
            self.values[arg] = a if isinstance(a, Tensor) else self._evaluate(arg)
        return arg

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Inside, modules and parameters are themselves: fx patches both while it traces."""
        outer, self._is_evaluating = self._is_evaluating, True
        try:
            with torch.no_grad():
                yield
        finally:
            self._is_evaluating = outer

    def _evaluate(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self.example
        if node.op == "get_attr":
            return _attribute(self.root, str(node.target))
        args, kwargs = (
            fx.node.map_arg(a, self.values.__getitem__) for a in (node.args, node.kwargs)
        )
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target)).forward(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Modules are followed, or run as they are inside an evaluation."""
        if self._is_evaluating:
            return forward(*args, **kwargs)
        self._install(m)
        if has_hooks(m) and self.is_leaf_module(m, self.path_of_module(m)):
            call = partial(super().call_module, m, forward)
            return call_hooked(around(m), m, lambda *a, **k: call(a, k), args, kwargs)
        return super().call_module(m, forward, args, kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """As in torch, and torchvision's transforms, which pass over what is no tensor.

        SyncBatchNorm is followed, so that it becomes the BatchNorm it is in evaluation.
        """
        if any(kind.__module__.startswith(_TRANSFORMS) for kind in type(m).__mro__):
            return True
        is_leaf = super().is_leaf_module(m, module_qualified_name)
        return is_leaf and not isinstance(m, nn.SyncBatchNorm)

    def _install(self, module: nn.Module) -> None:
        """Give a module a path if it has none: it was made in forward, or no module holds it."""
        if module in self.submodule_paths:
            return
        inner = [m for m in module.modules() if m is not module]
        is_known = inner and all(m in self.submodule_paths for m in inner)
        if is_known and not any(True for _ in module.parameters(recurse=False)):
            self.submodule_paths[module] = ""  # a slice of a Sequential: only its layers count
            return
        name = install(self.root, type(module).__name__.lower(), module)
        self.installed.append(name)
        for path, part in module.named_modules(prefix=name):
            self.submodule_paths.setdefault(part, path)

    def _install_parameter(self, parameter: nn.Parameter) -> None:
        name = self.get_fresh_qualname("parameter_")
        self.root.register_parameter(name, parameter)
        self.installed.append(name)

    @property
    def place(self) -> str:
        """The module that is being followed; empty for the network itself."""
        return next(reversed(self.module_stack.values()))[0] if self.module_stack else ""

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """Parameters become placeholders, except inside an evaluation."""
        if self._is_evaluating:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def _attribute(root: nn.Module, name: str) -> Any:
    value: Any = root
    for part in name.split("."):
        value = getattr(value, part)
    return value
