"""Train the networks whose attention chapter 8 shows and scores.

    python -m book.experiments.attention_models swin-drawn --epochs 5
    python -m book.experiments.attention_models vit-drawn --epochs 5
    python -m book.experiments.attention_models btn-drawn --faces 1536
    python -m book.experiments.attention_models btn-drawn --faces 1536 --seed 1
    python -m book.experiments.attention_models poster-drawn --faces 1792 --weights WEIGHTS

Those are the networks of the records.

Small Swin and small ViT, both behind the Neural Resizer, and the small Batch Transformer Network are trained
from scratch, all on synthetic faces. The large Batch Transformer Network (POSTER V2 with multi-level
attention and batch transformer, at its real size) keeps two pretrained branches as they are: the landmark
network, and MobileNetFaces in the place of IR50. Their maps are computed once; what stands behind them
learns from those. Each network goes to ``runs/attention/<name>/best.safetensors``.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from book.experiments import script
from ferlib import data, training
from ferlib.data.base import FaceDataset
from ferlib.data.faces import KeptFaces
from ferlib.evaluation import accuracy_interval
from ferlib.models import BatchTransformerNetwork, ResizedTransformer
from ferlib.models.mobilenet_faces import BRANCH_SIZES, centered_bgr
from ferlib.models.small import ResidualUnit
from ferlib.training.build import build_criterion, build_model, build_optimizer, set_lr
from ferlib.training.loop import train_step
from ferlib.training.recipes import Recipe, load_recipe
from ferlib.weights import checkpoints, load_pretrained

RUNS = Path("runs") / "attention"
LARGE_SIZE = 112  # pixels that the large network's landmark branch looks at


def recipes() -> dict[str, Recipe]:
    """Every network by its name. The Swin is ours: patches of 4 pixels, 14 x 14 places, then 7 x 7."""
    vit = load_recipe("vt-nr-ferplus-small").replace(data=None, seed=0)
    swin = vit.replace(
        model="ResizedTransformer",
        model_options=dict(
            backbone="swin_tiny_patch4_window7_224",
            in_size=96,
            out_size=56,
            hidden=128,
            dropout=0.2,
            resizer_options={"channels": 8, "start_bilinear": True},
            backbone_options=dict(
                embed_dim=64, depths=[2, 2], num_heads=[2, 4], window_size=7, drop_path_rate=0.05
            ),
        ),
    )
    large = Recipe(
        model="BatchTransformerNetwork",
        model_options=dict(
            face_backbone="mobilenet-faces",
            encoder_options=dict(resize="bilinear", landmark_input="unit"),
        ),
        weights={"face": "mobilenet-faces", "landmarks": "mobilefacenet"},
        image_size=LARGE_SIZE,
        loss="cross-entropy",
        targets="votes",
        vit_weight=5.0,
        epochs=1,
        batch_size=16,
        lr=3e-4,
        warmup=0.1,
        augment="none",
        clip=5.0,
        precision="auto",
        channels_last=False,
    )
    found = {
        "swin-drawn": swin,
        "vit-drawn": vit,
        "btn-drawn": load_recipe("btn-small-synthetic"),
        "poster-drawn": large,
    }
    return {name: recipe.replace(name=name) for name, recipe in found.items()}


class ResidualPatches(nn.Module):
    """Patches of 4 pixels by two halvings instead of one stride, for a Swin that is trained from scratch.

    Shape: (B, 3, S, S) -> (B, S/4, S/4, embed_dim), channels last; in the place of timm's patch embedding,
    as ``ferlib.models.resized_transformer.ResidualEmbedding`` does in the small ViT.
    """

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, **_: Any) -> None:
        super().__init__()
        side = img_size // patch_size
        self.img_size, self.patch_size = (img_size, img_size), (patch_size, patch_size)
        self.grid_size, self.num_patches = (side, side), side * side
        half = embed_dim // 2
        self.proj = nn.Sequential(
            nn.Conv2d(in_chans, half, 3, 2, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            ResidualUnit(half, half),
            ResidualUnit(half, embed_dim, stride=2),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).permute(0, 2, 3, 1)


def build(recipe: Recipe) -> nn.Module:
    """The recipe's network; the small Swin gets its residual patches, which a recipe cannot name."""
    if recipe.model != "ResizedTransformer":
        return build_model(recipe)
    options = copy.deepcopy(recipe.model_options)
    options["backbone_options"]["embed_layer"] = ResidualPatches
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return ResizedTransformer(num_classes=8, **options)


def faces(count: int) -> tuple[FaceDataset, FaceDataset]:
    """Synthetic faces to train on, and others to validate on."""
    train, valid = (
        KeptFaces(data.SyntheticFaces(length, size=48, seed=seed, framing="ferplus"))
        for length, seed in ((count, 0), (512, 1_000_003))
    )
    return train, valid


class FromMaps(nn.Module):
    """The large network, fed with row numbers instead of images: the frozen branches' maps are at hand.

    Shape: rows int64 (B,) -> as the network gives. ``maps`` holds half-precision maps of all faces.
    """

    def __init__(self, network: BatchTransformerNetwork, maps: dict[str, Tensor]) -> None:
        super().__init__()
        self.network, self.maps = network, maps
        branch = network.encoder.face
        branch.net.requires_grad_(False)
        self.adapt = branch.adapt
        network.encoder.face = _Answering(self)  # only inside this object; ``release`` puts it back
        self._branch = [branch]

    @torch.no_grad()
    def standardise(self, count: int) -> None:
        """Scale the face branch's 1x1 convolutions so that every channel has mean 0, deviation 1 on the
        first ``count`` faces: its maps are positive, and most of what they hold all faces have in common.
        """
        for level, conv in enumerate(self.adapt):
            maps = conv(self.maps[f"face{level}"][:count].float())
            mean, scale = maps.mean((0, 2, 3)), 1 / (maps.std((0, 2, 3)) + 1e-3)
            conv.weight.mul_(scale[:, None, None, None])
            conv.bias.sub_(mean).mul_(scale)

    def release(self) -> BatchTransformerNetwork:
        """The network as it was, with what it has learned."""
        self.network.encoder.face = self._branch[0]
        return self.network

    def forward(self, rows: Tensor):
        frozen = tuple(self.maps[f"landmarks{level}"][rows].float() for level in range(3))
        return self.network.outputs(rows, frozen) if self.training else self.network(rows, frozen)


class _Answering(nn.Module):
    """In the place of the face branch: rows in, its three maps out."""

    def __init__(self, owner: FromMaps) -> None:
        super().__init__()
        self._owner = [owner]  # in a list, so that no module holds its own parent

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        owner = self._owner[0]
        return tuple(
            F.interpolate(adapt(owner.maps[f"face{level}"][rows].float()), (side, side), mode="bilinear")
            for level, (adapt, side) in enumerate(zip(owner.adapt, BRANCH_SIZES, strict=True))
        )


@torch.no_grad()
def frozen_maps(network: BatchTransformerNetwork, images: Tensor) -> dict[str, Tensor]:
    """What both frozen branches make of images uint8 (N, 1, 48, 48): maps (N, C, h, w), half precision."""
    network.eval()
    parts: dict[str, list[Tensor]] = {}
    for some in images.split(64):
        pictures = data.model_input(some, size=LARGE_SIZE)
        for level, found in enumerate(network.frozen(pictures)):
            parts.setdefault(f"landmarks{level}", []).append(found.half())
        for level, found in enumerate(network.encoder.face.net(centered_bgr(pictures))):
            parts.setdefault(f"face{level}", []).append(found.half())
    return {name: torch.cat(found) for name, found in parts.items()}


def train_large(
    recipe: Recipe, sets: tuple[FaceDataset, FaceDataset], weights: Path | None
) -> tuple[nn.Module, dict]:
    """Everything behind the frozen branches learns. Nothing is varied: the maps are computed once."""
    network = build(recipe)
    load_pretrained(network, recipe.weights, weights)
    train, valid = (part.batch(range(len(part))) for part in sets)
    images = torch.cat([train["image"], valid["image"]])
    began = time.monotonic()
    model = FromMaps(network, frozen_maps(network, images))
    model.standardise(len(train["image"]))
    print(f"maps of {len(images)} faces in {time.monotonic() - began:.0f} s", flush=True)
    votes = train["votes"] / train["votes"].sum(1, keepdim=True)
    optimizer, criterion = build_optimizer(recipe, model), build_criterion(recipe)
    count, history = len(votes), []
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        losses, steps = [], list(_batches(count, recipe, epoch))
        for step, rows in enumerate(steps):
            set_lr(optimizer, recipe.lr_at(epoch - 1 + step / len(steps), 1 / len(steps)))
            loss, _ = train_step(
                model, criterion, optimizer, rows, votes[rows], clip=recipe.clip, precision=recipe.precision
            )
            losses.append(loss)
            if step % 16 == 0:
                print(f"epoch {epoch}, step {step}: {sum(losses[-16:]) / len(losses[-16:]):.3f}", flush=True)
        rows = torch.arange(count, len(images))
        model.eval()
        with torch.no_grad():
            answers = torch.cat([model(some) for some in rows.split(64)])
        hit = accuracy_interval(valid["label"], answers.argmax(1))
        history.append({"epoch": epoch, "train_loss": sum(losses) / len(losses), "valid_accuracy": hit.value})
        print(f"epoch {epoch}: {hit.percent()}", flush=True)
    return model.release(), {"history": history, "valid": dataclasses.asdict(hit)}


def _batches(count: int, recipe: Recipe, epoch: int) -> Iterator[Tensor]:
    draw = torch.Generator().manual_seed(1_000_003 * recipe.seed + epoch)
    order = torch.randperm(count, generator=draw)
    yield from (rows for rows in order.split(recipe.batch_size) if len(rows) == recipe.batch_size)


def run_folder(name: str, seed: int = 0, runs: Path = RUNS) -> Path:
    """Where a network is kept: ``swin-drawn``, ``swin-drawn-seed1``, ..."""
    return runs / (f"{name}-seed{seed}" if seed else name)


def load(name: str, seed: int = 0, runs: Path = RUNS) -> tuple[nn.Module, dict]:
    """A network that was trained here, in evaluation mode, and what is known of its training."""
    recipe = recipes()[name]
    network = build(recipe)
    note = checkpoints.load(run_folder(name, seed, runs) / "best.safetensors", network)
    return network.eval(), note


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("name", choices=sorted(recipes()))
    parser.add_argument("--weights", type=Path, help="folder of pretrained weights (README)")
    parser.add_argument("--faces", type=int, default=4096, help="training faces")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=RUNS)
    options = parser.parse_args()

    recipe = recipes()[options.name].replace(seed=options.seed)
    if options.epochs:
        recipe = recipe.replace(epochs=options.epochs)
    sets = faces(options.faces)
    folder = run_folder(options.name, options.seed, options.runs)
    began, processor = time.monotonic(), time.process_time()
    if recipe.weights:
        network, note = train_large(recipe, sets, options.weights)
    else:
        network = build(recipe)
        note = {"history": training.fit(network, build_criterion(recipe), *sets, recipe)}
        note["valid"] = note["history"][-1]["valid_accuracy"]
    note |= {
        "recipe": dataclasses.asdict(recipe),
        "faces": len(sets[0]),
        "valid faces": len(sets[1]),
        "minutes": (time.monotonic() - began) / 60,
        "processor minutes": (time.process_time() - processor) / 60,
    }
    path = checkpoints.save(folder / "best.safetensors", network, note)
    print(f"{path}: {note['valid']}")


if __name__ == "__main__":
    main()
