"""A directive whose content is made while the book is built: it writes Markdown, the page takes it in."""

from __future__ import annotations

from abc import ABC, abstractmethod

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


class Generated(SphinxDirective, ABC):
    """A directive that stands for the Markdown which :meth:`markdown` returns."""

    @abstractmethod
    def markdown(self) -> str:
        """What the page is to show in this place."""

    def run(self) -> list[nodes.Node]:
        source, line = self.get_source_info()
        lines = StringList(self.markdown().splitlines(), source=source)
        place = nodes.Element()
        place.document = self.state.document
        self.state.nested_parse(lines, line, place)
        return place.children
