"""`python -m book.builder.handouts`: a handout of each chapter, with and without the solutions.

A handout is cut out of the built page: the question, the guess, every figure with its caption, and the
exercises with room to write. The copy whose name ends in `_solutions` has what the page folds away. Both are
HTML beside the book, set by its own MathJax, and print on plain paper.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

from bs4 import BeautifulSoup, Tag  # sphinx-book-theme brings it

from book.builder.notebooks import ROOT, chapters

HTML = ROOT / "_build" / "html"
FOLDER = "handouts"
LOOK = """
body { font: 11pt/1.45 system-ui, sans-serif; color: #111; background: #fff; max-width: 46rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2rem; }
figure { margin: 1.4rem 0; break-inside: avoid; } figure img { max-width: 100%; height: auto !important; }
figcaption { font-size: 0.9rem; } figcaption p { margin: 0.4rem 0; }
.guess { border: 1px solid #888; padding: 0.4rem 1rem; break-inside: avoid; }
.room { height: 7rem; border-bottom: 1px dotted #999; margin-bottom: 1.2rem; }
.solution { border-left: 3px solid #00795a; padding-left: 0.8rem; margin: 0.8rem 0; }
pre { font-size: 0.8rem; white-space: pre-wrap; } img, table { max-width: 100%; }
"""


def _text_of(part: Tag) -> Tag:
    """A part of a page without what only a screen needs: links to itself, buttons, toggles, dark figures."""
    for extra in part.select(".headerlink, button, summary, script, style, .in-the-dark"):
        extra.decompose()
    return part


def _is_solution(part: Tag) -> bool:
    classes = part.get("class") or []
    return "dropdown" in classes or "tag_hide-cell" in classes


def _exercises(section: Tag, solutions: bool) -> str:
    """The exercises of a chapter: each with room to write, or with its solution unfolded."""
    parts, lines = [p for p in section.find_all(recursive=False) if p.name not in ("h2", "span")], []
    for n, part in enumerate(parts):
        if not _is_solution(part):
            lines.append(str(_text_of(part)))
            last = n + 1 == len(parts) or _is_solution(parts[n + 1])
            if last and not solutions:
                lines.append('<div class="room"></div>')
        elif solutions:
            for folded in part.select("details"):
                folded.unwrap()
            lines.append(f'<div class="solution">{"".join(map(str, _text_of(part).contents))}</div>')
    return "\n".join(lines)


def handout(page: str, *, solutions: bool, number: str) -> str:
    """One handout as HTML, from the HTML of a chapter's page.

    Shape: text in, text out; ``number`` is the chapter's. Raises ``ValueError`` for a page without exercises.
    """
    article = BeautifulSoup(page, "html.parser").select_one("article.bd-article")
    section = article.select_one("section[id^=exercises]") if article else None
    if section is None:
        raise ValueError("the page has no section of exercises")
    title = _text_of(article.h1).get_text(" ", strip=True)
    question = next(
        (p for p in article.find_all("p") if p.get_text().lower().startswith(("the question", "question"))),
        None,
    )
    guess = next((a for a in article.select("div.admonition.tip") if "guess" in a.get_text().lower()), None)
    exercises = _exercises(section, solutions)
    figures = [
        str(_text_of(figure)) for figure in article.find_all("figure") if section not in figure.parents
    ]
    copy = "Handout with solutions" if solutions else "Handout"
    head = f"{escape(title)}: {copy.lower()}"
    parts = [f"<h1>{number}. {escape(title)}</h1>", f"<p>{copy}. The whole chapter is in the book.</p>"]
    parts += [str(_text_of(question))] if question else []
    parts += [f'<div class="guess">{"".join(map(str, _text_of(guess).contents))}</div>'] if guess else []
    parts += ["<h2>Figures</h2>", *figures, "<h2>Exercises</h2>", exercises]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{head}</title>\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<style>{LOOK}</style>\n"
        '<script defer src="../_static/mathjax/tex-chtml-full.js"></script></head>\n'
        "<body><main>\n" + "\n".join(parts) + "\n</main></body></html>\n"
    )


def make(html: Path = HTML) -> list[Path]:
    """Write two handouts a chapter into the folder ``handouts`` of the built book; return the files."""
    written = []
    for path in chapters():
        page = html / "notebooks" / f"{path.stem}.html"
        text = page.read_text(encoding="utf-8")
        for solutions, ending in ((False, ""), (True, "_solutions")):
            target = html / FOLDER / f"{path.stem}{ending}.html"
            target.parent.mkdir(exist_ok=True)
            target.write_text(
                handout(text, solutions=solutions, number=path.stem.split("_")[0].lstrip("0")),
                encoding="utf-8",
            )
            written.append(target)
    return written


def main() -> int:
    """Make the handouts of the built book and say where they are."""
    try:
        written = make()
    except FileNotFoundError as error:
        print(f"{error.filename} is not there: `make book` builds it first.")
        return 1
    print(f"{len(written)} handouts, two a chapter, are in\n  {HTML / FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
