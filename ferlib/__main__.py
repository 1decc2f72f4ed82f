"""``python -m ferlib`` is the ``ferlib`` command; ``torchrun -m ferlib`` starts it in several processes."""

from __future__ import annotations

import sys

from ferlib.cli import main

if __name__ == "__main__":
    sys.exit(main())
