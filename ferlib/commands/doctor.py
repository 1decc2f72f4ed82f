"""Say what is here: Python, torch, GPU, disk, data sets, weights; and for what is missing or odd the one
thing to do.

  ferlib doctor
  ferlib doctor --data ~/FERPlus --weights ~/weights
  ferlib doctor --data ~/FERPlus --every      opens every image, not some of each split

Exit code 0, or 1 if something that was named (by an option or by FERLIB_DATA) is broken.
"""

from __future__ import annotations

import argparse

from ferlib.doctor import examine, render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib doctor``."""
    add = parser.add_argument
    add("--data", action="append", metavar="PATH", help="folder with a data set (can be repeated)")
    add("--weights", action="append", metavar="PATH", help="checkpoint, or folder of checkpoints")
    add("--every", action="store_true", help="open every image of the data sets, and name each damaged one")


def run(options: argparse.Namespace) -> int:
    """Examine and print; return the exit code."""
    findings = examine(data=options.data, weights=options.weights, every=options.every)
    print(render(findings))
    return int(any(finding.status == "broken" for finding in findings))
