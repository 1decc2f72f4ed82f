"""The explorers that the widget tests look at, and what they need to drive one in a browser."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch

from book.figures.stages import OUTPUTS, WORDS, Stages
from book.figures.token_attention import TokenAttention, computed
from ferlib.data import EMOTIONS_FERPLUS as CLASSES
from ferlib.losses import FERPLUS_PRIOR
from ferlib.models import BatchTransformerNetwork, btn_small
from ferlib.widgets import (
    AttentionExplorer,
    BatchAttentionExplorer,
    LossExplorer,
    ResizerExplorer,
    SAMExplorer,
    StagesExplorer,
)
from ferlib.widgets.base import Explorer
from ferlib.widgets.codec import unpack
from tests.reader import Reader

FACE = [0.4, -1.25, 2.31, 0.07, -0.6, -1.9, 1.84, -2.5]


def loss_explorer() -> LossExplorer:
    return LossExplorer(FERPLUS_PRIOR, CLASSES, logits=FACE)


def pictures(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Three ways to enlarge a small picture to 64 pixels, what they should give, and the small one."""
    noise = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(seed))
    truth = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)
    small = torch.nn.functional.interpolate(truth, size=16, mode="area")
    ways = {
        mode: torch.nn.functional.interpolate(small, size=64, mode=mode)[0, 0].numpy()
        for mode in ("nearest", "bilinear", "bicubic")
    }
    return ways, truth[0, 0].numpy(), small[0, 0].numpy()


def resizer_explorer() -> ResizerExplorer:
    ways, truth, source = pictures()
    return ResizerExplorer(ways, truth=truth, source=source)


def batch(count: int = 9, seed: int = 3, size: float = 0.6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, count, len(CLASSES), 49, generator=generator) * size
    value = torch.randn(count, len(CLASSES), generator=generator)
    faces = torch.randint(0, 256, (count, 48, 48), generator=generator, dtype=torch.uint8)
    return {"faces": faces, "query": query, "key": key, "value": value, "labels": torch.arange(count) % 8}


def toy_layers() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of three layers shaped like those of chapter 4's toy."""
    draw = torch.Generator().manual_seed(7)
    shapes = {"query": 8, "key": 8, "value": 49 * 8}
    return {
        name: (torch.randn(8, width, generator=draw) / 4, torch.randn(8, generator=draw))
        for name, width in shapes.items()
    }


def batch_explorer() -> BatchAttentionExplorer:
    names = [f"{name} 1" for name in CLASSES] + ["neutral 2"]
    return BatchAttentionExplorer(
        **batch(),
        classes=CLASSES,
        start=[2, 0, 5],
        presets={"pair": [2, 7]},
        names=names,
        own=toy_layers(),
    )


def attention(seed: int = 5) -> dict[str, dict[str, torch.Tensor]]:
    """Scores of three networks for three faces: a ViT, tokens of three levels, one that asks in windows."""
    draw = torch.Generator().manual_seed(seed)

    def scores(heads: int, tokens: int) -> torch.Tensor:
        return 2 * torch.randn(3, heads, tokens, tokens, generator=draw)

    windows = scores(2, 64)
    row, column = torch.arange(64) // 8 // 4, torch.arange(64) % 8 // 4
    apart = (row[:, None] != row) | (column[:, None] != column)
    return {
        "vit": {"first": scores(3, 50), "second": scores(3, 50)},
        "levels": {"mixer": scores(2, 149)},
        "windows": {"stage": windows.masked_fill(apart, -torch.inf)},
    }


def regions() -> torch.Tensor:
    """A true region a face, (3, 60, 60): a bar across, a box, and two spots."""
    truth = torch.zeros(3, 60, 60)
    truth[0, 12:20, 8:50] = 0.9
    truth[1, 30:55, 25:41] = 1
    truth[2, 5:15, 5:15] = truth[2, 40:52, 33:50] = 0.5
    return truth


@cache
def network() -> BatchTransformerNetwork:
    """A small network whose transformer attends unevenly, its weights rounded as a page has them."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = btn_small(dim=32, depth=2, widths=[8, 8, 16], blocks=[1, 1, 1]).eval()
    with torch.no_grad():
        for name, weight in model.vit.named_parameters():
            weight.copy_((weight * (6 if "qkv" in name else 1)).half())
    return model


def inputs(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 48, 48, generator=torch.Generator().manual_seed(9))


def attention_explorer(seed: int = 5) -> AttentionExplorer:
    scores, draw = attention(seed), torch.Generator().manual_seed(seed + 1)
    shares = {name: {k: v.softmax(-1) for k, v in layers.items()} for name, layers in scores.items()}
    rolled = {k: v.mean(1) for k, v in shares["vit"].items()}
    rolled["second"] = rolled["second"] @ rolled["first"]
    faces = torch.randint(0, 256, (3, 3, 60, 60), generator=draw, dtype=torch.uint8)
    figure = AttentionExplorer(
        dict(zip(("hard", "twin", "friend"), faces, strict=True)),
        {
            "ViT": TokenAttention(shares["vit"], prefix=1, rollout=rolled).packed,
            "levels": TokenAttention(shares["levels"], prefix=2, levels=("28", "14", "7")).packed,
            "windows": TokenAttention(shares["windows"]).packed,
            "Grad-CAM": torch.randn(3, 30, 24, generator=draw),
            "network": computed(network(), inputs(), CLASSES),
        },
        truth=regions(),
        answers={"ViT": ["reads fear", "reads fear", "reads surprise"]},
        query="patch",
    )
    figure.query = [0.5, 0.4]
    return figure


@cache
def stages() -> dict[str, torch.Tensor]:
    """All stages and outputs of the small network for a face of noise, which is the first."""
    face = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        return dict(zip([*WORDS, *OUTPUTS], Stages(network(), 48).eval()(face), strict=True))


def stages_explorer() -> StagesExplorer:
    found = stages()
    maps, logits = ({n: found[n] for n in names} for names in (WORDS, OUTPUTS))
    return StagesExplorer(maps, logits, CLASSES, words=WORDS)


SURFACES = {
    "a crack and a valley": [(-0.9, 0.0, 1.15, 0.06), (0.9, 0.0, 1.0, 1.6)],
    "two cracks": [(-0.4, 0.1, 0.7, 0.05), (0.3, -0.2, 0.9, 0.3)],
}
MAKE = {
    "attention": attention_explorer,
    "batch": batch_explorer,
    "loss": loss_explorer,
    "resizer": resizer_explorer,
    "stages": stages_explorer,
    "sam": lambda: SAMExplorer(SURFACES, steps=60, marks=[(0.9, -0.6, "valley <b>")]),
}


def page_with(figure: Explorer, folder: Path) -> Path:
    """The file of a bare page that holds one explorer."""
    path = folder / "figure.html"
    path.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>figure</title>'
        '<meta name="viewport" content="width=device-width"></head>'
        f"<body>{figure.html()}</body></html>",
        encoding="utf-8",
    )
    return path


@cache
def page_of(kind: str) -> Path:
    """A page that holds one explorer, by its kind, written once."""
    return page_with(MAKE[kind](), Path(tempfile.mkdtemp(prefix=f"{kind}-")))


def opened(browser, kind: str, **how) -> Reader:
    reader = Reader(browser, page_of(kind), **how)
    reader.page.wait_for_selector(".fer-host[data-ready=yes] .fer-widget", timeout=10_000)
    reader.page.wait_for_timeout(50)
    return reader


def clean(reader: Reader) -> None:
    assert reader.outside == [], "the figure asks the network"
    assert reader.errors == []
    assert reader.overflow() <= 0, "the figure is wider than its page"


def settle(page) -> None:
    """Figures draw once a frame: wait for two."""
    page.evaluate("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")


def values(page, selector: str) -> np.ndarray:
    settle(page)
    found = page.eval_on_selector_all(selector, "all => all.map(e => Number(e.dataset.value))")
    assert found, selector
    return np.array(found)


def slide(page, label: str, value: float) -> None:
    page.get_by_role("slider", name=label).fill(str(value))


CHECK = """() => {
  const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
  const pixel = canvas.getContext('2d', {willReadFrequently: true});
  const rgba = (css) => { pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = css; pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data].map((v, i) => i === 3 ? v / 255 : v); };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const ground = (e) => { const layers = [];
    for (; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]); };
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (rgb) => rgb.map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const faint = [], nameless = [], small = [];
  for (const e of document.querySelectorAll('.fer-widget *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (own && e.checkVisibility() && !e.closest('.fer-off, .fer-said, option')) {
      const css = getComputedStyle(e), below = ground(e);
      const ink = over(rgba(e.closest('svg') ? css.fill : css.color), below);
      const [a, b] = [light(ink), light(below)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
      if (ratio < 4.5) faint.push(`${e.textContent}: ${ratio.toFixed(2)}`);
    }
    if (e.matches('input, select, button, [tabindex]') && e.checkVisibility()) {
      const labels = [...(e.labels || [])].map((l) => l.textContent).join('');
      const name = e.getAttribute('aria-label') || labels || e.textContent;
      if (!name.trim()) nameless.push(e.outerHTML);
      const box = (e.closest('label') || e).getBoundingClientRect();
      if (!e.classList.contains('fer-lens') && box.height < 24) small.push(`${e.outerHTML} ${box.height}`);
    }
  }
  return {faint, nameless, small};
}"""


def canvas(page, selector: str) -> np.ndarray:
    """The pixels of a canvas: (H, W, 3) uint8."""
    flat = page.eval_on_selector(
        selector,
        "c => [c.height, c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]",
    )
    return np.array(flat[2:], dtype=np.uint8).reshape(flat[0], flat[1], 4)[..., :3]


def go_live(page, figure: Explorer) -> None:
    """Show a figure as anywidget does: its module imported, with a model that keeps what it is told to save.

    Afterwards the page knows ``model``, ``saved`` (every saved state) and ``stop``.
    """
    page.evaluate(
        """async ([source, state]) => {
          const url = URL.createObjectURL(new Blob([source], {type: 'text/javascript'}));
          const heard = {}, saved = window.saved = [];
          const model = window.model = { get: (n) => state[n], on: (n, f) => (heard[n] ||= []).push(f),
            off: (n, f) => { heard[n] = heard[n].filter((g) => g !== f); },
            set: (n, v) => { state[n] = v; (heard[`change:${n}`] || []).forEach((f) => f()); },
            save_changes: () => saved.push({...state}) };
          const el = document.createElement('div');
          document.body.replaceChildren(document.querySelector('style'), el);
          window.stop = await (await import(url)).default.render({ model, el });
        }""",
        [f"{figure._source}\nexport default {{ render }};\n", figure.state()],
    )


def shown(explorer: AttentionExplorer, source: str, face: str, **how) -> np.ndarray:
    """The map (h, w) that the page shows for these settings, from the same bytes."""
    packed = next(one for one in explorer.data["sources"] if one["name"] == source)
    how = {"query": "token" if packed.get("prefix") else (0.5, 0.5), **how}
    return map_of(packed, explorer.data["faces"].index(face), **how)


def map_of(source, face, *, layer=None, head=None, step="softmax", query="all", level=None) -> np.ndarray:
    """What the page makes of a packed source: heads and queries averaged, levels added.

    The scores before the softmax are the logarithm of the shares: the same up to one constant a row.
    """
    if "size" in source:
        return unpack(source)[face]
    layers, prefix, levels = source["layers"], source["prefix"], source["levels"]
    block = next(one for one in reversed(layers) if layer in (None, one["name"]))
    block = block["rollout" if step == "rollout" else "softmax"]
    rows = unpack(block)[face]
    if head is not None and step != "rollout":
        rows = rows[head : head + 1]
    grids = range(max(1, len(levels))) if level is None else [levels.index(level)]
    if rows.shape[1] > 1 and not (query == "token" and prefix):
        side = block["asked"]
        cells = range(side * side)
        if not isinstance(query, str):
            x, y = (min(side - 1, max(0, int(v * side))) for v in query)
            cells = [y * side + x]
        rows = rows[:, [prefix + one * side * side + cell for one in grids for cell in cells]]
    else:
        rows = rows[:, :1]
    cells = rows[..., prefix:].reshape(-1, max(1, len(levels)), block["side"], block["side"])
    heat = cells.mean(0)[list(grids)].sum(0)
    with np.errstate(divide="ignore"):
        return np.log(heat) if step == "scores" else heat
