"""One visit to a page of the built book, wide and narrow, light and dark, and all that is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.reader import Reader

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
RULES_OF_LOOK = [
    "color-contrast",
    "link-in-text-block",
    "scrollable-region-focusable",
]  # these change with it
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
        f"{v['id']} ({v['impact']}, {len(v['nodes'])} times): "
        + " | ".join(n["html"][:160] for n in v["nodes"][:4])
        for v in found
    ]


def own_bytes(file: Path, requested: list[str]) -> int:
    """What a page weighs by itself: its HTML without the explorers' data, and every file it asked for that is
    not the theme's."""
    html = EXPLORER_DATA.sub("", file.read_text(encoding="utf-8"))
    own = {Path(url.split("?")[0].removeprefix("file://")) for url in requested if "/_static/" not in url}
    return len(html.encode()) + sum(p.stat().st_size for p in own - {file} if p.is_file())


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
        size = own_bytes(file, reader.inside)
        wrong["too heavy"] = [f"{size / 1e6:.2f} MB"] if size > MOST_BYTES else []
    return {kind: found for kind, found in wrong.items() if found}
