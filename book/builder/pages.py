"""What the front page and the status page say about this very build: results, chapters, versions, times."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from sphinx.application import Sphinx

from book.builder import glance, mathjax
from book.builder.generated import Generated
from book.builder.notebooks import ROOT, chapters, fresh_record, open_cache
from ferlib import files

NBSP = "\u00a0"  # a number and its unit stay on one line
WORDS_A_MINUTE = 200
CODE_LINES_A_MINUTE = 15
VERSIONS = (
    "ferlib",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scikit-learn",
    "scipy",
    "torchmetrics",
    "grad-cam",
    "matplotlib",
    "anywidget",
    "jupyter-book",
    "sphinx",
    "myst-nb",
    "sphinx-book-theme",
    "jupyter-cache",
)


def title(path: Path) -> str:
    """The first heading of a chapter."""
    for cell in nbformat.read(path, as_version=4).cells:
        if found := re.match(r"# (.+)", cell.source):
            return found[1]
    raise ValueError(f"{path.name} has no heading")


def reading_minutes(path: Path) -> int:
    """Minutes to read a chapter: its words at 200 a minute, its lines of code at 15, to the next five."""
    words = lines = 0
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            words += len(cell.source.split())
        elif "hide-cell" not in cell.metadata.get("tags", []):
            lines += sum(bool(line.strip()) for line in cell.source.splitlines())
    return 5 * max(1, round((words / WORDS_A_MINUTE + lines / CODE_LINES_A_MINUTE) / 5))


def runs() -> dict[str, tuple[float, datetime]]:
    """Seconds that each chapter took when it was executed for this build, and when that was (UTC)."""
    cache, found = open_cache(), {}
    for path in chapters():
        if record := fresh_record(path, cache):
            found[path.stem] = (float(record.data["execution_seconds"]), record.created)
    return found


def _time(seconds: float) -> str:
    return f"{seconds:.0f}{NBSP}s" if seconds < 90 else f"{seconds / 60:.1f}{NBSP}min"


class Glance(Generated):
    """``{glance}``: the results at a glance."""

    def markdown(self) -> str:
        return glance.table("results")


class Findings(Generated):
    """``{findings}``: what the book found, in three sentences with their intervals."""

    def markdown(self) -> str:
        return glance.findings()


class ChapterMap(Generated):
    """``{chapter-map}``: each chapter with its question, minutes to read and time to run.

    The directive's lines are ``01_data_preparation: What is in the data sets?``.
    """

    has_content = True

    def markdown(self) -> str:
        questions = dict(line.split(": ", 1) for line in self.content if line.strip())
        lines = ["| chapter | question | read | run |", "| --- | --- | --- | --- |"]
        done = runs()
        for path in chapters():
            number = path.stem.split("_")[0].lstrip("0")  # 1 to 9, then A1, A2
            heading = title(path).removeprefix("Appendix: ").split(":")[0]
            ran = _time(done[path.stem][0]) if path.stem in done else "–"
            lines.append(
                f"| [{number} {heading}](../notebooks/{path.stem}) | {questions.pop(path.stem, '')} "
                f"| {reading_minutes(path)}{NBSP}min | {ran} |"
            )
        if questions:
            raise self.error(f"no chapter is called {', '.join(questions)}")
        return "\n".join(lines)


def _source() -> str:
    git = ["git", "-C", str(ROOT)]
    done = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if done.returncode:
        return "not under version control"
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout.strip()
    return done.stdout.strip() + (", with changes that are not committed" if changed else "")


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


class BuildStatus(Generated):
    """``{build-status}``: how this copy of the book was made."""

    def markdown(self) -> str:
        done = runs()
        faces = "the reader's own (`FERLIB_DATA`)" if files.place("FERLIB_DATA") else "synthetic"
        local = (mathjax.FOLDER / mathjax.SCRIPT).exists()
        facts = {
            "built": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "source": _source(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
            "Python": platform.python_version(),
            "faces": faces,
            "equations": "set by the book's own MathJax" if local else "set by a public MathJax server",
            "chapters": f"{len(done)} executed, {_time(sum(seconds for seconds, _ in done.values()))} in all",
        }
        lines = ["## This build", "", "| what | here |", "| --- | --- |"]
        lines += [f"| {name} | {value} |" for name, value in facts.items()]
        lines += ["", "## Chapters", "", "| chapter | executed | took |", "| --- | --- | --- |"]
        for path in chapters():
            link = f"[{title(path)}](../notebooks/{path.stem})"
            if path.stem in done:
                seconds, when = done[path.stem]
                lines.append(f"| {link} | {when:%Y-%m-%d %H:%M} UTC | {_time(seconds)} |")
            else:
                lines.append(f"| {link} | by Jupyter Book itself | not measured |")
        lines += ["", "## Versions", "", "| package | version |", "| --- | --- |"]
        lines += [f"| {name} | {_installed(name)} |" for name in VERSIONS]
        return "\n".join(lines)


class Records(Generated):
    """``{records}``: every record of measurements, with its date and what it holds."""

    def markdown(self) -> str:
        lines = ["| record | what was measured | made |", "| --- | --- | --- |"]
        for path in sorted(glance.RESULTS.glob("*.json")):
            record = glance.record(path.stem)
            what = " ".join(record.what.split()).replace("|", r"\|")
            made = record.date[:10].replace("-", "\u2011")  # a date is not broken
            lines.append(f"| [{path.stem}](results/{path.name}) | {what} | {made} |")
        return "\n".join(lines)


class Commands(Generated):
    """``{commands}``: the help of ``ferlib`` and of each of its subcommands."""

    def markdown(self) -> str:
        from ferlib.cli import COMMANDS, main

        lines = []
        for name in ("", *COMMANDS):
            printed = io.StringIO()
            os.environ["COLUMNS"] = "84"  # argparse breaks its lines there
            with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
                main([name, "--help"] if name else ["--help"])
            lines += [f"## ferlib {name}".rstrip(), "", "```text", printed.getvalue().rstrip(), "```", ""]
        return "\n".join(lines)


def setup(app: Sphinx) -> None:
    """Register the directives."""
    for name, directive in (
        ("glance", Glance),
        ("findings", Findings),
        ("chapter-map", ChapterMap),
        ("build-status", BuildStatus),
        ("records", Records),
        ("commands", Commands),
    ):
        app.add_directive(name, directive)
