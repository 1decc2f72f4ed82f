"""A reader without a network: pages opened in Chromium, with everything that goes wrong remembered."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-component-update",
    "--no-first-run",
]


def chromium_path() -> str | None:
    """The Chromium to use: the one named in the environment variable CHROMIUM, or the first that is found."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


class Reader:
    """A page opened offline that remembers what went wrong."""

    def __init__(self, browser, url: str | Path, *, width: int = 1280, scheme: str = "light", **how) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce", **how
        )
        self.page = self.context.new_page()
        self.inside: list[str] = []
        self.outside: list[str] = []
        self.errors: list[str] = []
        self.page.route("**/*", self._route)
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url}"))
        self.page.goto(url if isinstance(url, str) else url.as_uri(), wait_until="load")
        self.page.wait_for_timeout(300)

    def _route(self, route) -> None:
        url = route.request.url
        if url.startswith(("file:", "data:", "blob:")):
            self.inside.append(url)
            route.continue_()
        else:
            self.outside.append(url)
            route.abort()

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )

    def squeezed(self) -> list[str]:
        """Pictures shown wider or narrower than they are, by their alternative text."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll('.bd-article img')]
                .filter(i => i.complete && i.naturalWidth && i.clientHeight)
                .filter(i => getComputedStyle(i).objectFit === 'fill')  // others keep their proportions
                .filter(i => {
                    const style = getComputedStyle(i);
                    const width = i.clientWidth - parseFloat(style.paddingLeft) * 2;
                    const height = i.clientHeight - parseFloat(style.paddingTop) * 2;
                    return Math.abs(width * i.naturalHeight - height * i.naturalWidth)
                        > 0.03 * width * i.naturalHeight + 2 * i.naturalWidth;
                })
                .map(i => i.alt)"""
        )

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def says(place, text: str | re.Pattern[str]) -> str:
    """The text of a place in the page, once ``text`` is part of it: figures follow a frame later."""
    from playwright.sync_api import expect

    expect(place).to_contain_text(text)
    return place.text_content()
