"""Read a pickle without running it: a machine that has no instruction to call anything.

A pickle is a program for a small stack machine, and the usual reader obeys it: it imports what the file names
and calls it. This reader follows the same program with other hands. It keeps a stack and a memo, builds
dictionaries, lists and numbers, and where the file says "import", "call" or "set the state of", it writes
down that this was said: an ``Inert`` remembers the name, the arguments and the state, and is nothing else.
Only ``pickletools.genops`` of the standard library touches the bytes; it decodes, and does not execute.
Chapter 6 shows what a hostile file tries, and what becomes of it.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO


class InertError(ValueError):
    """A pickle that is damaged or that no program of good faith writes. Shape: one message string."""


@dataclass(eq=False)
class Inert:
    """Something the file wanted to be made: its dotted ``name``, the ``arguments`` and the ``state`` given.

    ``items`` holds what was put into it like into a list or a dictionary. Nothing of that name was looked up.
    Shape: whatever the file gave.
    """

    name: str
    arguments: tuple = ()
    state: list[Any] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Name:
    """A class or function that the file names: a string, not looked up. Shape: one string."""

    name: str


_MARK = object()
_CONSTANTS = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,  # a set would hash what the file gives, which can be made to take for ever
}  # fmt: skip
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_NOTHING = {"PROTO", "FRAME", "READONLY_BUFFER"}

Rebuild = Callable[[str, tuple], Any]


class InertReader:
    """Follow one pickle and return what it describes.

    ``rebuild(name, arguments)`` may answer a call for a name it knows (torch's tensors) and gives
    ``NotImplemented`` for all others, which become ``Inert``. ``persistent(key)`` answers persistent ids.
    ``names`` collects every name that the file asked for.

    Shape: an open binary file -> nested dictionaries, lists, tuples, numbers, text, ``Inert``, and what
    ``rebuild`` made. The file is left behind the pickle's end.
    Raises: ``InertError`` where the program is damaged.
    """

    def __init__(self, rebuild: Rebuild, persistent: Callable[[Any], Any]) -> None:
        self.rebuild, self.persistent = rebuild, persistent
        self.names: set[str] = set()

    def read(self, file: BinaryIO) -> Any:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        try:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "STOP":
                    return self._pop()
                self._step(opcode.name, argument)
        except InertError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise InertError(f"the pickle is damaged ({type(error).__name__}: {str(error)[:80]})") from error
        raise InertError("the pickle has no end")

    def _step(self, code: str, argument: Any) -> None:
        stack = self.stack
        if code in _LITERALS:
            stack.append(argument)
        elif code in _CONSTANTS:
            constant = _CONSTANTS[code]
            stack.append(constant() if isinstance(constant, type) else constant)
        elif code == "MARK":
            stack.append(_MARK)
        elif code in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = stack[-1]
        elif code == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif code in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[int(argument)])
        elif code == "POP":
            stack.pop()
        elif code == "POP_MARK":
            self._to_mark()
        elif code == "DUP":
            stack.append(stack[-1])
        elif code in ("TUPLE", "LIST"):
            items = self._to_mark()
            stack.append(tuple(items) if code == "TUPLE" else items)
        elif code in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(code[-1])
            items = tuple(self._pop() for _ in range(count))[::-1]
            stack.append(items)
        elif code in ("DICT", "FROZENSET"):
            items = self._to_mark()
            stack.append(_pairs({}, items) if code == "DICT" else items)
        elif code in ("APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS"):
            self._fill(code)
        elif code in ("PERSID", "BINPERSID"):
            stack.append(self.persistent(argument if code == "PERSID" else self._pop()))
        elif code in ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD"):
            self._said(code, argument)
        elif code not in _NOTHING:
            raise InertError(f"the pickle uses {code}, which no saved state dict needs")

    def _said(self, code: str, argument: Any) -> None:
        """Where a usual reader imports, calls or sets state."""
        stack = self.stack
        if code == "GLOBAL":
            stack.append(self._name(argument.replace(" ", ".", 1)))
        elif code == "STACK_GLOBAL":
            name, module = self._pop(), self._pop()
            stack.append(self._name(f"{module}.{name}"))
        elif code == "INST":
            arguments = tuple(self._to_mark())
            stack.append(self._called(self._name(argument.replace(" ", ".", 1)), arguments))
        elif code == "OBJ":
            called, *arguments = self._to_mark()
            stack.append(self._called(called, tuple(arguments)))
        elif code == "BUILD":
            state = self._pop()
            if isinstance(stack[-1], Inert):  # the state of anything else (an ordered dict) is of no use
                stack[-1].state.append(state)
        else:
            keywords = self._pop() if code == "NEWOBJ_EX" else {}
            arguments, called = self._pop(), self._pop()
            made = self._called(called, arguments if isinstance(arguments, tuple) else (arguments,))
            if keywords and isinstance(made, Inert):
                made.state.append(keywords)
            stack.append(made)

    def _name(self, name: str) -> Name:
        name = "".join(c if c.isprintable() else "?" for c in name)[:200]  # it may end up on a terminal
        self.names.add(name)
        return Name(name)

    def _called(self, called: Any, arguments: tuple) -> Any:
        if not isinstance(called, Name):
            return Inert("a value that is no class", arguments)
        made = self.rebuild(called.name, arguments)
        return Inert(called.name, arguments) if made is NotImplemented else made

    def _fill(self, code: str) -> None:
        if code == "SETITEM":
            value, key = self._pop(), self._pop()
            items = [key, value]
        else:
            items = [self._pop()] if code == "APPEND" else self._to_mark()
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.items += items
        elif isinstance(target, list) and code in ("APPEND", "APPENDS", "ADDITEMS"):
            target += items
        elif isinstance(target, dict) and code in ("SETITEM", "SETITEMS"):
            _pairs(target, items)
        else:
            raise InertError(f"the pickle wants to fill a {type(target).__name__}")

    def _pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise InertError("the pickle takes a mark for a value")
        return value

    def _to_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise InertError("the pickle has no mark where it needs one")


def _pairs(target: dict, items: list[Any]) -> dict:
    if len(items) % 2:
        raise InertError("the pickle has a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        plain = key is None or isinstance(key, str | int | float | bytes)
        target[key if plain else Inert("a key that is no text")] = value
    return target
