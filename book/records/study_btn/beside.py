"""The first part's scripts, from which this one takes its faces, contrasts, rows and queue."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.append(str(REPOSITORY / "book" / "records" / "study"))
