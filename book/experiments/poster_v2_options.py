"""What each odd behaviour of POSTER V2's released code does: to the logits, and to its landmark branch.

    python -m book.experiments.poster_v2_options --weights /path/to/mobilefacenet.safetensors

Logits: the same weights with one behaviour exchanged at a time, on drawn faces of 224 pixels. The landmark
branch has its published weights; all others are drawn, normal with variance 1 / fan-in, gains too, since
trained weights of the whole network are not to be had by everybody. Number: |z' - z| over |z - mean z| per
face (1 is as much as the logits differ among themselves), mean over faces; interval: lowest and highest of
the draws of weights.

Drift: the published file holds batch norms folded into their convolutions, so statistics are first given
back, measured on drawn faces as the network was trained, in [0, 1]; in evaluation mode this changes nothing.
Then the branch sees batches in training mode, as in the released code, whose images are ImageNet-normalised;
and, to compare, in [0, 1]. Nothing is learned. In training mode each batch norm sees what those before it
have normalised with the batch's own statistics, so a change of the input moves the first most. Writes
``book/results/poster_v2_options.json``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from book.experiments import script
from ferlib.data import SyntheticFaces
from ferlib.data.transforms import normalize
from ferlib.evaluation import Interval, ResultRecord
from ferlib.models import MobileFaceNet, PosterV2
from ferlib.weights import load_network

NAME = "poster_v2_options"
FACES, DRAWS = 6, 3  # faces of 224 pixels for the logits; draws of weights
OPTIONS = {
    "resize: bilinear": {"resize": "bilinear"},
    "shortcut: input": {"shortcut": "input"},
    "project_query: a random projection": {"project_query": True},
    "windows: 14, 7, 7": {"windows": (14, 7, 7)},
    "windows: 7, 7, 7": {"windows": (7, 7, 7)},
    "landmark_input: unit": {"landmark_input": "unit"},
}
EPS = 1e-5  # batch norm's own; a channel that is always zero has this variance
STEPS = (1, 10, 30, 60)


def draw(model: nn.Module, seed: int) -> None:
    """Weights by one rule: matrices N(0, 1 / fan-in), norms about 1, biases about 0."""
    torch.manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
            tensor.uniform_(0.8, 1.2)
        elif name.endswith(("bias", "running_mean")):
            tensor.normal_(0, 0.02)
        else:
            fan_in = tensor[0].numel() if tensor.ndim > 1 else len(tensor)
            tensor.normal_(0, fan_in**-0.5)
    for module in model.modules():
        if isinstance(module, nn.PReLU):
            module.weight.data.fill_(0.25)


def transfer(source: PosterV2, options: dict, seed: int) -> PosterV2:
    """A network with other options and the same weights; of a smaller window's bias table, the middle."""
    other = PosterV2(7, **options).eval()
    state = dict(source.state_dict())
    for name, tensor in other.state_dict().items():
        if name not in state:  # the optional query projection: drawn, since its start is the identity
            torch.manual_seed(seed)
            state[name] = torch.randn_like(tensor) * (tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0)
        elif state[name].shape != tensor.shape:  # ((2 W - 1)^2, heads) -> ((2 w - 1)^2, heads)
            wide, narrow = (round(len(t) ** 0.5) for t in (state[name], tensor))
            cut = slice((wide - narrow) // 2, (wide + narrow) // 2)
            state[name] = state[name].view(wide, wide, -1)[cut, cut].flatten(0, 1)
    other.load_state_dict(state, strict=True)
    return other


@torch.inference_mode()
def logit_changes(images: Tensor, landmarks: dict[str, Tensor], seeds: int) -> dict[str, list[dict]]:
    """Per option and draw of weights: relative change of the logits, share of faces whose class changes."""
    found: dict[str, list[dict]] = {name: [] for name in OPTIONS}
    for seed in range(seeds):
        source = PosterV2(7).eval()
        draw(source, seed)
        source.encoder.landmarks.load_state_dict(landmarks)
        plain = source(images)
        spread = (plain - plain.mean(1, keepdim=True)).norm(dim=1)
        for name, options in OPTIONS.items():
            other = transfer(source, options, seed)(images)
            change = ((other - plain).norm(dim=1) / spread).mean()
            moved = (other.argmax(1) != plain.argmax(1)).float().mean()
            found[name].append({"change": float(change), "other class": float(moved)})
    return found


@torch.inference_mode()
def unfold(network: MobileFaceNet, images: Tensor) -> None:
    """Give every batch norm the statistics of these images, and weights with which nothing changes."""
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def look(module: nn.Module, given: tuple, _: Tensor) -> None:
        axes = (0, 2, 3) if given[0].ndim == 4 else (0,)
        seen[module] = given[0].mean(axes), given[0].var(axes, correction=0)

    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [m.register_forward_hook(look) for m in norms]
    network.eval()(images)
    for hook, norm in zip(hooks, norms, strict=True):
        hook.remove()
        mean, var = seen[norm]
        slope = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias += (mean - norm.running_mean) * slope
        norm.weight.copy_(slope * (var + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)


@torch.inference_mode()
def drift(network: MobileFaceNet, batches: list[Tensor], probe: SyntheticFaces, normalised: bool) -> list:
    """Landmark error and movement of the statistics before and after numbers of training-mode steps."""
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    faces = probe.batch(range(len(probe)))
    images, truth = faces["image"].float() / 255, faces["landmarks"] / probe.size
    eyes = (truth[:, 36] - truth[:, 45]).norm(dim=1)
    maps = network.eval().features(normalize(images))

    def miss(given: Tensor) -> float:
        points = network(given).landmarks
        return float(((points - truth).norm(dim=2).mean(1) / eyes).mean())

    def look(step: int) -> dict:
        network.eval()
        moved = {}
        for name, tensor in network.state_dict().items():
            if name.endswith("running_mean") and "output_layer" not in name:
                spread = (start[name.replace("mean", "var")] + EPS).sqrt()
                moved[name] = ((tensor - start[name]).abs() / spread).mean()
        now = network.features(normalize(images))
        changes = [float((a - b).norm() / b.norm()) for a, b in zip(now, maps, strict=True)]
        first, *others = moved.values()
        return {
            "step": step,
            "landmark error, images in [0, 1]": miss(images),
            "landmark error, images ImageNet-normalised": miss(normalize(images)),
            "first batch norm's means moved, in standard deviations": float(first),
            "the others' means moved, in standard deviations": float(torch.stack(others).mean()),
            "fine maps changed, images ImageNet-normalised": changes[0],
            "coarse maps changed, images ImageNet-normalised": changes[2],
        }

    curve = [look(0)]
    for step in range(1, STEPS[-1] + 1):
        network.train()
        batch = batches[(step - 1) % len(batches)]
        network.features(normalize(batch) if normalised else batch)
        if step in STEPS:
            curve.append(look(step))
    network.load_state_dict(start)
    return curve


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument(
        "--weights", required=True, type=Path, help="MobileFaceNet, 68 landmarks, safetensors"
    )
    options = parser.parse_args()
    network = load_network(options.weights, MobileFaceNet())
    landmarks = {n: t for n, t in network.state_dict().items() if not n.startswith("output_layer.")}
    record = ResultRecord(
        NAME,
        "relative change of POSTER V2's logits when one behaviour of the released code is exchanged, same "
        "weights; and how far the landmark branch's batch norms drift in training mode",
        data={"name": "SyntheticFaces", "faces": FACES, "framing": "portrait", "seed": 0},
        settings={
            "logits": "224 pixels, landmark branch with published weights, all other weights drawn",
            "draws of weights": DRAWS,
            "interval": "lowest and highest draw",
            "drift": "batches of 16 drawn faces of 112 pixels, momentum 0.1, nothing learned",
            "landmark error": "normalised mean error of 64 other drawn faces, evaluation mode",
        },
        command=f"python -m book.experiments.{NAME} --weights mobilefacenet.safetensors",
    )
    large = SyntheticFaces(FACES, 224, 0, channels=3)
    images = normalize(large.batch(range(len(large)))["image"].float() / 255)
    for name, draws in logit_changes(images, landmarks, DRAWS).items():
        changes = [d["change"] for d in draws]
        found = Interval(sum(changes) / len(changes), min(changes), max(changes))
        record.add("change of the logits", found, name, over="draws")
        record.extra[f"{name}: share of faces with another class"] = [d["other class"] for d in draws]
    train = SyntheticFaces(16 * 25, 112, 1, channels=3)
    batches = [train.batch(rows)["image"].float() / 255 for rows in torch.arange(len(train)).split(16)]
    probe = SyntheticFaces(64, 112, 2, channels=3)
    before = network(probe.batch(range(8))["image"].float() / 255).landmarks
    unfold(network, torch.cat(batches[:8]))
    torch.testing.assert_close(
        network(probe.batch(range(8))["image"].float() / 255).landmarks, before, rtol=1e-3, atol=1e-3
    )
    record.extra["drift, images ImageNet-normalised (released)"] = drift(network, batches, probe, True)
    record.extra["drift, images in [0, 1]"] = drift(network, batches, probe, False)
    path = record.save()
    print(record.table())
    for name, value in record.extra.items():
        print(name, value)
    print(f"{path} written")


if __name__ == "__main__":
    main()
