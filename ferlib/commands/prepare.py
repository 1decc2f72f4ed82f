"""Turn a downloaded data set into one compact, checked folder that trains fast.

  ferlib prepare ferplus --source ~/FERPlus --out ~/faces/ferplus
  ferlib prepare rafdb --source ~/RAF-DB --out ~/faces/rafdb
  ferlib prepare ferplus --source ~/FERPlus --out ~/faces/ferplus384 --upscale 8 --method lanczos
  ferlib prepare ferplus --source ~/FERPlus --out ~/faces/ferplus384 --upscale 8 --method dic \\
      --weights DIC_HELEN.pth                  (a network: slow without a GPU)

Stopped in the middle, the same command goes on where it was. Faces that cannot be used are counted, told,
and listed with their reasons in OUT/skipped.csv.
"""

from __future__ import annotations

import argparse
import sys

from ferlib.data.prepare import DATASETS, prepare
from ferlib.data.superresolution import METHODS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib prepare``. Shape: parser in, nothing out."""
    parser.add_argument("dataset", choices=list(DATASETS), help="which data set it is")
    parser.add_argument(
        "--source", required=True, metavar="DIR", help="folder as downloaded, in any known layout"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--splits", nargs="+", metavar="SPLIT", help="train, valid, test (default: all there are)"
    )
    parser.add_argument("--size", type=int, metavar="PX", help="resize every face to this side first")
    parser.add_argument(
        "--upscale", type=int, default=1, metavar="N", help="enlarge N times (default 1: not at all)"
    )
    parser.add_argument("--method", default="bicubic", help=f"{', '.join(METHODS)} (default bicubic)")
    parser.add_argument("--weights", metavar="FILE", help="weights of a learned method (dic: DIC_HELEN.pth)")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="decoding threads (default: one per processor)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    """Prepare, and print what was done and what was left out. Shape: parsed options -> exit code. Raises
    DataError.
    """
    try:
        report = prepare(
            options.dataset,
            options.source,
            options.out,
            splits=options.splits,
            size=options.size,
            upscale=options.upscale,
            method=options.method,
            weights=options.weights,
            workers=options.workers,
            progress=not options.quiet,
        )
    except KeyboardInterrupt:
        print("\nThe same command goes on where this one stopped.", file=sys.stderr)
        raise
    print(report)
    return 0
