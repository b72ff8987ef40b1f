"""Bad inputs as files: networks and functions that raise, spaces, studies, models and images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tests.helpers import tiny_onnx

RAISES = {
    "import": "raise ImportError('no such library')",
    "attribute": "object().missing",
    "key": "{}['missing key']",
    "recursion": "(lambda f: f(f))(lambda f: f(f))",
    "exit": "raise SystemExit(0)",
    "memory": "raise MemoryError",
    "base": "raise type('Mine', (BaseException,), {})('of my own')",
    "stop": "raise StopIteration",
    "warning": "import warnings; warnings.simplefilter('error'); warnings.warn('turned into an error')",
    "system": "import os; os.stat('/no/such/file')",
    "unprintable": "raise type('Silent', (Exception,), {'__str__': lambda self: 1 / 0})()",
}
"""Kind → a statement that raises."""

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, statement=None, channels=1):
        super().__init__()
        self.statement = statement
        self.conv, self.norm = nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4)
        self.act, self.head = nn.ReLU(), nn.Linear(4, 10)

    def forward(self, x):
        if self.statement:
            exec(self.statement)
        return self.head(self.act(self.norm(self.conv(x))).mean((2, 3)))


def net(statement=None, built=None, channels=1):
    if built:
        exec(built)
    torch.manual_seed(0)
    return Net(statement, channels)


def no_module():
    return 5


def fixed_size():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)
    )
"""

FUNCTIONS = """
import torch


def cam_shape(activations, gradients):
    return gradients


def cam_none(activations, gradients):
    return None


def cam_nan(activations, gradients):
    return gradients.sum((2, 3)) * float("nan")


def cam_raises(activations, gradients):
    raise KeyError("in my technique")


def images_none(teacher, config, folder, show):
    return None


def images_shape(teacher, config, folder, show):
    return torch.zeros(1), torch.zeros(1).long()


def images_nan(teacher, config, folder, show):
    count = config.num_images + config.num_holdout
    return torch.full((count, 1, 8, 8), float("nan")), torch.zeros(count).long()


def images_raises(teacher, config, folder, show):
    raise SystemExit("in my method")
"""

SPACE = """
format: 1
name: small
recipe: synq
teacher: {{model: "{net}:net", input_size: 8, channels: 1, mean: [0.0], std: [1.0]}}
bits: {{weights: 4, activations: 4}}
synthesis: {{num_images: 16, num_holdout: 4, batch_size: 20, iterations: 1, center_iterations: 1}}
finetune: {{epochs: 1, batch_size: 16, num_views: 1, calibration_batches: 1, crop_scale: [0.9, 1.0], d0: 8}}
search: {{lr: {{choice: [1.0e-3, 1.0e-2]}}}}
study: {{num_trials: 2, max_concurrent: 1, confirm: null}}
"""

SPACES = {
    "tabs": b"format: 1\n\tname: x\n",
    "anchor": b"format: 1\nname: *nobody\n",
    "twice": b"format: 1\nformat: 1\n",
    "binary": bytes(range(256)),
    "utf16": "format: 1\n".encode("utf-16"),
    "empty": b"",
    "list": b"- format: 1\n",
    "nested": b"format: 1\nname: " + b"[" * 1_200,
    "tag": b"format: 1\nname: !!python/object/apply:os.system [true]\n",
    "complex_key": b"? [a, b]\n: 1\n",
    "digits": b"format: 1\nname: " + b"9" * 5000 + b"\n",
    "number": b"format: 1\n1: 2\n",
    "bomb": b"format: 1\na0: &a0 [x, x, x, x, x, x, x, x]\n"
    + b"".join(
        b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 8)) for i in range(1, 12)
    )
    + b"name: *a11\n",
    "two": b"format: 1\n---\nformat: 1\n",
    "other_format": b"format: 99\nname: x\n",
    "self": b"format: 1\nsearch: &s {lr: *s}\n",
}
"""Name → a space that none can read."""


def write_all(folder: Path) -> None:
    """Write everything the table of bad inputs names."""
    (folder / "net.py").write_text(NETS)
    (folder / "functions.py").write_text(FUNCTIONS)
    (folder / "small.yaml").write_text(SPACE.format(net=folder / "net.py"))
    for name, statement in RAISES.items():
        (folder / f"raises_{name}.py").write_text(f"{statement}\ndef net(): ...\n")
    (folder / "raises_syntax.py").write_text("def net(:\n")
    for name, text in SPACES.items():
        (folder / f"{name}.yaml").write_bytes(text)
    (folder / "folder.yaml").mkdir()
    (folder / "folder").mkdir()
    (folder / "file").write_text("a file")
    _write_models(folder)
    _write_images(folder)
    _write_studies(folder)
    (folder / "rows.jsonl").write_text('{"variant": 1}\n[]\n')
    (folder / "variants.yaml").write_text("baseline: a\nvariants: {a: {}, b: 7}\n")
    (folder / "no_baseline.yaml").write_text("variants: [1, 2]\n")


def _write_models(folder: Path) -> None:
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "noise.onnx").write_bytes(bytes(range(256)) * 8)
    (folder / "foreign.onnx").write_bytes(tiny_onnx().SerializeToString())
    (folder / "broken_metadata.onnx").write_bytes(_with_metadata("{").SerializeToString())
    (folder / "list_metadata.onnx").write_bytes(_with_metadata("[]").SerializeToString())
    (folder / "few_metadata.onnx").write_bytes(_with_metadata('{"format": 1}').SerializeToString())
    (folder / "folder.onnx").mkdir()
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "huge_header.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    (folder / "text.safetensors").write_text("{}")
    save_file({"x": torch.zeros(2)}, folder / "foreign.safetensors")
    save_file(
        {"x": torch.zeros(2)}, folder / "few.safetensors", {"synq_tune": json.dumps({"format": 1})}
    )
    (folder / "bad_golden.npz").write_bytes(b"PK\x03\x04 not a zip")


def _with_metadata(text: str):
    proto = tiny_onnx()
    entry = proto.metadata_props.add()
    entry.key, entry.value = "synq_tune", text
    return proto


def _write_images(folder: Path) -> None:
    for label in range(10):
        (folder / f"images/{label}").mkdir(parents=True)
        (folder / f"images/{label}/a.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    (folder / "broken.zip").write_bytes(b"PK\x03\x04 cut")
    (folder / "arrays").mkdir()
    np.save(folder / "arrays/images.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (folder / "cifar").mkdir()
    (folder / "cifar/test_batch").write_bytes(b"no pickle")


def _write_studies(folder: Path) -> None:
    from synq_tune.config.load import load_space
    from synq_tune.study.ledger import Ledger

    whole = folder / "study"
    Ledger.create(whole, load_space(str(folder / "small.yaml"))).close()
    header = json.loads((whole / "ledger.jsonl").read_text())
    ledgers = {
        "cut": (whole / "ledger.jsonl").read_bytes()[:100],
        "headless": b'{"event":"session","at":1.0,"action":"started","pid":1,"host":"h"}\n',
        "format": json.dumps({**header, "format": 999}).encode() + b"\n",
        "spec": json.dumps({**header, "spec": {"name": 1}}).encode() + b"\n",
        "noise": bytes(range(256)),
        "nothing": b"",
        "list": b"[]\n",
        "order": json.dumps(header).encode() + b'\n{"event":"started","at":1.0,"key":"trial-9"}\n',
        "fields": json.dumps(header).encode() + b'\n{"event":"proposed","at":1.0}\n',
        "stages": json.dumps(header).encode() + b'\n{"event":"stage","at":1.0,"name":"x"}\n',
        "event": json.dumps(header).encode() + b'\n{"event":"dance","at":1.0}\n',
    }
    for name, data in ledgers.items():
        (folder / f"study_{name}").mkdir()
        (folder / f"study_{name}/ledger.jsonl").write_bytes(data)
    (folder / "study_folder/ledger.jsonl").mkdir(parents=True)
