"""What the figures to touch cost: building a page, and each move of a reader's hand, on 16 faces.

1. Seconds to make an explorer and its HTML, and the kilobytes that the page grows by.
2. In headless Chromium, for each update: milliseconds of processor time that the page's main thread takes
   (handler, drawing, layout, paint; whatever else the machine does), the time that passes (median and 95th
   percentile), and frames a second while every frame has an update. 60 frames a second leave 16.7 ms.

Asserts no time. Needs Chromium (named in the environment variable CHROMIUM, or on the path)::

    python benchmarks/explorers.py [--updates 120]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

os.environ["FERLIB_STATIC"] = "1"  # read on import: figures without a kernel

from book.figures.token_attention import TokenAttention
from ferlib import widgets
from ferlib.widgets.base import Explorer

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
COUNT = 16
DRAW = np.random.default_rng(0)

# One update: what the hand does at step i. `point` moves the pointer over an element, `slide` a slider.
HAND = """
const all = (name) => [...document.querySelectorAll(name)];
const point = (name, i, kind = 'pointermove') => {
  const e = all(name)[0], box = e.getBoundingClientRect();
  const clientX = box.left + ((i * 0.37) % 1) * box.width, clientY = box.top + ((i * 0.23) % 1) * box.height;
  e.dispatchEvent(new PointerEvent(kind, {bubbles: true, clientX, clientY}));
};
const slide = (name, i, k = 0) => {
  const e = all(name)[k], part = (i * 0.17) % 1;
  e.value = Number(e.min) + part * (Number(e.max) - Number(e.min));
  e.dispatchEvent(new Event('input', {bubbles: true}));
};
const click = (name, i) => { const found = all(name); found[i % found.length].click(); };
"""
HANDS = {
    "attention": {"hover a patch": "point('.fer-look', i)", "change the face": "click('.fer-pick input', i)"},
    "batch": {"hover a cell": "point('.fer-cells', i)", "faces in and out": "click('.fer-face', i)"},
    "loss": {
        "move alpha": "slide('.fer-slider input', i)",
        "move a logit": "slide('.fer-logit input', i, 6)",
    },
    "resizer": {
        "move the lens": "point('.fer-stage', i)",
        "move the divider": "slide('.fer-slider input', i)",
    },
    "sam": {"move rho": "slide('input[type=range]', i)"},
}
MEASURE = """async ([hand, step, updates]) => {
  const move = new Function('i', hand + step), frame = () => new Promise(requestAnimationFrame), cost = [];
  const widget = document.querySelector('.fer-widget');
  await frame();
  const start = performance.now();
  for (let i = 1; i <= updates; i += 1) {
    let before, after;
    const drawn = new Promise((done) => {
      requestAnimationFrame(() => { before = performance.now(); });
      const at = performance.now();
      move(i);
      const handler = performance.now() - at;
      requestAnimationFrame(() => {           // runs after the figure's own drawing in the same frame
        widget.getBoundingClientRect();       // style and layout, now
        after = performance.now();
        cost.push(handler + after - before);
        done();
      });
    });
    await drawn;
  }
  return [cost, (1000 * updates) / (performance.now() - start)];
}"""


def shares(heads: int, tokens: int) -> np.ndarray:
    raw = np.exp(2 * DRAW.standard_normal((COUNT, heads, tokens, tokens)))
    return raw / raw.sum(-1, keepdims=True)


def faces(size: int) -> np.ndarray:
    wave = np.linspace(0, 6, size)
    pattern = (
        np.sin(wave)[:, None] * np.cos(wave) * 0.4 + 0.5 + 0.05 * DRAW.standard_normal((COUNT, size, size))
    )
    return (255 * np.clip(pattern, 0, 1)).astype(np.uint8)


def make_attention() -> Explorer:
    layers = {"block 1": shares(1, 50), "block 2": shares(1, 50), "block 3": shares(1, 50)}
    truth = np.zeros((COUNT, 96, 96))
    truth[:, 20:40, 20:76] = truth[:, 60:80, 35:60] = 1
    return widgets.AttentionExplorer(
        {f"face {i}": face for i, face in enumerate(faces(96))},
        {"ViT": TokenAttention(layers, prefix=1).packed, "Grad-CAM": DRAW.random((COUNT, 14, 14))},
        truth=truth,
    )


def make_batch() -> Explorer:
    query, key = DRAW.standard_normal((2, COUNT, len(CLASSES), 49))
    value, labels = DRAW.standard_normal((COUNT, len(CLASSES))), np.arange(COUNT) % len(CLASSES)
    return widgets.BatchAttentionExplorer(faces(48), query, key, value, labels, CLASSES, start=range(COUNT))


def make_loss() -> Explorer:
    return widgets.LossExplorer(np.full((8, 8), 0.05) + 0.6 * np.eye(8), CLASSES)


def make_resizer() -> Explorer:
    ways = {name: faces(224)[0] for name in ("nearest", "bilinear", "bicubic", "learned")}
    return widgets.ResizerExplorer(ways, truth=ways["learned"], source=faces(48)[0])


MAKERS: dict[str, Callable[[], Explorer]] = {
    "attention": make_attention,
    "batch": make_batch,
    "loss": make_loss,
    "resizer": make_resizer,
    "sam": widgets.SAMExplorer,
}


def busy(meter) -> float:
    """Seconds of processor time that the main thread has spent on tasks so far."""
    metrics = meter.send("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=120)
    updates = parser.parse_args().updates
    print("building a page             seconds    kB")
    pages = {}
    for name, make in MAKERS.items():
        make()  # what is loaded on first use is not a figure's own cost
        start = time.perf_counter()
        html = make().html()
        print(f"{name:25} {time.perf_counter() - start:9.3f} {len(html.encode()) / 1000:5.0f}")
        pages[name] = f'<!doctype html><meta charset="utf-8"><body>{html}</body>'
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome")))
    path = os.environ.get("CHROMIUM") or next(found, None)
    if path is None:
        print("no Chromium found: install it, or name it in the environment variable CHROMIUM")
        return
    from playwright.sync_api import sync_playwright

    print("\nupdates in the browser            cpu ms  median ms   95 % ms   frames/s")
    with sync_playwright() as kit, tempfile.TemporaryDirectory() as folder:
        browser = kit.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for name, html in pages.items():
            file = Path(folder) / f"{name}.html"
            file.write_text(html, encoding="utf-8")
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.goto(file.as_uri())
            page.wait_for_selector(".fer-host[data-ready=yes]")
            meter = page.context.new_cdp_session(page)
            meter.send("Performance.enable", {"timeDomain": "threadTicks"})
            for what, step in HANDS[name].items():
                page.evaluate(MEASURE, [HAND, step, 20])
                before = busy(meter)
                cost, rate = page.evaluate(MEASURE, [HAND, step, updates])
                taken, late = 1000 * (busy(meter) - before) / updates, statistics.quantiles(cost, n=20)[-1]
                print(
                    f"{name + ': ' + what:31} {taken:8.2f} {statistics.median(cost):10.2f} {late:9.2f}"
                    f" {rate:10.1f}"
                )
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
