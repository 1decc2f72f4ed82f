"""The ``ferlib`` command: one word for each thing a reader does outside the notebooks."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module

from ferlib import __version__
from ferlib.errors import FerlibError, printable

ISSUES = "https://github.com/fer-transformers/fer-book/issues"

#: Subcommands in the order `ferlib --help` lists them, and what each does. ``ferlib.commands.<name>`` holds
#: its ``add_arguments(parser)`` and ``run(options)``, and is imported only when it is called.
COMMANDS = {
    "prepare": "turn a downloaded data set into one compact, checked folder",
    "train": "train a network as a recipe says",
    "evaluate": "measure a trained network, with confidence intervals",
    "export": "write a trained network as one ONNX file that runs without torch",
    "predict": "read the expressions in pictures of your own",
    "convert": "turn weights of the original programs into files of this library",
    "doctor": "say what is here, what is missing, and what to do about it",
}


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The parser; only the chosen subcommand knows its options."""
    parser = argparse.ArgumentParser(
        prog="ferlib",
        description="Facial expression recognition with transformers: data, training, measuring.",
    )
    parser.add_argument("--version", action="version", version=f"ferlib {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == chosen:
            module = import_module(f"ferlib.commands.{name}")
            sub.description = module.__doc__
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


#: What a command line, a file, a disk, a permission or too little memory can cause: one line, exit status 1.
#: The kinds of the library's own errors are all of the first; anything else is a defect of the library.
CAUGHT = (FerlibError, OSError, MemoryError, RecursionError)  # the last: a file of a thousand brackets


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: what the command gives; 1 after an error of ``CAUGHT``, which is one line on standard
        error; 130 after Ctrl-C. A wrong command line ends with 2. Where the reader of a pipe closes it early
        (``ferlib doctor | head``) the command ends quietly.

    Raises:
        Exception: Anything else, with a note that it is a defect.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for at in range(len(words) - 1, 0, -1):
        if words[at - 1] == "--box" and words[at].startswith("-"):  # argparse takes -10,20,.. for an option
            words[at - 1 : at + 1] = [f"--box={words[at]}"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    options = build_parser(words[0] if words else None).parse_args(words)
    options.typed = shlex.join(["ferlib", *words])  # result records say what was typed
    try:
        code = options.run(options)
        sys.stdout.flush()  # a closed pipe or a full disk shows here, not when Python ends
        return code
    except BrokenPipeError:
        _drop_output()
        return 0
    except KeyboardInterrupt:
        print(f"\nferlib {options.command}: stopped", file=sys.stderr)
        return 130
    except CAUGHT as error:
        print(f"ferlib {options.command}: {one_line(error)}", file=sys.stderr)
        if isinstance(error, OSError):
            _drop_output()
        return 1
    except Exception as error:
        error.add_note(
            f"This is a defect of ferlib {__version__}, not of your files. Please report it: {ISSUES}"
        )
        raise


def one_line(error: BaseException) -> str:
    """What an error says, as one line without control characters."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return printable(f"{os.fsdecode(error.filename)}: {error.strerror}")
    return printable(" ".join(str(error).split()) or type(error).__name__)


def _drop_output() -> None:
    """What is left of the output goes nowhere, or Python prints the error once more when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
