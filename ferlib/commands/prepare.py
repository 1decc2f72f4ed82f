"""Turn a downloaded data set into one compact, checked folder that trains fast.

  ferlib prepare ferplus --source ~/FERPlus --out ~/faces/ferplus
  ferlib prepare rafdb --source ~/RAF-DB --out ~/faces/rafdb
  ferlib prepare ferplus --source ~/FERPlus --out ~/faces/ferplus384 --upscale 8 --method lanczos
  ferlib prepare ferplus --source ~/FERPlus --out ~/faces/ferplus384 --upscale 8 --method dic \\
      --weights DIC_HELEN.pth                  (a network: slow without a GPU)

Stopped in the middle, the same command goes on where it was. Faces that cannot be used are counted, told,
and listed with their reasons in OUT/skipped.csv. Copies of a picture within and across splits are counted;
--twins drop-across leaves those out of the training split that have a copy in another split.

--json prints one object: folder, faces by split, what was left out and why, twins, size.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from ferlib.data.base import DataError
from ferlib.data.prepare import DATASETS, METHODS, PrepareReport, prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib prepare``."""
    parser.add_argument("dataset", choices=list(DATASETS), help="which data set it is")
    parser.add_argument(
        "--source", required=True, metavar="DIR", help="folder as downloaded, in any known layout"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--splits", nargs="+", metavar="SPLIT", help="train, valid, test (default: all there are)"
    )
    parser.add_argument(
        "--upscale", type=int, default=1, metavar="N", help="enlarge N times (default 1: not at all)"
    )
    parser.add_argument("--method", default="bicubic", help=f"{', '.join(METHODS)}, dic (default bicubic)")
    parser.add_argument("--weights", metavar="FILE", help="weights of a learned method (dic: DIC_HELEN.pth)")
    parser.add_argument(
        "--twins",
        choices=("keep", "drop-across"),
        default="keep",
        help="drop-across: leave out of train what has a copy, exact or nearly so, in another split",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="decoding threads (default: one per processor)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON: folder, faces, what was left out, twins, size"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    """Prepare, and print what was done and what was left out."""
    try:
        report = prepare(
            options.dataset,
            options.source,
            options.out,
            splits=options.splits,
            upscale=options.upscale,
            method=_method(options.method, options.weights),
            twins=options.twins,
            workers=options.workers,
            progress=not options.quiet,
        )
    except KeyboardInterrupt:
        print("\nThe same command goes on where this one stopped.", file=sys.stderr)
        raise
    print(json.dumps(_plain(report), indent=1) if options.json else report)
    return 0


def _plain(report: PrepareReport) -> dict[str, Any]:
    """What --json prints."""
    side = report.manifest["shape"][1]
    return {
        "folder": str(report.out),
        "dataset": report.manifest["dataset"],
        "layout": report.manifest["layout"],
        "classes": report.manifest["classes"],
        "faces": report.counts,
        "left_out": {s: dict(Counter(one.reason for one in report.skipped[s])) for s in report.skipped},
        "twins": report.manifest["twins"],
        "size": side,
        "already": report.already,
    }


def _method(name: str, weights: str | None) -> str | Callable[..., Tensor]:
    if weights is not None and not Path(weights).is_file():
        raise DataError("the weights file is not there", weights)
    if name == "dic":
        from ferlib.weights import dic_upscaler  # networks are loaded only where they are needed

        try:
            return dic_upscaler(weights)
        except ValueError as error:
            raise DataError(str(error)) from None
    if weights is not None:
        raise DataError(f"method {name!r} takes no weights; leave --weights {weights} out")
    return name
