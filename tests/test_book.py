"""The built book, read in a real browser with the network cut off, wide and narrow, in light and in dark."""

import io
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from matplotlib.colors import to_rgb
from PIL import Image

from book.builder import dark, handouts, notebooks, paper
from book.figures.dark import GROUND
from tests.reader import Reader
from tests.test_links import broken

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]' brings Playwright")

MOST_BYTES = 1_500_000  # of a page's own HTML, figures and data; explorers' data and the theme's files apart
EXPLORER_DATA = re.compile(r'(?<=<script type="application/json">).*?(?=</script>)', re.S)

# Equations are set, figures drawn and explorers alive: only then is there something to judge.
SETTLED = """async () => {
    if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
    const until = Date.now() + 20000;
    const pictures = [...document.images];
    pictures.forEach((i) => { i.loading = 'eager'; });
    const waits = () => pictures.some((i) => !i.complete)
        || [...document.querySelectorAll('.fer-host')].some((e) => e.dataset.ready !== 'yes');
    while (waits() && Date.now() < until) await new Promise((go) => setTimeout(go, 50));
}"""
# What is looked for in the settled page: a name, and a script that gives what it finds.
FINDINGS = {
    "equations not set": """() => {
        const math = document.querySelectorAll('span.math, div.math').length;
        return math && !document.querySelector('mjx-container') ? [math] : [];
    }""",
    "broken equations": """() =>
        [...document.querySelectorAll('mjx-merror, [data-mml-node=merror]')].map((e) => e.textContent)""",
    "raw equations": r"""() => {
        const found = [], root = document.querySelector('.bd-article') || document.body;
        const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        for (let text = walk.nextNode(); text; text = walk.nextNode()) {
            const apart = text.parentElement.closest('pre, code, script, style, mjx-container, .fer-host');
            if (!apart && /\\[(\[]|\$[^$\n]+\$/.test(text.data)) found.push(text.data.trim());
        }
        return found;
    }""",
    "literal markup": r"""() => {
        const found = [], root = document.querySelector('.bd-article') || document.body;
        const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        const marks = /^\s*:{3,}|:class:|`{3}|\{(term|cite|eq|numref|ref|admonition)(:\w+)?\}|\]\(|\*\*/m;
        for (let text = walk.nextNode(); text; text = walk.nextNode()) {
            const apart = text.parentElement.closest('pre, code, script, style, dl.py, .fer-host');
            if (!apart && marks.test(text.data)) found.push(text.data.trim().slice(0, 80));
        }
        return found;
    }""",
    "cut or scrolling sideways": """() =>
        [...document.querySelectorAll('.bd-article :is(pre, .cell_output)')]  // wide tables scroll in place
        .filter((e) => e.clientWidth && e.scrollWidth > e.clientWidth + 2)
        .filter((e) => !e.closest('.fer-host, .highlight-text'))
        .map((e) => `${e.tagName}.${e.className}: ${e.innerText.trim().slice(0, 60)}`)""",
    "equations wider than their column": """() => [...document.querySelectorAll('div.math')].filter((e) => {
        const room = e.clientWidth - 40 * !!e.querySelector('.eqno');
        return e.querySelector('mjx-math')?.getBoundingClientRect().width > room;
    }).map((e) => e.id)""",
    "dead figures": """() => [
        ...[...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.src),
        ...[...document.querySelectorAll('.fer-host')].filter((e) => e.dataset.ready !== 'yes')
            .map((e) => e.id),
    ]""",
    "pictures without alternative text": r"""() => [...document.querySelectorAll('.bd-article img')]
        .filter((i) => i.alt !== '' || !i.closest('button, label'))  // their names are axe-core's matter
        .filter((i) => !i.alt.trim() || /^[._/]*images\/|[0-9a-f]{32}/.test(i.alt))
        .map((i) => i.src.slice(0, 200))""",
    "ids used twice": """() => [...document.querySelectorAll('.bd-article [id]')].map((e) => e.id)
        .filter((id, n, all) => all.indexOf(id) !== n)""",
}

SERIOUS = ("serious", "critical")  # axe-core's words for what shuts a reader out
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
# These change with the look.
RULES_OF_LOOK = ["color-contrast", "link-in-text-block", "scrollable-region-focusable"]
# Everything folded is opened, at once: what still fades in has no contrast yet. Of thousands of words of
# code, one of each colour on each ground is judged.
PREPARED = """() => {
    const still = document.createElement('style');
    still.textContent = '*, *::before, *::after { animation: none !important; transition: none !important; }';
    document.head.append(still);
    document.querySelectorAll('details').forEach((d) => { d.open = true; });
    const seen = new Set(), again = [];
    for (const word of document.querySelectorAll('.highlight pre span:not(:has(*)):not([id])')) {
        const ground = word.closest('.cell_input, .cell_output, .admonition')?.className;
        const key = `${word.className} on ${ground}`;
        seen.has(key) ? again.push(word) : seen.add(key);
    }
    again.forEach((word) => word.replaceWith(word.textContent));
}"""


def _axe(page, axe, rules: list[str]) -> list[str]:
    """The serious and critical findings of axe-core, each with its rule and its first elements."""
    page.evaluate(PREPARED)
    how = {"resultTypes": ["violations"], "preload": False, "runOnly": rules}
    found = [v for v in axe.run(page, options=how).response["violations"] if v["impact"] in SERIOUS]
    return [
        f"{v['id']} ({v['impact']}): {' | '.join(n['html'][:160] for n in v['nodes'][:4])}" for v in found
    ]


def visit(browser, file: Path, axe) -> dict[str, list]:
    """Open a page once with the network cut off and name everything that is wrong with it, by kind.

    Wide and light first; then the same page in dark, as narrow as a phone, and so in light. An empty answer
    means that nothing was found.
    """
    wrong: dict[str, list] = {}
    with Reader(browser, file) as reader:
        page = reader.page
        page.evaluate(SETTLED)
        wrong.update({kind: page.evaluate(script) for kind, script in FINDINGS.items()})
        wrong["pictures out of proportion, wide"] = reader.squeezed()
        overflow = {"wide": reader.overflow()}
        wrong["axe-core, wide and light"] = _axe(page, axe, RULES)
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.set_viewport_size({"width": 380, "height": 900})
            page.wait_for_function(f"() => document.documentElement.dataset.theme === '{scheme}'")
            overflow[f"phone, {scheme}"] = reader.overflow()
            if scheme == "dark":
                page.wait_for_timeout(600)  # the theme then gives what has begun to scroll its tab stops
                wrong["axe-core, phone and dark"] = _axe(page, axe, RULES_OF_LOOK)
        wrong["pictures out of proportion, phone"] = reader.squeezed()
        wrong["pixels wider than the window"] = [f"{n} ({where})" for where, n in overflow.items() if n > 1]
        text = page.locator("body").inner_text()
        wrong["tracebacks"] = re.findall(r"Traceback \(most recent call last\)", text)
        wrong["asked of the network"], wrong["console errors"] = reader.outside, reader.errors
        asked = [url.split("?")[0] for url in reader.inside if "/_static/" not in url]
        own = {Path(url.removeprefix("file://")) for url in asked}
        size = len(EXPLORER_DATA.sub("", file.read_text(encoding="utf-8")).encode())
        size += sum(p.stat().st_size for p in own - {file} if p.is_file())
        wrong["too heavy"] = [f"{size / 1e6:.2f} MB"] if size > MOST_BYTES else []
    return {kind: found for kind, found in wrong.items() if found}


@pytest.fixture(scope="module")
def axe():
    """axe-core, which finds what shuts out readers with other eyes, ears and hands."""
    found = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install -e '.[dev]'")
    return found.Axe()


@pytest.mark.parametrize("name", [*paper.pages(), "genindex", "search"])
def test_nothing_is_wrong_with_a_page_offline(html: Path, browser, axe, name: str) -> None:
    wrong = visit(browser, html / f"{name}.html", axe)
    assert wrong == {}, "\n".join(f"{kind}: {found}" for kind, found in wrong.items())


def test_a_visit_finds_what_is_wrong(browser, axe, tmp_path: Path) -> None:
    """The visit is put on a page with one fault of each kind, so that its silence means something."""
    page = tmp_path / "page.html"
    script = "document.documentElement.dataset.theme = matchMedia('(prefers-color-scheme: dark)')"
    page.write_text(
        "<title>x</title><article class='bd-article'><p style='width: 2000px; color: #ccc'>Faint $x^2$</p>"
        "<img src='gone.png'><p id='a'></p><p id='a'></p><button></button><span class='math'></span>"
        "<pre style='width: 9em; overflow: auto'>one long line of code that nobody folded</pre>"
        "<p>:::{note}</p>"
        "<script src='https://example.org/x.js'></script><mjx-merror>\\frac</mjx-merror></article>"
        f"<script>(() => {{ const told = () => {{ {script}.matches ? 'dark' : 'light'; }};"
        "matchMedia('(prefers-color-scheme: dark)').onchange = told; told(); })()</script>"
        + "<!-- weight -->"
        * 110_000,
        encoding="utf-8",
    )
    kinds = set(FINDINGS) - {"equations wider than their column"}
    kinds |= {"axe-core, wide and light", "axe-core, phone and dark", "pixels wider than the window"}
    assert kinds | {"asked of the network", "console errors", "too heavy"} <= set(visit(browser, page, axe))


# Which chapter lets the reader touch what.
TOUCH = {
    "02_neural_resizer": "resizer",
    "03_f_pdls": "loss",
    "04_batch_attention": "batch",
    "05_batch_transformer_network": "stages",
    "06_training": "sam",
    "08_attention_maps": "attention",
}


@pytest.mark.parametrize("name", TOUCH)
def test_interactive_figures_live_without_a_kernel(html: Path, browser, name: str) -> None:
    page_file = html / "notebooks" / f"{name}.html"
    with Reader(browser, page_file, width=380, scheme="dark") as reader:
        page = reader.page
        assert page.locator(".fer-host").count() >= 1, "the chapter has no interactive figure"
        page.wait_for_function(
            "[...document.querySelectorAll('.fer-host')].every(e => e.dataset.ready === 'yes')"
        )
        assert page.locator(f".fer-{TOUCH[name]}").count() >= 1, "the explorer is not in its chapter"
        figure = page.locator(f".fer-{TOUCH[name]}").first
        said = figure.locator("[role=status]")
        page.wait_for_function("e => e.textContent.length > 20", arg=said.element_handle())
        before = said.text_content()
        figure.locator("input[type=radio]:checked:enabled").first.focus()
        page.keyboard.press("ArrowRight")
        sync_api.expect(said, "an arrow key on the first choice changes nothing").not_to_have_text(before)
        ground = figure.evaluate("e => getComputedStyle(e.closest('.text_html')).backgroundColor")
        assert ground in ("rgba(0, 0, 0, 0)", "transparent"), "the theme puts a box behind the figure"
        assert reader.overflow() <= 1
        assert reader.outside == [] and reader.errors == []
        assert "AnyModel" not in page_file.read_text(encoding="utf-8"), "the figure is in the page twice"


GROUND_RGB = tuple(round(255 * part) for part in to_rgb(GROUND))


@pytest.mark.parametrize("name", [path.stem for path in notebooks.chapters()])
def test_every_figure_of_a_chapter_has_a_dark_twin(html: Path, name: str) -> None:
    page = (html / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
    figures = dark.figures(BeautifulSoup(page, "html.parser"))
    assert figures or name == "A2_costs", "only the page of costs has tables alone"
    for _, _, digest in figures:
        with Image.open(html / "_images" / f"{digest}.webp") as light:
            size = light.size
        with Image.open(html / "_images" / f"{digest}{dark.ENDING}") as twin:
            assert twin.size == size
            assert twin.convert("RGBA").getpixel((0, 0)) == (*GROUND_RGB, 255)


# Loads the twins as the page does, and says which are not shown exactly upon their figures.
TWINS_ASTRAY = """async () => {
    const astray = [];
    for (const twin of document.querySelectorAll('.in-the-dark')) {
        const picture = new Image(), figure = twin.previousElementSibling;
        picture.src = getComputedStyle(twin).backgroundImage.slice(5, -2);
        await picture.decode();
        const [a, b] = [twin, figure].map((e) => e.getBoundingClientRect());
        const apart = Math.max(...['x', 'y', 'width', 'height'].map((k) => Math.abs(a[k] - b[k])));
        if (apart > 1 || !twin.checkVisibility() || picture.naturalWidth !== figure.naturalWidth)
            astray.push(figure.alt);
    }
    return astray;
}"""


def test_figures_take_the_colours_of_the_theme(html: Path, browser) -> None:
    with Reader(browser, html / "notebooks" / "04_batch_attention.html", width=380) as reader:
        page, twins = reader.page, reader.page.locator(".in-the-dark")
        assert twins.count() == page.locator(".cell_output img[src*='_images/']").count() >= 5
        assert not twins.first.is_visible() and not any(dark.ENDING in url for url in reader.inside)
        page.emulate_media(color_scheme="dark")
        page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
        assert page.evaluate(TWINS_ASTRAY) == []
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb({}, {}, {})".format(*GROUND_RGB), "figures have another ground than pages"
        for n in range(twins.count()):
            with Image.open(io.BytesIO(twins.nth(n).screenshot())) as seen:
                assert seen.convert("RGB").getpixel((2, 2)) == pytest.approx(GROUND_RGB, abs=2)
        page.emulate_media(media="print")
        assert not twins.first.is_visible(), "a dark figure would be printed"
        assert reader.errors == []


def test_every_inner_link_leads_somewhere(html: Path) -> None:
    files = (page for page in sorted(html.rglob("*.html")) if not {"_static", "handouts"} & {*page.parts})
    found = [word for page in files for word in broken(page, html)]
    assert not found, "\n".join(found)


def test_every_chapter_gives_handouts(html: Path) -> None:
    written = handouts.make(html)
    assert len(written) == 2 * len(notebooks.chapters())
    for path in written:
        text = path.read_text(encoding="utf-8")
        assert "<figure" in text or "A2_costs" in path.name
        assert "Exercises" in text or path.name.startswith("A")
        assert dark.ENDING not in text, f"{path.name} prints dark figures"
        dead = [s for s in re.findall(r'<img[^>]*src="([^":]+)"', text) if not (path.parent / s).exists()]
        assert dead == [], f"{path.name} shows pictures that are not there"


def test_the_book_can_be_searched_offline(html: Path, browser) -> None:
    with Reader(browser, (html / "search.html").as_uri() + "?q=resizer") as reader:
        reader.page.wait_for_selector("#search-results li a", timeout=10_000)
        assert reader.page.locator("#search-results li").count() >= 2
        assert reader.outside == []
