"""The ledger: everything that happened in a study, one fsync'd JSON line per event, the only truth.

Ray, Optuna and MLflow are projections of it and may be lost. Each line ends with the CRC32 of what
stands before it: a line torn by a crash is recognised and dropped, damage elsewhere is reported.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
import zlib
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from synq_tune import store
from synq_tune.config import FORMAT, StudySpec
from synq_tune.errors import InputError
from synq_tune.notes import counted
from synq_tune.study.lock import LOCK_NAME, holder
from synq_tune.study.stages import Stage
from synq_tune.study.state import StudyState, apply, check, interrupt_running
from synq_tune.study.summary import SUMMARY_NAME
from synq_tune.study.trust import check_names, check_owner

LEDGER_NAME = "ledger.jsonl"
PACKAGES = ("synq-tune", "torch", "torchvision", "timm", "ray", "optuna", "mlflow", "onnx",
            "onnxruntime")  # fmt: skip
"""Whose versions a header records."""

_log = logging.getLogger(__name__)


class Ledger:
    """An open ledger; `state` is current after every `append`. One writer, under `study_lock`."""

    def __init__(self, folder: Path, read_only: bool = False) -> None:
        """Use `Ledger.create` or `Ledger.open`."""
        self.folder = folder
        self.path = folder / LEDGER_NAME
        self.read_only = read_only
        self._file: int | None = None
        self._read()

    @classmethod
    def create(cls, folder: Path, spec: StudySpec, **info: Any) -> Ledger:
        """Begin a study: write the header as the ledger's first line, whole or not at all.

        A folder that holds a study of the same spec is opened instead.

        Args:
            folder: the study's; made if missing.
            spec: the study's settings.
            info: more to remember in the header, such as the command.

        Raises:
            InputError: the folder holds another study, or files of something else.
        """
        if (folder / LEDGER_NAME).exists():
            return cls._reopen(folder, spec)
        _check_unused(folder)
        folder.mkdir(0o775, parents=True, exist_ok=True)  # not for everyone to write, at any umask
        check_owner(folder)
        store.write_bytes(folder / LEDGER_NAME, encode_record(_header(spec, info)))
        return cls(folder)

    @classmethod
    def _reopen(cls, folder: Path, spec: StudySpec) -> Ledger:
        ledger = cls.open(folder)
        # Validated first: a setting added since the study began has its default there.
        if _dump(StudySpec.model_validate(ledger.state.header["spec"])) != _dump(spec):
            raise InputError(
                f"`the folder is new or holds the same study` must hold, but {folder} belongs to "
                f"another study ({ledger.state.spec.name}, other settings). Choose another "
                "--output-dir, or continue that study with --resume."
            )
        return ledger

    @classmethod
    def open(cls, folder: Path, read_only: bool = False, anyones: bool = False) -> Ledger:
        """Replay the ledger of a study.

        Runs that a dead driver left unfinished are `interrupted` in the state.

        Args:
            folder: the study's.
            read_only: look without changing anything. A driver may be at work meanwhile, and
                another major version of Optuna does not matter.
            anyones: also open a study of another user. Only for callers that neither act on it nor
                show it.

        Raises:
            InputError: there is no ledger, it is damaged or not to be trusted (`study.trust`), or
                it was made in another format or with another major version of Optuna, whose
                proposals would differ.
        """
        if not (folder / LEDGER_NAME).is_file():
            raise InputError(
                f"`the folder holds a study` must hold, but there is no {LEDGER_NAME} in {folder}. "
                "Name the folder that scripts/search.py printed."
            )
        if not anyones:
            check_owner(folder, folder / LEDGER_NAME)
        ledger = cls(folder, read_only)
        if not read_only:
            _check_optuna(ledger.state.header, ledger.path)
        if not read_only or holder(folder) is None:
            interrupt_running(ledger.state)
        return ledger

    def append(self, event: str, **fields: Any) -> dict[str, Any]:
        """Record one event: it is on disk, and in `state`, when this returns.

        Args:
            event: its name; see `synq_tune.study.state`.
            fields: of the event, JSON values; numbers are finite.

        Raises:
            RuntimeError: the event cannot follow the state, or the ledger is not ours to write.
            ValueError: a number is NaN or infinite.
            OSError: the disk refused; nothing was recorded.
        """
        record = {"event": event, "at": time.time(), **fields}
        check(self.state, record)
        self._write(encode_record(record))
        apply(self.state, record)
        return record

    def record(self, stage: Stage) -> None:
        """Record that the study has passed a stage; see `append`."""
        self.append("stage", name=stage.NAME, data=stage.to_event())

    def replay(self) -> StudyState:
        """The state as the file tells it, read again from its beginning."""
        return _replay(self.path)[0]

    @property
    def torn_bytes(self) -> int:
        """Bytes of a line that a crash left unfinished at the end of the file."""
        return 0 if self._file is not None else self._size - self._end

    def drop_torn_line(self) -> None:
        """Cut the file after its last whole line, as the next `append` would."""
        self._writable()
        self._size = self._end

    def discard(self) -> None:
        """Undo `create`: a study whose input turned out wrong before any run leaves nothing."""
        self.close()
        for name in (SUMMARY_NAME, LEDGER_NAME):
            (self.folder / name).unlink(missing_ok=True)
        store.fsync_dir(self.folder)

    def close(self) -> None:
        """Close the file; a later `append` opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _read(self) -> None:
        self.state, self._end, self._size = _replay(self.path)

    def _write(self, line: bytes) -> None:
        file = self._writable()
        try:
            write_all(file, line, self._end)
            os.fsync(file)
            self._end += len(line)
        except BaseException:
            # Half a line must not stay in the middle: the next append starts where this one did.
            os.ftruncate(file, self._end)
            raise

    def _writable(self) -> int:
        """The open file, as this process left it, cut after its last whole line."""
        if self.read_only:
            raise RuntimeError(f"`the ledger is open for writing` must hold, but got {self.path}.")
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        else:
            self._size = self._end
        size = os.fstat(self._file).st_size
        if size != self._size:
            raise RuntimeError(
                f"`one process writes {self.path}` must hold, but it has {size} bytes instead of "
                f"{self._size}. Hold study_lock while writing."
            )
        if size != self._end:
            os.ftruncate(self._file, self._end)
        return self._file


def write_all(file: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def encode_record(record: dict[str, Any]) -> bytes:
    """One line: a JSON object whose last member, `crc`, is the CRC32 of the object without it."""
    try:
        text = json.dumps(record, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise ValueError(f"`a ledger's numbers are finite` must hold, but got {record}.") from error
    return f'{text[:-1]},"crc":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def _decode(line: bytes) -> dict[str, Any] | None:
    """The record of a line with its newline; None if the line is not whole."""
    head, _, tail = line.rpartition(b',"crc":"')
    if tail != f'{zlib.crc32(head + b"}"):08x}"}}\n'.encode():
        return None
    return json.loads(head + b"}")


def _replay(path: Path) -> tuple[StudyState, int, int]:
    """The state, the bytes that are whole lines, and the bytes there are."""
    data = path.read_bytes()
    lines = data.split(b"\n")
    lines = [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    state = _state_of_header(lines, path)
    end = len(lines[0])
    for number, line in enumerate(lines[1:], start=2):
        record = _decode(line)
        if record is not None:
            _check_names(record, path, number)
            _apply(state, record, path, number)
            end += len(line)
        elif number == len(lines):
            _log.warning("%s: line %d was torn by a crash and is dropped.", path, number)
        else:
            raise InputError(
                f"{path}: `every line matches its checksum` must hold, but line {number} of "
                f"{len(lines)} is damaged. Restore the file from a copy, or begin a new study."
            )
    return state, end, len(data)


def _apply(state: StudyState, record: dict[str, Any], path: Path, number: int) -> None:
    try:
        apply(state, record)
    except InputError as error:
        raise InputError(f"{path}, line {number}: {error} Restore the file from a copy.") from None


def _check_names(record: dict[str, Any], path: Path, number: int) -> None:
    try:
        check_names(record)
    except InputError as error:
        raise InputError(f"{path}, line {number}: {error} Restore the file from a copy.") from None


def _state_of_header(lines: list[bytes], path: Path) -> StudyState:
    header = _decode(lines[0]) if lines else None
    if header is None or header.get("event") != "header":
        raise InputError(f"{path}: `line 1 is a study's header` must hold, but it is damaged.")
    if header["format"] != FORMAT:
        raise InputError(
            f"{path}: `format == {FORMAT}` must hold, but got format={header['format']!r}. Use the "
            f"version of synq-tune that made it: {header.get('created_by')}."
        )
    _check_names(header, path, 1)
    try:
        return StudyState(StudySpec.model_validate(header["spec"]), header)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: line 1, spec.{where}: {first['msg']}.") from error


def _dump(spec: StudySpec) -> dict[str, Any]:
    """A spec as it is read back from JSON."""
    return json.loads(spec.model_dump_json(by_alias=True))


def _header(spec: StudySpec, info: dict[str, Any]) -> dict[str, Any]:
    return {
        "event": "header",
        "at": time.time(),
        "format": FORMAT,
        "id": uuid.uuid4().hex,
        "name": spec.name,
        "spec": _dump(spec),
        "created_by": package_versions(),
        **info,
    }


def package_versions() -> dict[str, str]:
    """Versions of the installed `PACKAGES`, read without importing them."""
    versions = {}
    for name in PACKAGES:
        # An absent one is no error here: what needs it will say so.
        found = next(iter(metadata.distributions(name=name)), None)
        if found is not None:
            versions[name] = found.version
    return versions


def _check_unused(folder: Path) -> None:
    """Refuse to mix a study with other files; a lock and what a killed `create` left are ours."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"`the study's folder is a folder` must hold, but got {folder}.")
    files = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    foreign = [f for f in files if f != LOCK_NAME and not f.startswith(f".{LEDGER_NAME}.")]
    if foreign:
        raise InputError(
            f"`a new study's folder is empty` must hold, but {folder} holds "
            f"{counted(len(foreign), 'other file')}, {foreign[0]!r} among them. Choose another --output-dir."
        )


def _check_optuna(header: dict[str, Any], path: Path) -> None:
    made_by = header["created_by"].get("optuna", "")
    installed = package_versions().get("optuna", "")
    if made_by.partition(".")[0] != installed.partition(".")[0]:
        raise InputError(
            f"{path}: `a study keeps Optuna's major version` must hold, but it began with "
            f"{made_by or 'none'} and {installed or 'none'} is installed. Install "
            f"optuna=={made_by or 'none'}."
        )
