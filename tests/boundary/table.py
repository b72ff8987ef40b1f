"""The table: a command, its arguments, and what the one line on stderr has to name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.boundary.material import RAISES, SPACES, write_all

__all__ = ["Row", "rows", "write_all"]


@dataclass(frozen=True)
class Row:
    """One bad input."""

    name: str
    command: str
    arguments: list[object]
    named: str
    """What the line names: key, file or value."""
    is_foreign: bool | None = False
    """Whether a library or the user's code raised, so that the line names a log file; None is either."""
    is_alone: bool = True
    """Whether the line is the only one on stderr: not after work, whose progress is shown there."""
    is_slow: bool = False
    """Whether it takes seconds."""


HUGE = 10**15
"""Images: no address space holds them, so that the allocation fails at once."""


def rows(here: Path) -> Iterator[Row]:
    """All rows; files are those of `write_all(here)`."""
    for make in (_networks, _libraries, _numbers, _spaces, _sets, _places, _studies, _models, _images,
                 _services, _functions, _others):  # fmt: skip
        yield from make(here)


def _space(here: Path, *sets: str) -> list[object]:
    return ["--space", here / "small.yaml", *(part for text in sets for part in ("--set", text))]


def _networks(here: Path) -> Iterator[Row]:
    for kind in ("syntax", *RAISES):
        file = here / f"raises_{kind}.py"
        name = f"teacher.model={file}:net"
        yield Row(f"import-{kind}", "inspect", _space(here, name), str(file), True)
    for kind, statement in RAISES.items():
        for place, key in (("built", "built"), ("forward", "statement")):
            kwargs = f'teacher.kwargs={{{key}: "{statement}"}}'
            # A file that is not there is explained in full by the line.
            is_file = (place, kind) == ("forward", "system")
            named = "/no/such/file" if is_file else "teacher.model="
            yield Row(f"{place}-{kind}", "inspect", _space(here, kwargs), named, not is_file)
    model = f"teacher.model={here / 'net.py'}"
    yield Row("no-module", "inspect", _space(here, f"{model}:no_module"), "no_module")
    yield Row("no-function", "inspect", _space(here, f"{model}:nobody"), "nobody")
    yield Row("kwargs", "inspect", _space(here, "teacher.kwargs={widht: 4}"), "widht")
    size = [f"{model}:fixed_size", "teacher.input_size=9"]
    yield Row("size", "inspect", _space(here, *size), "teacher.model=", True)
    yield Row("tiny", "inspect", _space(here, "teacher.input_size=2"), "teacher.model=", True)
    channels = ["teacher.channels=3", "teacher.mean=[0, 0, 0]", "teacher.std=[1, 1, 1]"]
    yield Row("channels", "inspect", _space(here, *channels), "teacher.model=", True)
    yield Row(
        "missing-package",
        "inspect",
        _space(here, "teacher.model=python:no.pkg:net"),
        "no.pkg",
        None,
    )


def _libraries(here: Path) -> Iterator[Row]:
    three = ["teacher.channels=3", "teacher.mean=[0, 0, 0]", "teacher.std=[1, 1, 1]"]

    def row(name: str, model: str, named: str, *sets: str, foreign: bool | None = False) -> Row:
        arguments = [*_space(here, f"teacher.model={model}", *three, *sets), "--random-weights"]
        return Row(
            name, "inspect", arguments, named, foreign, is_slow="value" in name or "heads" in name
        )

    vit, net18 = "timm:vit_tiny_patch16_224", "torchvision:resnet18"
    yield row("timm-name", "timm:resnet81", "resnet81")
    yield row("timm-kwargs", "timm:resnet18", "widht", "teacher.kwargs={widht: 4}", foreign=None)
    yield row("timm-value", vit, "depth", "teacher.kwargs={depth: many}", foreign=True)
    yield row("timm-heads", vit, "num_heads", "teacher.kwargs={num_heads: 7}", foreign=True)
    yield row("vit-size", vit, vit, "teacher.input_size=30", foreign=True)
    yield row("torchvision-kwargs", net18, "widht", "teacher.kwargs={widht: 4}", foreign=None)
    yield row(
        "torchvision-size", "torchvision:alexnet", "alexnet", "teacher.input_size=16", foreign=True
    )
    yield row(
        "pytorchcv-kwargs",
        "pytorchcv:resnet20_cifar10",
        "widht",
        "teacher.kwargs={widht: 4}",
        foreign=None,
    )
    yield row("library", "keras:resnet18", "keras")


def _numbers(here: Path) -> Iterator[Row]:
    images = [f"synthesis.num_images={HUGE}", f"synthesis.batch_size={HUGE}"]
    store = ["--store", here / "store"]
    many = [*_space(here, *images), *store]
    yield Row("many-images", "synthesize", many, "synthesis.num_images")
    yield Row(
        "large-input", "inspect", _space(here, "teacher.input_size=100000000"), "teacher.input_size"
    )
    batch = ["step", *_space(here), "--batch-size", HUGE]
    yield Row("bench-batch", "bench", batch, "step", True, is_slow=True)
    yield Row(
        "overflow", "inspect", _space(here, f"teacher.input_size={10**30}"), "teacher.input_size"
    )


def _spaces(here: Path) -> Iterator[Row]:
    for name in (*SPACES, "folder"):
        file = here / f"{name}.yaml"
        yield Row(f"space-{name}", "inspect", ["--space", file], str(file))
    yield Row("space-missing", "search", ["--space", here / "no.yaml"], "no.yaml")
    yield Row("space-null", "search", ["--space", "a\0b.yaml"], "a")
    yield Row("space-long", "search", ["--space", "a" * 5000 + ".yaml"], "aaa", True)


def _sets(here: Path) -> Iterator[Row]:
    texts = {
        "teacher.mean=[a]": "teacher.mean", "teacher.input_size=[1, 2, 3]": "teacher.input_size",
        "teacher=5": "teacher", "bits=[4]": "bits", "bits.weights=many": "bits.weights",
        "bits.overrides={a: b}": "bits.overrides", "synthesis.batch_size=few": "synthesis.batch_size",
        "synthesis.seed=1.5": "synthesis.seed", "finetune.lr=[]": "finetune.lr",
        "finetune.cam=7": "finetune.cam", "search=3": "search", "search.lr={float: [2]}": "search.lr",
        "search.lr={choice: []}": "search.lr", "study.confirm=7": "study.confirm",
        "study.num_trials=a lot": "study.num_trials", "quantizer=[]": "quantizer", "recipe={}": "recipe",
        "=": "--set", "lr": "--set", "finetune.=1": "--set", "finetune.lr=[1": "finetune.lr",
        "finetune.lr.x=1": "finetune.lr", "name=null": "name", "finetune.cam_layer=nowhere": "nowhere",
    }  # fmt: skip
    for text, named in texts.items():
        yield Row(f"set {text}", "inspect", _space(here, text), named)


def _places(here: Path) -> Iterator[Row]:
    small = _space(here)
    file, folder = here / "file", here / "folder"
    yield Row("weights-folder", "inspect", [*small, "--weights", folder], str(folder))
    weights = ["--space", "digits_w3a3", "--weights", file]
    yield Row("weights-text", "inspect", weights, str(file), None)
    yield Row("store-file", "synthesize", [*small, "--store", file], str(file))
    yield Row("output-file", "search", [*small, "--output-dir", file], str(file))
    below = file / "below"
    yield Row("output-below-file", "search", [*small, "--output-dir", below], str(file))
    yield Row("resume-file", "search", ["--resume", file], str(file))
    exported = [*small, "--store", here / "store", "--export", "png", "--output", file]
    yield Row("export-file", "synthesize", exported, str(file), True)
    yield Row("status-file", "status", [file], str(file))
    yield Row("clean-file", "clean", ["--store", file], str(file))
    yield Row("model-folder", "evaluate", ["--model", here / "folder.onnx", "--val-data", "digits"],
              "folder.onnx")  # fmt: skip


def _studies(here: Path) -> Iterator[Row]:
    kinds = ("cut", "headless", "format", "spec", "noise", "nothing", "list", "order", "fields",
             "stages", "event", "folder")  # fmt: skip
    for kind in kinds:
        folder = here / f"study_{kind}"
        yield Row(f"status-{kind}", "status", [folder], str(folder))
    for kind in ("cut", "format", "order", "fields"):
        folder = here / f"study_{kind}"
        yield Row(f"resume-{kind}", "search", ["--resume", folder], str(folder))
        yield Row(f"doctor-{kind}", "doctor", [folder], str(folder))
        yield Row(f"export-{kind}", "export", ["--study", folder], str(folder))
        yield Row(f"choosing-{kind}", "choosing", [folder], str(folder))
    yield Row("export-nothing-done", "export", ["--study", here / "study"], "trial")
    yield Row("export-trial", "export", ["--study", here / "study", "--trial", -1], "trial=-1")


def _models(here: Path) -> Iterator[Row]:
    names = ("empty.onnx", "noise.onnx", "foreign.onnx", "broken_metadata.onnx", "list_metadata.onnx",
             "few_metadata.onnx", "empty.safetensors", "huge_header.safetensors", "text.safetensors",
             "foreign.safetensors", "few.safetensors", "missing.onnx", "file")  # fmt: skip
    for name in names:
        arguments = ["--model", here / name, "--val-data", "digits"]
        yield Row(f"evaluate-{name}", "evaluate", arguments, name)


def _images(here: Path) -> Iterator[Row]:
    sources = ("images", "arrays", "file", "folder", "broken.zip", "missing", "missing.zip")
    prefixed = ("npy:arrays", "npy:folder", "cifar10:cifar", "cifar10:folder", "cifar100:file",
                "imagenet:folder", "imagenet:file", "npy:file")  # fmt: skip
    for source in sources:
        arguments = [*_space(here), "--val-data", here / source, "--store", here / "store"]
        yield Row(f"val-{source}", "finetune", arguments, source)
    for source in prefixed:
        kind, _, name = source.partition(":")
        arguments = [
            *_space(here),
            "--val-data",
            f"{kind}:{here / name}",
            "--store",
            here / "store",
        ]
        yield Row(f"val-{source}", "finetune", arguments, name)
    unknown = [*_space(here), "--val-data", f"tfds:{here}"]
    yield Row("val-unknown", "finetune", unknown, "tfds")


def _services(here: Path) -> Iterator[Row]:
    uris = {
        "foo://bar": "foo", f"sqlite:///{here}/file/db": "/file", "http://127.0.0.1:9": "127.0.0.1",
        "postgresql://user:secret@127.0.0.1:9/db": "postgresql", f"sqlite:///{here}/file": "file",
        "http://[::1": "[::1", "sqlite:///a\0b": "sqlite",
    }  # fmt: skip
    for number, (uri, named) in enumerate(uris.items()):
        folder = here / f"tracked_{number}"
        arguments = [*_space(here), "--tracking-uri", uri, "--output-dir", folder]
        # A library found wanting in its own way, or known to us.
        is_foreign = None if "[" in uri or "\0" in uri else False
        is_slow = not uri.startswith("sqlite")
        name = f"tracking {ascii(uri.replace(str(here), ''))}"
        yield Row(name, "search", arguments, named, is_foreign, is_slow=is_slow)
    run = ["--run", "0" * 32, "--tracking-uri", f"sqlite:///{here}/no/db"]
    yield Row("export-run", "export", run, "sqlite", is_slow=True)
    away = ["--run", "0" * 32, "--tracking-uri", f"sqlite:///{here}/file/db"]
    yield Row("export-run-away", "export", away, "file/db", True)
    for address in (
        "127.0.0.1:1",
        "127.0.0.1:99999",
        "nowhere.invalid:6379",
        "ray://127.0.0.1:1",
        "x",
    ):
        arguments = [*_space(here), "--ray-address", address, "--output-dir", here / "joined"]
        yield Row(f"ray {address}", "search", arguments, address)


def _functions(here: Path) -> Iterator[Row]:
    file = here / "functions.py"
    for kind in ("shape", "none", "nan", "raises"):
        sets = [f"finetune.cam={file}:cam_{kind}", "finetune.lambda_cam=20"]
        arguments = [*_space(here, *sets), "--store", here / "store"]
        yield Row(f"cam-{kind}", "finetune", arguments, f"cam_{kind}", kind == "raises")
        method = f"synthesis.method={file}:images_{kind}"
        arguments = [*_space(here, method), "--store", here / "store"]
        yield Row(f"images-{kind}", "synthesize", arguments, f"images_{kind}", kind == "raises")


def _others(here: Path) -> Iterator[Row]:
    small = _space(here)
    yield Row("bench-device", "bench", ["step", *small, "--device", "abacus"], "abacus")
    yield Row("bench-rounds", "bench", ["step", *small, "--rounds", 0], "rounds")
    for name in ("file", "folder", "missing", "variants.yaml", "no_baseline.yaml"):
        arguments = [
            "--space",
            "digits_w3a3",
            "--variants",
            here / name,
            "--output",
            here / "t.jsonl",
        ]
        yield Row(f"compare-{name}", "compare", arguments, name)
    yield Row("choosing-rows", "choosing", [here / "rows.jsonl"], "rows.jsonl")
    yield Row(
        "coverage-part", "coverage", ["--output", here / "c", "--part", "3/2"], "3/2", is_slow=True
    )
    yield Row("coverage-rows", "coverage", ["--output", here / "rows.jsonl", "--report"], "rows.jsonl",
              is_slow=True)  # fmt: skip
    yield Row("runtimes-text", "runtimes", [here / "file"], "file")
    yield Row("runtimes-noise", "runtimes", [here / "noise.onnx"], "noise.onnx")
    yield Row("regret-table", "regret", ["--table", here / "file"], "file")
