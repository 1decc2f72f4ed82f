"""Say what is here: Python, torch, GPU, disk, data sets, weights; and for what is missing or odd the one
thing to do.

  ferlib doctor
  ferlib doctor --data ~/FERPlus --weights ~/weights
  ferlib doctor --data ~/FERPlus --every      opens every image, not some of each split
  ferlib doctor --json                        a list of findings: section, status, what, text, advice, lines

Where a folder holds no data set in a known layout, near misses are named: "found X, needs Y". Exit status 0,
or 1 if something that was named (by an option or by FERLIB_DATA) is broken.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from ferlib.doctor import examine, render
from ferlib.errors import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib doctor``."""
    add = parser.add_argument
    add("--data", action="append", metavar="PATH", help="folder with a data set (can be repeated)")
    add("--weights", action="append", metavar="PATH", help="checkpoint, or folder of checkpoints")
    add("--every", action="store_true", help="open every image of the data sets, and name each damaged one")
    add("--json", action="store_true", help="print the findings as JSON")


def run(options: argparse.Namespace) -> int:
    """Examine and print; return the exit status."""
    findings = examine(data=options.data, weights=options.weights, every=options.every)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        print(*map(printable, render(findings).splitlines()), sep="\n")
    return int(any(finding.status == "broken" for finding in findings))
