"""What the doctor says about one thing, and how all of it is printed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

MARKS = {"ok": "ok", "missing": "--", "odd": "??", "broken": "!!"}
WIDTH = 100


@dataclass
class Finding:
    """One thing the doctor found.

    ``status``: "ok"; "missing" (not needed by everybody); "odd" (works, but look at it); "broken" (was
    named, does not work). ``lines``: details below it. ``advice``: the one thing to do.

    Shape: texts.
    """

    section: str
    status: str
    what: str
    text: str
    advice: str = ""
    lines: list[str] = field(default_factory=list)


def render(findings: Sequence[Finding]) -> str:
    """Findings as aligned text, at most 100 columns where words allow it. Shape: list -> text."""
    lines: list[str] = []
    indent = " " * 10
    for number, finding in enumerate(findings):
        if number == 0 or finding.section != findings[number - 1].section:
            lines += [*([""] if lines else []), finding.section]
        width = max(len(f.what) for f in findings if f.section == finding.section)
        head = f"  {MARKS[finding.status]}  {finding.what:<{width}}  "
        lines.append(head + finding.text)
        lines += [indent + line for line in finding.lines]
        if finding.advice:
            width = 10_000 if " --" in finding.advice else WIDTH  # a command stays in one line, to be copied
            start, after = indent + "-> ", indent + "   "
            lines += textwrap.wrap(
                finding.advice, width, initial_indent=start, subsequent_indent=after,
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
    worst = [f.what for f in findings if f.status == "broken"]
    lines += ["", f"{len(worst)} broken: {', '.join(worst)}" if worst else "Nothing is broken."]
    return "\n".join(lines)
