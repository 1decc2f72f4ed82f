"""The handouts cut out of a page, and the PDF of the book, on a page small enough to see through."""

from pathlib import Path

import pytest

pytest.importorskip("bs4", reason="pip install -r requirements.txt brings the book's tools")

from book.builder import handouts, paper

PAGE = """<!DOCTYPE html><html lang="en"><head><title>t</title></head><body>
<article class="bd-article"><section>
<h1>Batch attention<a class="headerlink" href="#x">#</a></h1>
<p><strong>Question.</strong> Who is asked?</p>
<div class="tip admonition"><p class="admonition-title">A guess</p><p>Write it down.</p></div>
<div class="highlight"><pre>code of the chapter</pre></div>
<figure><img alt="Two faces" src="../_images/a.webp">
<figcaption><p>Fig. 1 Two faces.</p></figcaption></figure>
<section id="exercises"><h2>Exercises</h2>
<p><strong>1. Predict.</strong> What is it?</p>
<div class="dropdown admonition"><p class="admonition-title">Solution</p><p>It is the value.</p></div>
<div class="cell tag_hide-cell"><details><summary>Show</summary><pre>print(1)</pre></details></div>
<p><strong>2. Think.</strong> And then?</p>
</section></section></article></body></html>"""


def test_a_handout_asks_and_the_other_answers() -> None:
    asks = handouts.handout(PAGE, solutions=False, number=4)
    answers = handouts.handout(PAGE, solutions=True, number=4)
    for text in (asks, answers):
        assert "<h1>4. Batch attention</h1>" in text and "Who is asked?" in text and "Write it down." in text
        assert 'alt="Two faces"' in text and "Fig. 1" in text and "And then?" in text
        assert "code of the chapter" not in text and "headerlink" not in text
    assert asks.count('class="room"') == 2 and "It is the value" not in asks and "print(1)" not in asks
    assert "It is the value." in answers and "print(1)" in answers
    assert "<details" not in answers and 'class="room"' not in answers
    with pytest.raises(ValueError, match="exercises"):
        handouts.handout("<article class='bd-article'><h1>x</h1></article>", solutions=False, number=1)


def test_pages_become_one_pdf_with_their_titles(tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf", reason="pip install -e '.[dev]' brings pypdf")
    pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]' brings Playwright")
    if paper.chromium() is None:
        pytest.skip("no Chromium found: install it, or name it in the environment variable CHROMIUM")
    (tmp_path / "one.html").write_text(PAGE, encoding="utf-8")
    (tmp_path / "two.html").write_text(PAGE.replace("Batch attention", "Try it"), encoding="utf-8")
    titles = paper.make(["one", "two"], tmp_path / "book.pdf", tmp_path)
    book = pypdf.PdfReader(tmp_path / "book.pdf")
    assert titles == ["Batch attention", "Try it"] == [mark.title for mark in book.outline]
    assert "Who is asked?" in book.pages[0].extract_text()
