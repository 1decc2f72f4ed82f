"""When does batch attention help? A small network with and without it, on clean and corrupted faces.

    python -m book.experiments.batch_attention_ablation
    FERLIB_DATA=/path/to/FERPlus python -m book.experiments.batch_attention_ablation --noise-only

Two arms share the network, the first weights, the faces, their order and the number of steps. ``alone`` is
trained with the cross-entropy of its own output; the other with L = lambda L_VIT + L_BT + L_CBA, and all
three of its outputs are measured, in random batches of 64. Corruptions have three levels: wrong labels
(another class, drawn at random, in training only), a grey square over part of each face, and few pixels. The
latter two are in training and test, so that a network could learn to use the batch for them; the networks
trained on clean faces are tested on them too, as the paper does. Nothing is picked: the last step is
measured.

Writes ``book/results/batch_attention_<synthetic|ferplus>.json``: means over seeds with 95 % t-intervals,
differences paired by seed, and how many images an image attends to, by scale, before and after training.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from book.experiments import script
from book.experiments.ablation import about, difference, source, versions
from ferlib.data import open_faces
from ferlib.data.transforms import normalize, to_float, to_rgb
from ferlib.evaluation import ResultRecord, summarize
from ferlib.losses import BatchTransformerLoss
from ferlib.models import BatchTransformerNetwork, btn_small, class_batch_attention

NETWORK = {"dim": 32, "depth": 1, "widths": (8, 16, 48), "blocks": (1, 1, 1)}
LEVELS = {"label noise": (0, 20, 40), "covered": (0, 25, 50), "pixels across": (48, 16, 10)}
TROUBLES = ["as they are", *(f"{kind} {level}" for kind, levels in LEVELS.items() for level in levels[1:])]
SCALES = {"sqrt(C)": 8**-0.5, "sqrt(49)": 1 / 7}
ANSWERS = ("vit", "bt", "cba")
BATCH = 64


class Faces(NamedTuple):
    images: Tensor  # uint8 (N, 1, 48, 48)
    labels: Tensor


class ScaledAttention(nn.Module):
    """Class batch attention with a chosen scale in place of 1 / sqrt(C)."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return class_batch_attention(query, key, value, scale=self.scale)


def covered(images: Tensor, percent: int, seed: int) -> Tensor:
    """A grey square over this share of each picture, somewhere else in each."""
    side = round(48 * (percent / 100) ** 0.5)
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(48 - side + 1, (2, len(images), 1), generator=generator)
    place = torch.arange(48)
    down, across = ((place >= c) & (place < c + side) for c in corner)
    return torch.where((down[:, :, None] & across[:, None])[:, None], 128, images).to(torch.uint8)


def shrunk(images: Tensor, pixels: int) -> Tensor:
    """As a camera with so few pixels across sees it, brought back to 48."""
    small = F.interpolate(images.float(), size=pixels, mode="area")
    return F.interpolate(small, size=48, mode="bilinear").round().clamp(0, 255).to(torch.uint8)


def wrong(labels: Tensor, percent: int, seed: int) -> Tensor:
    """This share of the labels replaced by another class, each as likely."""
    generator = torch.Generator().manual_seed(seed)
    hit = torch.rand(len(labels), generator=generator) < percent / 100
    return torch.where(hit, (labels + torch.randint(1, 8, labels.shape, generator=generator)) % 8, labels)


def troubled(faces: Faces, trouble: str, seed: int) -> Faces:
    kind, _, level = trouble.rpartition(" ")
    if kind == "covered":
        return faces._replace(images=covered(faces.images, int(level), seed))
    if kind == "pixels across":
        return faces._replace(images=shrunk(faces.images, int(level)))
    if kind == "label noise":
        return faces._replace(labels=wrong(faces.labels, int(level), seed))
    return faces


def ready(images: Tensor) -> Tensor:
    """Network input at the pyramid's working size, so that it need not resize in each step."""
    big = F.interpolate(normalize(to_rgb(to_float(images))), size=(56, 56), mode="bilinear", antialias=True)
    return big.contiguous(memory_format=torch.channels_last)


def train(arm: str, faces: Faces, seed: int, steps: int, weight: float, scale: float):
    """The trained network, and how many images an image attended to before training."""
    torch.manual_seed(seed)
    model = btn_small(8, **NETWORK).to(memory_format=torch.channels_last)
    model.batch_transformer.attention = ScaledAttention(scale)
    x, y = ready(faces.images), faces.labels
    before = listening(model, x[:512], scale)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.15)
    criterion = BatchTransformerLoss(vit_weight=weight)
    per_epoch = len(x) // BATCH
    model.train()
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(x), generator=generator)
        rows = order[BATCH * (step % per_epoch) :][:BATCH]
        flip = torch.rand(BATCH, 1, 1, 1, generator=generator) < 0.5
        output = model(torch.where(flip, x[rows].flip(3), x[rows]))
        loss = criterion(output.vit if arm == "alone" else output, y[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 30.0)
        optimizer.step()
        schedule.step()
    return model, before


@torch.no_grad()
def maps(model: BatchTransformerNetwork, x: Tensor) -> tuple[Tensor, ...]:
    """Query, key (N, C, 49) and value (N, C): they do not depend on the batch."""
    parts = []
    for some in x.split(256):
        tokens, query, key = model.eval().levels(model.encoder(some))
        parts.append((*model.batch_transformer.pos_encoder(query, key), model.vit(tokens)))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def batches(count: int, seed: int) -> list[Tensor]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return [some for some in order.split(BATCH) if len(some) == BATCH]


def listening(model: BatchTransformerNetwork, x: Tensor, scale: float) -> dict[str, float]:
    """Images attended to, exp(entropy of a row) in [1, 64], and the weight of an image on itself."""
    query, key, value = maps(model, x)
    found = []
    for some in batches(len(x), 0):
        weights = class_batch_attention(
            query[some], key[some], value[some], scale=scale, return_weights=True
        )[1]
        number = torch.special.entr(weights).sum(-1).exp().mean()
        found.append(torch.stack([number, weights.diagonal(dim1=1, dim2=2).mean()]))
    number, itself = torch.stack(found).mean(0).tolist()
    return {"images listened to": number, "share given to itself": itself}


def measure(
    model: BatchTransformerNetwork, faces: Faces, scale: float, shuffles: int = 4
) -> dict[str, float]:
    """Accuracy of the three outputs in random batches, mean over shuffles of the test faces."""
    query, key, value = maps(model, ready(faces.images))
    right = {name: 0 for name in ANSWERS}
    seen = 0
    for shuffle in range(shuffles):
        for some in batches(len(value), 100 + shuffle):
            cba = class_batch_attention(query[some], key[some], value[some], scale=scale)
            for name, scores in zip(ANSWERS, (value[some], cba + value[some], cba), strict=True):
                right[name] += int((scores.argmax(1) == faces.labels[some]).sum())
            seen += len(some)
    return {name: count / seen for name, count in right.items()}


def run(arm: str, trouble: str, scale: str, seed: int, data: dict[str, Faces], options) -> dict:
    """One training and everything that is measured of it."""
    lesson = troubled(data["train"], trouble, seed=10 + seed)
    model, before = train(arm, lesson, seed, options.steps, options.vit_weight, SCALES[scale])
    found = {"before": before, "after": listening(model, ready(data["train"].images[:512]), SCALES[scale])}
    clean = ["as they are"] if options.noise_only else [t for t in TROUBLES if "noise" not in t]
    tests = [trouble] if trouble != "as they are" else clean
    for test in tests:
        exam = data["valid"] if "noise" in test else troubled(data["valid"], test, seed=7)
        found[test if test == trouble else f"{test}, test only"] = measure(model, exam, SCALES[scale])
    return found


def run_name(arm: str, trouble: str, scale: str, seed: int) -> str:
    """What a run is called in the file of finished runs."""
    return f"{arm}, {trouble}, {scale}, seed {seed}"


def plan(options) -> list[tuple[str, str, str, int]]:
    """(arm, trouble, scale, seed) of each run, seed by seed."""
    kinds = ["as they are", "label noise 40"] if options.noise_only else TROUBLES
    runs = []
    for seed in range(options.seeds):
        runs += [(arm, trouble, "sqrt(C)", seed) for trouble in kinds for arm in ("alone", "batch")]
        if not options.noise_only:
            runs += [("batch", "as they are", "sqrt(49)", seed)]
    return runs


def compare(record: ResultRecord, done: dict[str, dict], seeds: int) -> None:
    """Add accuracies and paired differences, by the trouble of the test."""

    def found(arm: str, trouble: str, scale: str, test: str, answer: str) -> list[float]:
        return [done[run_name(arm, trouble, scale, seed)][test][answer] for seed in range(seeds)]

    for trouble in TROUBLES:
        first = done.get(run_name("batch", trouble, "sqrt(C)", 0), {})
        for test in (t for t in first if t not in ("before", "after", "seconds")):
            alone = found("alone", trouble, "sqrt(C)", test, "vit")
            answers = {name: found("batch", trouble, "sqrt(C)", test, name) for name in ANSWERS}
            place = {"condition": test, "over": "seeds"}
            for name, values in {"alone": alone, **answers}.items():
                record.add("accuracy", summarize(values), name, **place)
            for name, values in answers.items():
                record.add_difference(name, "alone", difference(values, alone), **place)
            gap = difference(answers["bt"], answers["vit"])
            record.add_difference("bt", "vit", gap, **place)
    for name in ANSWERS if run_name("batch", "as they are", "sqrt(49)", 0) in done else ():
        usual, published = (
            found("batch", "as they are", scale, "as they are", name) for scale in reversed(SCALES)
        )
        place = {"condition": "as they are", "over": "seeds"}
        record.add("accuracy", summarize(usual), f"{name}, sqrt(49)", **place)
        record.add_difference(f"{name}, sqrt(49)", name, difference(usual, published), **place)


def shown(found: dict[str, dict]) -> dict[str, dict[str, float]]:
    """What one training reached, by test."""
    return {test: answers for test, answers in found.items() if isinstance(answers, dict) and "bt" in answers}


def attention(record: ResultRecord, done: dict[str, dict], seeds: int) -> None:
    """Add images listened to and share given to itself, by scale or trouble, before and after training."""
    runs = [("as they are", scale) for scale in SCALES]
    runs += [(trouble, "sqrt(C)") for trouble in TROUBLES[1:]]
    for trouble, scale in runs:
        names = [run_name("batch", trouble, scale, seed) for seed in range(seeds)]
        for when in ("before", "after") if names[0] in done else ():
            for what in ("images listened to", "share given to itself"):
                found = summarize([done[name][when][what] for name in names])
                record.add(what, found, f"{scale}, {when} training", condition=trouble, over="seeds")


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("--faces", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--vit-weight", type=float, default=5.0, help="lambda of the loss")
    parser.add_argument(
        "--noise-only", action="store_true", help="label noise at two levels, and nothing else"
    )
    options = parser.parse_args()
    done: dict[str, dict] = {}
    kept = {"train": open_faces("train", length=options.faces), "valid": open_faces("valid", length=1024)}
    data = {}
    for split, faces in kept.items():
        batch = faces.batch(range(len(faces)))
        data[split] = Faces(batch["image"], batch["label"])
    for arm, trouble, scale, seed in plan(options):
        name = run_name(arm, trouble, scale, seed)
        start = time.process_time()
        done[name] = run(arm, trouble, scale, seed, data, options)
        done[name]["seconds"] = time.process_time() - start
        reached = done[name][trouble]
        print(
            name,
            *(f"{k} {100 * v:.1f}" for k, v in reached.items()),
            f"{done[name]['seconds']:.0f} s",
            flush=True,
        )
    kind = source()
    record = ResultRecord(
        name=f"batch_attention_{kind}",
        what="A small Batch Transformer Network trained alone and in batches, on clean faces and in trouble: "
        "accuracy, means over seeds and paired differences with 95 % t-intervals",
        data=about(len(data["train"].labels), kept["valid"]),
        classes=list(kept["valid"].classes),
        settings=vars(options)
        | {
            "network": NETWORK,
            "levels": {"label noise": (0, 40)} if options.noise_only else LEVELS,
            "optimizer": "AdamW 4e-3, one cycle, batch 64, flips",
        },
        extra={
            "single trainings": [
                {
                    "arm": arm,
                    "condition": trouble,
                    "scale": scale,
                    "seed": seed,
                    "accuracy": shown(done[run_name(arm, trouble, scale, seed)]),
                }
                for arm, trouble, scale, seed in plan(options)
            ],
            "minutes": sum(found["seconds"] for found in done.values()) / 60,
            "parameters": sum(p.numel() for p in btn_small(8, **NETWORK).parameters()),
        },
        versions=versions(),
        command="python -m book.experiments.batch_attention_ablation"
        + (" --noise-only" if options.noise_only else ""),
    )
    compare(record, done, options.seeds)
    attention(record, done, options.seeds)
    print(record.save())
    print(record.table())


if __name__ == "__main__":
    main()
