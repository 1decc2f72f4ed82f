"""A guess that is kept: fields under "Your guess", and the same words beside the answer where it is settled.

Readers' words stay in their browser (``localStorage``); the two cells of a chapter share one key. Both are
plain HTML with a script, which lives in the built book, in JupyterLab and in Colab alike, without a kernel.
"""

from __future__ import annotations

from html import escape

from IPython.display import HTML

__all__ = ["Guess"]

SCRIPT = """
(() => {
    const here = document.currentScript.parentElement, key = `ferlib-guess:${KEY}`;
    let kept = {};
    const read = () => { try { kept = JSON.parse(localStorage.getItem(key)) ?? {}; } catch { kept = {}; } };
    const show = () => here.querySelectorAll('[data-n]').forEach((place) => {
        const words = kept[place.dataset.n] ?? '';
        if (place.tagName === 'INPUT') { if (place.value !== words) place.value = words; }
        else place.textContent = words || '(nothing written down)';
    });
    here.addEventListener('input', ({target}) => {
        kept[target.dataset.n] = target.value;
        try { localStorage.setItem(key, JSON.stringify(kept)); } catch { /* kept for this page only */ }
        document.dispatchEvent(new CustomEvent(key, {detail: kept}));
    });
    document.addEventListener(key, ({detail}) => { kept = detail; show(); });
    addEventListener('storage', (change) => { if (change.key === key) { read(); show(); } });
    read();
    show();
})();
"""
STYLE = """
.fer-guess { border-left: 3px solid currentColor; margin: 0.5rem 0; padding: 0.2rem 0 0.2rem 0.9rem; }
.fer-guess label { display: block; margin: 0.4rem 0; }
.fer-guess input { display: block; box-sizing: border-box; width: min(100%, 30rem); margin-top: 0.15rem;
    padding: 0.3rem 0.5rem; font: inherit; color: inherit; background: transparent;
    border: 1px solid currentColor; border-radius: 4px; }
.fer-guess p, .fer-guess dl { margin: 0.3rem 0; } .fer-guess dd { margin: 0 0 0.4rem 1rem; }
@media print { .fer-guess input { border: 0; } .fer-guess .fer-note { display: none; } }
"""


class Guess:
    """What a reader is asked to write down before the chapter answers it.

    ```python
    guess = Guess("resizer", "By how many points does learning win?")
    guess                                      # a field for each question
    guess.settled("Between -1.4 and 1.6.")     # the reader's words, and the answer beside them
    ```

    Args:
        key: A name of its own in the book; the words are kept under it.
        *questions: One short question for each field.
    """

    def __init__(self, key: str, *questions: str) -> None:
        self.key, self.questions = key, questions

    def _part(self, inside: str) -> str:
        script = SCRIPT.replace("${KEY}", self.key)
        return f'<div class="fer-guess"><style>{STYLE}</style>{inside}<script>{script}</script></div>'

    def _repr_html_(self) -> str:
        fields = "".join(
            f'<label>{escape(question)}<input data-n="{n}" maxlength="120" autocomplete="off"></label>'
            for n, question in enumerate(self.questions)
        )
        note = '<p class="fer-note"><small>Your words stay in this browser.</small></p>'
        return self._part(fields + note)

    def settled(self, *answers: str) -> HTML:
        """The reader's words beside the answers, one for each question: an output of a later cell."""
        rows = []
        for n, (question, answer) in enumerate(zip(self.questions, answers, strict=True)):
            yours = f'You wrote: <q data-n="{n}"></q><br>'
            rows.append(f"<dt>{escape(question)}</dt><dd>{yours}<strong>{escape(answer)}</strong></dd>")
        return HTML(self._part(f"<dl>{''.join(rows)}</dl>"))
