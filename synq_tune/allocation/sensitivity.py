"""How far a network's answers move when one layer's weights, or one tensor's values, are rounded.

ZeroQ (Cai et al., 2020) measures the same divergence on its distilled images. Layers are measured
one at a time with all else in full precision, so that what several cost together is taken for the
sum of what each costs alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from synq_tune.allocation.network import WIDTHS, Key, uniform_bits
from synq_tune.config import Bits, Reconstruct
from synq_tune.graph.batchnorm import batchnorm_layers
from synq_tune.graph.branches import is_identity
from synq_tune.graph.nodes import find_nodes, module_of
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.process.progress import progress_bar
from synq_tune.quantization.student import (
    ACTIVATION_PREFIX,
    activation_quantizers,
    quantize_student,
    weight_layers,
)
from synq_tune.seeds import trial_seed
from synq_tune.trial.assets import Assets
from synq_tune.trial.evaluation import AgreementSet
from synq_tune.trial.trial import Trial


def calibrated(assets: Assets, bits: Bits) -> fx.GraphModule:
    """A student of these widths as calibration leaves it, without reconstruction or training.

    Raises:
        NonFiniteError: a weight or a range is NaN or infinite.
    """
    spec = assets.spec.model_copy(update={"bits": bits})
    seed = trial_seed(spec.study.seed, 0)
    trial = Trial(replace(assets, spec=spec), spec.finetune, seed, reconstruct=Reconstruct())
    return trial.untrained()


def first_probes(assets: Assets, count: int) -> AgreementSet:
    """The first `count` of the images that trials are chosen by: hold-out images as they are."""
    probes = assets.probes
    return AgreementSet(probes.images[:count], probes.teacher_logits[:count])


def sensitivities(
    assets: Assets,
    keys: Sequence[Key],
    probes: AgreementSet,
    widths: Sequence[int] = WIDTHS,
) -> dict[Key, dict[int, float]]:
    """Mean KL(teacher ‖ student) with one key rounded alone, by key and width; nats, ≥ 0.

    One calibration a width and one pass over the probes a key and width.

    Args:
        assets: its study says how the student is quantized and calibrated.
        keys: what is measured.
        probes: on which images.

    Raises:
        NonFiniteError: a logit or a divergence is not finite.
    """
    found: dict[Key, dict[int, float]] = {key: {} for key in keys}
    with progress_bar(len(keys) * len(widths), "sensitivity", True, "measurement") as bar:
        for width in widths:
            bits = uniform_bits(assets.spec.bits, width)
            alone = _OneByOne(assets.teacher, assets.spec.quantizer, calibrated(assets, bits), bits)
            for key in keys:
                with alone.rounded(key) as student:
                    found[key][width] = _divergence(student, probes, assets.device)
                bar.update()
    return found


class _OneByOne:
    """A calibrated student of which one key is rounded at a time."""

    def __init__(
        self, teacher: LoadedTeacher, quantizer: str, student: fx.GraphModule, bits: Bits
    ) -> None:
        self._student = student
        self._quantizers = _quantizers(student)
        self._fitted = {name: t.clone() for name, t in student.state_dict().items()}
        # What clips weights, or corrects BatchNorms for rounded ones, changed all layers.
        self._fresh = quantize_student(teacher, bits, quantizer).state_dict()
        norms = set(batchnorm_layers(student))
        self._norms = {m: name for name, m in student.named_modules() if m in norms}
        self._load(list(weight_layers(student)), list(self._norms.values()), self._fresh)

    @contextlib.contextmanager
    def rounded(self, key: Key) -> Iterator[fx.GraphModule]:
        """Inside the block the student is in full precision but for this key."""
        kind, name = key
        own = ([name], self._norms_behind(name)) if kind == "weights" else ([], [])
        self._load(*own, self._fitted)
        with _in_full_precision(q for k, q in self._quantizers.items() if k != key):
            yield self._student
        self._load(*own, self._fresh)

    def _norms_behind(self, layer: str) -> list[str]:
        """The BatchNorms that read a layer's result, whatever taps stand between."""
        found, pending = [], find_nodes(self._student, lambda n, m: str(n.target) == layer)
        while pending:
            for user in pending.pop().users:
                module = module_of(self._student, user)
                if module in self._norms:
                    found.append(self._norms[module])
                elif is_identity(self._student, user):
                    pending.append(user)
        return found

    @torch.no_grad()
    def _load(self, layers: list[str], norms: list[str], state: dict[str, Tensor]) -> None:
        """Give layers their weights, and BatchNorms what they remember, of a state."""
        names = [f"{layer}.weight" for layer in layers]
        names += [f"{norm}.running_{part}" for norm in norms for part in ("mean", "var")]
        own = self._student.state_dict()
        for name in names:
            own[name].copy_(state[name])


def _divergence(
    student: Callable[[Tensor], Tensor], probes: AgreementSet, device: torch.device
) -> float:
    # Of a student that hardly differs the mean may lie a rounding error below 0.
    return max(probes.compare(student, device)["holdout_kl"], 0.0)


def _quantizers(student: fx.GraphModule) -> dict[Key, nn.Module]:
    weights = {("weights", n): m.weight_quantizer for n, m in weight_layers(student).items()}
    grids = activation_quantizers(student).items()
    return weights | {("activations", n.removeprefix(ACTIVATION_PREFIX)): m for n, m in grids}


@contextlib.contextmanager
def _in_full_precision(quantizers: Iterable[nn.Module]) -> Iterator[None]:
    """Inside the block these give back what they are given, and compute nothing."""
    quantizers = list(quantizers)
    for quantizer in quantizers:
        quantizer.forward = _same
    try:
        yield
    finally:
        for quantizer in quantizers:
            del quantizer.forward


def _same(x: Tensor) -> Tensor:
    return x
