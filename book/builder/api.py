"""The pages on the library: every public name of a module, by Sphinx's autodoc, from its docstring.

``{api} ferlib.losses`` stands for a table of the module's public names and, below it, each of them in full.
What is public is said by ``__all__``, else it is everything defined there whose name has no underscore.
Docstrings are in Google style, which sphinx.ext.napoleon reads; the chapters that they name become links.
"""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import SphinxError
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.nodes import make_refnode

from book.builder.generated import Generated
from book.builder.notebooks import ROOT, chapters

CHAPTERS = re.compile(r"\b([Cc]hapters? )(\d(?:(?:, | and |, and )\d)*)\b")
LONGEST_VALUE = 110


@cache
def documented() -> frozenset[str]:
    """The modules that pages of the book show in full."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "book").glob("*.md"))
    return frozenset(re.findall(r"^`{3,}\{api\} ([\w.]+)$", text, re.M))


def public(module: ModuleType) -> list[str]:
    """The public names of a module that are no modules themselves, constants first."""
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__]
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    names = [name for name in names if not inspect.ismodule(getattr(module, name))]
    return sorted(names, key=lambda name: (callable(getattr(module, name)), name.lower()))


def comment_of(module: str, name: str) -> str:
    """The ``#:`` comment of a constant, wherever it is defined; '' where there is none."""
    analyzer = ModuleAnalyzer.for_module(module)
    analyzer.analyze()
    if found := analyzer.attr_docs.get(("", name)):
        return " ".join(line.strip() for line in found).strip()
    for node in ast.parse(analyzer.code).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ferlib"):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return comment_of(node.module, alias.name)
    return ""


def first_sentence(text: str) -> str:
    """The first sentence of a docstring."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s", paragraph)[0]


def described(value: Any) -> list[tuple[str, str]]:
    """What a table of names holds, in words: its keys, and what each stands for."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return []
    return [
        (key, said if isinstance(said, str) else getattr(said, "gives", None) or f"``{said!r}``")
        for key, said in value.items()
    ]


def entry(module: ModuleType, name: str) -> tuple[str, list[str]]:
    """One public name: its sentence for the table, and the lines of reStructuredText that show it in full.

    Raises ``SphinxError`` for a constant without a comment.
    """
    value = getattr(module, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        kind = "function" if not inspect.isclass(value) else "class"
        kind = "exception" if inspect.isclass(value) and issubclass(value, Exception) else kind
        return first_sentence(inspect.getdoc(value) or ""), [f".. auto{kind}:: {module.__name__}.{name}", ""]
    words = comment_of(module.__name__, name)
    if not words:
        raise SphinxError(f"{module.__name__}.{name} has no comment `#: ...` above it that says what it is")
    held = [f"   - ``{key}``: {said}" for key, said in described(value)]
    brief = not held and len(repr(value)) <= LONGEST_VALUE and "\n" not in repr(value)
    shown = [f"   :value: {value!r}"] if brief else []
    return first_sentence(words), [
        f".. py:currentmodule:: {module.__name__}",
        "",
        f".. py:data:: {name}",
        *shown,
        "",
        f"   {words}",
        "",
        *held,
        "",
    ]


def home_of(module: ModuleType, name: str) -> str:
    """The module on whose page a name stands in full: where it comes from, if that is on a page."""
    origin = (getattr(getattr(module, name), "__module__", None) or module.__name__).split(".")
    for length in range(2, len(origin) + 1):
        home = ".".join(origin[:length])
        if home in documented() and name in public(import_module(home)):
            return home
    return module.__name__


class Api(Generated):
    """``{api} ferlib.losses``: the public names of one module."""

    required_arguments = 1

    def markdown(self) -> str:
        module = import_module(self.arguments[0])
        table = [".. list-table::", "   :widths: 35 65", "   :class: names", ""]
        full: list[str] = []
        for name in public(module):
            sentence, lines = entry(module, name)
            home = home_of(module, name)
            table += [f"   * - :py:obj:`{name} <{home}.{name}>`", f"     - {sentence}"]
            full += lines if home == module.__name__ else []
        return "\n".join(["````{eval-rst}", *table, "", *full, "````"])


def _link_chapters(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Chapters that a docstring names become links."""
    files = {path.name[1]: path.stem for path in chapters() if path.name[0] == "0"}

    def link(digit: re.Match[str]) -> str:
        return f":doc:`{digit[0]} </notebooks/{files[digit[0]]}>`" if digit[0] in files else digit[0]

    lines[:] = [CHAPTERS.sub(lambda found: found[1] + re.sub(r"\d", link, found[2]), line) for line in lines]


def _sign(app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: Any, returns: Any) -> Any:
    """What a data class makes anew: ``<factory>`` is no Python, and would keep types from being read."""
    return (signature.replace("<factory>", "..."), returns) if signature else None


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what has no docstring of its own: fields of named tuples, traits of widgets."""
    words = getattr(obj, "__doc__", None) or ""
    if words.startswith("Alias for field number") or type(obj).__module__.startswith("traitlets"):
        return True
    return None


def _resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement) -> Any:
    """Lead a reference by another path, such as ``ferlib.data.base.DataError``, to the public name.

    What is not part of the public library (``torch.Tensor``, a helper) stays plain text. That every
    reference in a docstring names something that exists is held by tests/test_api_pages.py.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    objects = env.domains["py"].objects
    for ending in (target, target.rpartition(".")[2]):
        found = [name for name in objects if name == ending or name.endswith(f".{ending}")]
        if len(found) == 1 and (target.startswith("ferlib.") or "." not in target or ending == target):
            place = objects[found[0]]
            return make_refnode(app.builder, node["refdoc"], place.docname, place.node_id, content, found[0])
    return content


def setup(app: Sphinx) -> None:
    """Register the directive, and what links chapters and leads references."""
    app.add_directive("api", Api)
    app.connect("autodoc-process-docstring", _link_chapters, priority=600)  # after napoleon
    app.connect("autodoc-process-signature", _sign)
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _resolve)
