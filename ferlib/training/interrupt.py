"""Ctrl-C heard at a good moment: the step is finished, then the run is saved and stops. Chapter 6."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any


class Interrupt:
    """While it is entered, Ctrl-C (and SIGTERM, which clusters send) only asks; ``asked`` says whether.

    A second Ctrl-C stops at once, unless it comes within a second: ``torchrun`` sends its processes another
    one behind the terminal's. A signal that was ignored before stays so, and where signals cannot be caught
    (a thread) they do what they did. Shape: ``with Interrupt() as stop``. Chapter 6.
    """

    asked = False
    heard = 0.0

    def __enter__(self) -> Interrupt:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            if number == signal.SIGINT and time.monotonic() - self.heard > 1:
                raise KeyboardInterrupt("stopped at once; go on from the last checkpoint with resume=True")
            return
        self.asked, self.heard = True, time.monotonic()
        os.write(2, b"\nfinishing this step, then saving; once more stops at once\n")
