"""Open a weights file of any of the usual kinds, without executing anything that stands in it.

Official checkpoints are often whole records of a training run: besides the weights they hold counters,
settings and objects of classes that exist only in the training program. torch's careful reader
(``weights_only=True``) comes first; where it refuses such a file, the reader of
:mod:`ferlib.models.inert_pickle` takes the tensors out and leaves the rest as inert names. Chapter 6.
"""

from __future__ import annotations

import math
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ferlib.models.inert_pickle import InertError, InertReader, Name
from ferlib.models.official import CheckpointError, state_dict_in
from ferlib.models.tfjs import read_tfjs

MAGIC = 0x1950A86A20F9469CFC6C  # how torch begins its older format
DTYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool,
}  # fmt: skip


class StateDict(dict):
    """Names to tensors; ``inert`` lists the classes that the file named and that were not run.

    Shape: a dict of tensors of any shape.
    """

    inert: tuple[str, ...] = ()


def read_official(path: str | Path) -> StateDict:
    """The state dict in a file of weights, whatever program wrote it; nothing in the file is executed.

    Takes safetensors, torch's two formats (``.pth``, ``.pt``, ``.pth.tar``, ``.ckpt``) and models of
    TensorFlow.js (``.json``); wrappers and the
    ``module.`` prefix come off. Tensors lie in main memory.

    Shape: a path -> names to tensors of any shape, and ``inert``, the classes that were not run.
    Raises: ``CheckpointError`` for a file that is missing, truncated, of another kind, that claims more data
    than it holds, or in which there is no state dict. Chapter 6.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: give the path of a weights file")
    content, inert = _content(path)
    try:
        found = StateDict(state_dict_in(content))
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from None
    if not found:
        raise CheckpointError(f"{path.name} holds an empty state dict: nothing to load")
    found.inert = inert
    return found


def _content(path: Path) -> tuple[Any, tuple[str, ...]]:
    if path.suffix == ".json":
        return read_tfjs(path), ()
    if path.suffix == ".safetensors":
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {path.name}: {error}; take the file anew") from error
        return {name: t for name, t in tensors.items() if not name.startswith("state/")}, ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its older formats
            return torch.load(path, map_location="cpu", weights_only=True), ()
    except Exception:  # refused or damaged: torch says so in many ways; the inert reader tells which
        try:
            return read_inert(path)
        except Exception as error:  # damage shows in archive, names, numbers: all of it is one message
            why = str(error) or type(error).__name__
            raise CheckpointError(f"cannot read {path.name}: {why}") from error


def read_inert(path: str | Path) -> tuple[Any, tuple[str, ...]]:
    """What a torch file describes, read by the inert reader alone, and the class names it left inert.

    Shape: a path -> (nested dictionaries with tensors, names). Raises: ``InertError`` and ``OSError``.
    """
    with open(path, "rb") as file:
        start = file.read(4)
        file.seek(0)
        if start[:2] == b"PK":
            return _read_zip(file)
        if start[:1] == b"\x80":
            return _read_legacy(file)
    raise InertError("it is neither safetensors nor a file that torch saved; is it the whole download?")


@dataclass
class _Storage:
    """Numbers of one kind, promised by the pickle and read from the file when a tensor needs them."""

    dtype: torch.dtype
    key: str
    count: int


@dataclass
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Bounded:
    """A file that reads no more than there is, whatever length a damaged pickle claims."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.readline, self.tell = file, file.readline, file.tell
        self.end = file.seek(0, 2)
        file.seek(0)

    def read(self, count: int) -> bytes:
        return self.file.read(max(0, min(count, self.end - self.file.tell())))


class _TorchReader(InertReader):
    """The inert reader with the few answers that torch's files need; ``storages`` collects what they name."""

    def __init__(self) -> None:
        super().__init__(_rebuild, self._storage)
        self.storages: dict[str, _Storage] = {}

    def _storage(self, key: Any) -> _Storage:
        """A persistent id: ("storage", class, key, device, count); old files may add a view's place."""
        if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage" or not isinstance(key[1], Name):
            raise InertError("the pickle refers to something that is no storage")
        kind = key[1].name.rpartition(".")[2].removesuffix("Storage")
        if kind not in DTYPES or type(key[4]) is not int or key[4] < 0:
            raise InertError(f"a storage is of the unknown kind {key[1].name!r}")
        if len(key) > 5 and key[5] is not None:
            raise InertError("a storage is a view of another, as only very old files have it")
        return self.storages.setdefault(str(key[2]), _Storage(DTYPES[kind], str(key[2]), key[4]))


def _rebuild(name: str, arguments: tuple) -> Any:
    """The few calls that are answered, by our own hands: tensors, their shapes, ordered dictionaries."""
    if name == "collections.OrderedDict":
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
        return dict(p for p in pairs if isinstance(p, list | tuple) and len(p) == 2 and isinstance(p[0], str))
    if name == "torch.Size":
        return tuple(arguments[0]) if arguments and isinstance(arguments[0], list | tuple) else ()
    if name == "torch._utils._rebuild_parameter" and arguments and isinstance(arguments[0], _Tensor):
        return arguments[0]
    if name not in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        return NotImplemented
    if len(arguments) < 4 or not isinstance(arguments[0], _Storage):
        return NotImplemented
    storage, offset, size, stride = arguments[:4]
    numbers = [offset, *size, *stride]
    if any(type(n) is not int or not 0 <= n < 2**48 for n in numbers) or len(size) != len(stride):
        raise InertError("a tensor has an impossible shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and (last >= storage.count or math.prod(size) > storage.count):
        raise InertError("a tensor is larger than its stored numbers")
    return _Tensor(storage, offset, tuple(size), tuple(stride))


def _read_zip(file: BinaryIO) -> tuple[Any, tuple[str, ...]]:
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if "data.pkl" not in entries:
            raise InertError("it is a zip archive that torch did not write (no data.pkl in it)")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise InertError("its parts are compressed; torch stores them plain")
        if sum(entry.file_size for entry in entries.values()) > size:
            raise InertError("its parts claim more than the file holds")

        def part(name: str) -> bytes:
            if name not in entries:
                raise InertError(f"its part {name!r} is not there")
            return archive.read(entries[name])

        if "byteorder" in entries and part("byteorder").decode("ascii", "replace") != sys.byteorder:
            raise InertError("it was written on a machine with another byte order")
        reader = _TorchReader()
        content = reader.read(BytesIO(part("data.pkl")))
        return _filled(content, lambda storage: part(f"data/{storage.key}")), _inert(reader)


def _read_legacy(file: BinaryIO) -> tuple[Any, tuple[str, ...]]:
    """Five pickles one after the other (magic number, version, machine, content, keys), then the numbers."""
    reader, bounded = _TorchReader(), _Bounded(file)
    if reader.read(bounded) != MAGIC:
        raise InertError("it is a pickle that torch did not write")
    reader.read(bounded)  # the format's version
    machine = reader.read(bounded)
    if isinstance(machine, dict) and machine.get("little_endian", True) != (sys.byteorder == "little"):
        raise InertError("it was written on a machine with another byte order")
    content, keys = reader.read(bounded), reader.read(bounded)
    if not isinstance(keys, list) or not all(key in reader.storages for key in map(str, keys)):
        raise InertError("its list of storages does not fit its content")
    here, end = file.tell(), bounded.end
    places = {}
    for key in map(str, keys):
        length = reader.storages[key].count * reader.storages[key].dtype.itemsize
        places[key] = here + 8, length  # eight bytes repeat the count
        here += 8 + length
    if here > end:
        raise InertError(f"it is truncated: {here - end} bytes of its numbers are not there")

    def numbers(storage: _Storage) -> bytes:
        if storage.key not in places:
            raise InertError("a tensor's storage is not in the file")
        start, length = places[storage.key]
        file.seek(start)
        return file.read(length)

    return _filled(content, numbers), _inert(reader)


def _filled(content: Any, read: Callable[[_Storage], bytes]) -> Any:
    """The content with tensors in the place of their descriptions, in dictionaries of dictionaries."""
    numbers: dict[str, torch.Tensor] = {}
    seen: dict[int, Any] = {}

    def tensor(found: _Tensor) -> torch.Tensor:
        storage = found.storage
        if storage.key not in numbers:
            data = bytearray(read(storage))
            if len(data) < storage.count * storage.dtype.itemsize:
                raise InertError("it is truncated: a storage holds fewer numbers than it claims")
            empty = torch.empty(0, dtype=storage.dtype)
            numbers[storage.key] = (
                torch.frombuffer(data, dtype=storage.dtype, count=storage.count) if storage.count else empty
            )
        return numbers[storage.key].as_strided(found.size, found.stride, found.offset)

    def fill(value: Any, depth: int) -> Any:
        if isinstance(value, _Tensor):
            return tensor(value)
        if not isinstance(value, dict) or depth == 0:
            return value
        if id(value) not in seen:
            seen[id(value)] = {key: fill(entry, depth - 1) for key, entry in value.items()}
        return seen[id(value)]

    return fill(content, 3)


_OWN = ("collections.OrderedDict", "torch._utils._rebuild", "torch.Size")


def _inert(reader: _TorchReader) -> tuple[str, ...]:
    """The names in the file that nothing here stands for."""
    kinds = {f"torch.{kind}Storage" for kind in DTYPES}
    return tuple(sorted(n for n in reader.names if n not in kinds and not n.startswith(_OWN)))
