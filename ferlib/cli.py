"""The ``ferlib`` command: one word for each thing a reader does outside the notebooks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from ferlib import __version__
from ferlib.data.base import DataError

#: Subcommands in the order `ferlib --help` lists them: name -> module with ``SUMMARY``, ``add_arguments``,
# ``run``.
COMMANDS = {
    "prepare": "ferlib.commands.prepare",
    "train": "ferlib.commands.train",
    "evaluate": "ferlib.commands.evaluate",
    "doctor": "ferlib.commands.doctor",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands. Shape: nothing in, ``argparse.ArgumentParser`` out."""
    parser = argparse.ArgumentParser(
        prog="ferlib",
        description="Facial expression recognition with transformers: data, training, measuring.",
    )
    parser.add_argument("--version", action="version", version=f"ferlib {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = import_module(module)
        sub = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=command.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Errors about data or values are one line on standard error and exit code 1; a wrong command line gives
    2; Ctrl-C 130.

    Shape: list of words (default: the command line) -> exit code.
    """
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options)
    except DataError as error:
        print(f"ferlib {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nferlib {options.command}: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
