"""The ``ferlib`` command: one word for each thing a reader does outside the notebooks."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module

from ferlib import __version__

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    An error of the library's own kinds is one line on standard error and exit code 1; a wrong command line
    gives 2; Ctrl-C 130. Where the reader of a pipe closes it early (``ferlib doctor | head``) the command
    ends quietly.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser(words[0] if words else None).parse_args(words)
    options.typed = shlex.join(["ferlib", *words])  # result records say what was typed
    try:
        code = options.run(options)
        sys.stdout.flush()  # a closed pipe shows here, not when Python ends
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python prints it once more
        return 0
    except (ValueError, RuntimeError) as error:
        if not type(error).__module__.startswith("ferlib."):
            raise  # not one of ours: a defect, whose traceback is needed
        print(f"ferlib {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nferlib {options.command}: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
