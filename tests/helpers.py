"""Small real things tests build."""

from __future__ import annotations

from torch import nn

from synq_tune.config import Teacher
from synq_tune.models.graph import trace
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.models.taps import insert_taps
from synq_tune.models.teacher import LoadedTeacher


def teacher_of(model: nn.Module, shape: tuple[int, int, int]) -> LoadedTeacher:
    """A loaded teacher around any module, for inputs of `shape` (C, H, W)."""
    channels, height, width = shape
    config = Teacher(model="python:tests.helpers:none", channels=channels)
    graph = trace(model.eval().requires_grad_(False), shape)
    output = next(node for node in graph.graph.nodes if node.op == "output")
    num_classes = output.args[0].meta["shape"][1]
    insert_taps(graph)
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    preprocessing = Preprocessing(height, width, channels, zeros, ones)
    return LoadedTeacher(config, graph, preprocessing, num_classes, "0" * 64)
