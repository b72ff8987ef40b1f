"""What an ONNX file is made for: to be stored and read everywhere, or to run in integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from synq_tune.errors import InputError


@dataclass(frozen=True)
class OnnxOptions:
    """How `write_onnx` writes; the defaults are those of `model.onnx`."""

    absorb_batchnorm: bool = False
    """BatchNorms behind a layer go into its scales and bias."""
    batch_size: int | None = None
    """A fixed number of images; None: any."""
    normalize: bool = True
    """The file takes images in [0, 1]; if not, normalised ones, and its metadata say so."""
    integer_biases: bool = False
    """Biases as int32 on the grid of the layer's accumulator, where its input is on a grid."""
    weight_container: Literal["smallest", "int8"] = "smallest"
    value_container: Literal["uint8", "int8"] = "uint8"
    """`int8`: values of 8 bits on grids with zero point 0. Biases, on their grid, are floats then:
    TensorRT, which such files are for, reads no int32 codes."""

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(
                f"`batch_size >= 1` must hold, but got batch_size={self.batch_size}. "
                "Leave it out for a file that takes any number of images."
            )


STORAGE = OnnxOptions()
HARDWARE = OnnxOptions(absorb_batchnorm=True, integer_biases=True, weight_container="int8")
TENSORRT = replace(HARDWARE, batch_size=1, value_container="int8")
PTE = replace(HARDWARE, batch_size=1)


def metadata_of(options: OnnxOptions) -> dict[str, Any]:
    """What a file says of its options: nothing for `STORAGE`, whose files are older than
    options."""
    said: dict[str, Any] = {} if options == STORAGE else {"onnx": _said(options)}
    return said if options.normalize else {**said, "normalized_input": True}


def _said(options: OnnxOptions) -> dict[str, Any]:
    """The options; `value_container` where it is not what versions before it wrote."""
    said = asdict(options)
    if options.value_container == "uint8":
        del said["value_container"]
    return said


def options_of(metadata: Mapping[str, Any]) -> OnnxOptions:
    """The options a file was written with.

    Raises:
        InputError: a later version wrote an option that this one does not know.
    """
    said = metadata.get("onnx", {})
    unknown = sorted(said.keys() - {field.name for field in fields(OnnxOptions)})
    if unknown:
        raise InputError(
            f"`this version knows the file's options` must hold, but got {', '.join(unknown)}. "
            "Install the synq-tune it was exported with."
        )
    return OnnxOptions(**said)
