"""The pages on the library show every public name, and what docstrings refer to exists."""

import importlib
import inspect
import pkgutil
import re
from types import ModuleType

import pytest
from bs4 import BeautifulSoup

import ferlib

api = pytest.importorskip("book.builder.api", reason="the book's tools are not installed")
extension = pytest.importorskip("book.builder.extension", reason="the book's tools are not installed")


def test_every_public_name_is_on_a_page_with_a_sentence() -> None:
    shown = set()
    for module in map(importlib.import_module, sorted(api.documented())):
        for name in api.public(module):
            sentence, lines = api.entry(module, name)
            assert 8 <= len(sentence) <= 240 and lines, f"{module.__name__}.{name}: {sentence!r}"
            shown.add(id(getattr(module, name)))
    hidden = []
    for info in pkgutil.iter_modules(ferlib.__path__, "ferlib."):
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if not (id(value) in shown or getattr(value, "__name__", "") in api.documented()):
                hidden.append(f"{info.name}.{name}")
    assert not hidden, f"on no page: write `{{api}} MODULE` into a page book/api_*.md for {hidden}"


def things() -> dict[str, object]:
    """Modules, classes, functions and methods of the library by dotted name."""
    found: dict[str, object] = {}
    for info in pkgutil.walk_packages(ferlib.__path__, "ferlib."):
        module = importlib.import_module(info.name)
        found[info.name] = module
        for name, value in vars(module).items():
            if str(getattr(value, "__module__", None) or info.name).startswith("ferlib"):
                found[f"{info.name}.{name}"] = value
            if inspect.isclass(value) and value.__module__.startswith("ferlib"):
                for inner in vars(value):
                    found[f"{info.name}.{name}.{inner}"] = getattr(value, inner, None)
    return found


def test_what_docstrings_refer_to_exists() -> None:
    known = things()
    endings = {".".join(name.split(".")[-n:]) for name in known for n in range(1, name.count(".") + 2)}
    lost = []
    for name, value in known.items():
        home = getattr(value, "__name__" if isinstance(value, ModuleType) else "__module__", None) or ""
        if home.startswith("ferlib") and (isinstance(value, ModuleType) or callable(value)):
            words = value.__doc__ or ""
            targets = re.findall(r":(?:class|func|meth|mod|data|attr|exc|obj):`~?([^`<]+)`", words)
            lost += [f"{name}: {target}" for target in targets if target not in endings]
    assert not lost


def test_pages_get_what_readers_without_a_mouse_need() -> None:
    text = """<table class="docutils"></table><div role="doc-biblioentry"></div>
      <span class="xref download myst">a_b</span>
      <script>if (1 < 2 && "a_b") {}</script>"""
    page = BeautifulSoup(text, "html.parser")
    extension.mend(page)
    assert page.table["tabindex"] == "0" and page.div["role"] == "listitem" and page.span.wbr
    assert '<script>if (1 < 2 && "a_b") {}</script>' in str(page), "what is no text of the page has changed"
    lines = ["Do it. Chapters 2 and 5."]
    api._link_chapters(None, "function", "f", None, None, lines)
    assert ":doc:`2 </notebooks/02_" in lines[0] and ":doc:`5 </notebooks/05_" in lines[0]
