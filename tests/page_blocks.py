"""A page as the number test reads it: what it says in the book's own voice, block by block.

A block is what a reader takes in at once: a paragraph, a list item, a cell of a table, a string or comment of
a cell of code. Whatever belongs to another voice is left out; so are equations, code and addresses in a text.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin

SKIPPED = {"math", "bibliography", "toctree", "raw", "code-block", "literalinclude", "mermaid"}
OTHER_VOICES = re.compile(r"\b(paper|released[ -]code|released|README|published)\b", re.IGNORECASE)
GAP = "◦"  # stands where code, an equation or a computed value stood
Named = Callable[[str], frozenset[str]]  # the records whose names stand in a text


@dataclass(frozen=True)
class Block:
    """A stretch of a page with the records it names; ``literals`` are numbers of its code, as written."""

    place: str
    text: str
    records: frozenset[str]
    literals: tuple[str, ...] = ()


def blocks(path: Path, named: Named) -> list[Block]:
    """What a page says in the book's own voice, block by block."""
    if path.suffix != ".ipynb":
        return list(_markdown(path.read_text(encoding="utf-8"), path.name, named))
    found: list[Block] = []
    for index, cell in enumerate(nbformat.read(path, 4).cells):
        place = f"{path.name} cell {index}"
        if cell.cell_type == "markdown":
            found += _markdown(cell.source, place, named)
        elif cell.cell_type == "code":
            found += _code(cell.source, place, named)
            texts = [
                part.get(key)
                for part in cell.metadata.get("mystnb", {}).values()
                for key in ("caption", "alt")
            ]
            found += _markdown(
                "\n\n".join(filter(None, texts)), f"{place}, caption", named, named(cell.source)
            )
    return found


def _markdown(source: str, place: str, named: Named, outer: frozenset[str] = frozenset()) -> Iterator[Block]:
    """Blocks of MyST text. ``outer``: records that an admonition around it names."""
    parser = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin).use(colon_fence_plugin)
    header: list[str] = []
    row: list[Token] = []
    in_table = False
    for token in parser.parse(source):
        here = f"{place} line {token.map[0] + 1}" if token.map else place
        if token.type in ("table_open", "table_close"):
            in_table, header = token.type == "table_open", []
        elif token.type == "tr_open":
            row = []
        elif token.type == "tr_close":
            yield from _row(row, header, here, named, outer)
            header = header or [cell.content for cell in row]
        elif token.type == "inline" and in_table:
            row.append(token)
        elif token.type == "inline":
            yield Block(here, _text(token), named(token.content) | outer)
        elif token.type == "html_block":
            yield Block(here, re.sub(r"<[^>]*>", " ", token.content), named(token.content) | outer)
        elif token.type in ("fence", "colon_fence") and token.info.strip().startswith("{"):
            yield from _directive(token, here, named, outer)


def _row(cells: list[Token], header: list[str], place: str, named: Named, outer: frozenset[str]):
    whole = " ".join(cell.content for cell in cells)
    if "{cite" in whole:
        return
    for cell, title in zip(cells, header or [""] * len(cells), strict=False):
        if not OTHER_VOICES.search(title):
            yield Block(place, _text(cell), named(whole) | outer)


def _directive(token: Token, place: str, named: Named, outer: frozenset[str]) -> Iterator[Block]:
    name, _, title = token.info.strip().lstrip("`:").partition("}")
    if name.strip("{") in SKIPPED:
        return
    options = dict(re.findall(r"^:([\w-]+):[ \t]*(.*)$", token.content, re.MULTILINE))
    if OTHER_VOICES.search(options.get("class", "")):
        return
    body = re.sub(r"^:[\w-]+:.*\n?", "", token.content, flags=re.MULTILINE)
    inner = "\n\n".join((title if name != "{figure" else "", options.get("alt", ""), body))
    yield from _markdown(inner, place, named, named(token.content) | outer)


def _text(token: Token) -> str:
    """The words of a paragraph; code, equations and addresses become gaps."""
    parts = []
    for child in token.children or []:
        if child.type in ("text", "image"):
            parts.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif child.type == "math_inline" and re.fullmatch(r"[-+\d.,\s]+(?:\\[,;%]|~|\s)*", child.content):
            parts.append(re.sub(r"\\[,;]|~", " ", child.content).replace("\\%", "%"))  # a number, dressed up
        elif child.type in ("code_inline", "math_inline"):
            parts.append(GAP)
    return "".join(parts)


def _code(source: str, place: str, named: Named) -> Iterator[Block]:
    """Strings, comments and tables of numbers of a cell."""
    here = named(source)
    comments = tokenize.generate_tokens(io.StringIO(source).readline)
    for token in (token for token in comments if token.type == tokenize.COMMENT):
        yield Block(f"{place} line {token.start[0]}", token.string, here)
    tree, lines, seen = ast.parse(source), source.splitlines(), set()
    formats = {id(node.format_spec) for node in ast.walk(tree) if isinstance(node, ast.FormattedValue)}
    inside = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        where = f"{place} line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.JoinedStr) and id(node) not in formats:
            parts = (str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
            yield Block(where, "".join(parts), here)
        elif id(node) not in inside and isinstance(text := getattr(node, "value", None), str):
            yield Block(where, "" if "://" in text else text, here)
        for number in (number for number in _tabled(node) if id(number) not in seen):
            seen.add(id(number))
            literal = ast.get_source_segment(source, number) or ""
            line = " ".join(lines[number.lineno - 1].split())
            yield Block(f"{place} line {number.lineno}", "", here, ((literal, line),))


def _tabled(node: ast.AST) -> list[ast.Constant]:
    """Numbers that stand as results do: assigned, or two or more with three digits in one list."""
    collection = (ast.List, ast.Tuple, ast.Set, ast.Dict)
    if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
        return _precise([node.value])
    if isinstance(node, collection):
        own = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.Constant)]
        own += [part for child in ast.iter_child_nodes(node) if isinstance(child, collection)
                for part in ast.iter_child_nodes(child) if isinstance(part, ast.Constant)]  # fmt: skip
        found = _precise(own)
        return found if len({number.value for number in found}) > 1 else []
    return []


def _precise(constants: list[ast.Constant]) -> list[ast.Constant]:
    floats = [part for part in constants if isinstance(part.value, float)]
    return [part for part in floats if len(f"{part.value:.12g}".replace(".", "").strip("0")) >= 3]
