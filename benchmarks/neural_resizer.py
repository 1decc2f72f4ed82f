"""One training step of the Neural Resizer's system at 384 -> 224: the original's formulation and ferlib's.

A step is forward, F-PDLS, backward and Adam, on the same weights and the same batch, in turn (``turns.py``):

- ``original``: the layers as released (one module per operation, nothing in place), the transformer's
  attention written out as ``timm`` computed it in 2022, contiguous memory, F-PDLS face by face;
- ``ferlib``: the library's modules as they come;
- ``ferlib, defaults``: what the recipes set: channels last, bf16 autocast where the processor computes in it
  (--precision), torch.compile with --compile (minutes of preparation; pays on a GPU).

Prints seconds, ratios and the memory of the process that the steps add at most. Asserts that logits and first
gradients agree, and no time::

    python benchmarks/neural_resizer.py [--batch 4] [--rounds 5] [--device cpu] [--threads 2] [--compile]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import timm
import torch
import torch.nn.functional as F
from f_pdls import ALPHA, GAMMA, face_by_face
from torch import Tensor, nn
from turns import take_turns

from ferlib.losses import FocalPDLSLoss
from ferlib.models import ResizedTransformer
from ferlib.training.device import autocast, computes_bf16

WAYS = ("original", "ferlib", "ferlib, defaults")


class OriginalFront(nn.Module):
    """Spatial transformer and resizer as released: every operation on its own, nothing in place."""

    def __init__(self, ours: ResizedTransformer) -> None:
        super().__init__()
        self.stn, self.res = ours.spatial_transformer, ours.resizer  # the same layers and weights

    def forward(self, x: Tensor) -> Tensor:
        look, regress, res = self.stn.localiser, self.stn.regressor, self.res
        seen = F.relu(F.max_pool2d(look[0](x), 2))
        seen = F.relu(F.max_pool2d(look[3](seen), 2))
        theta = regress[2](F.relu(regress[0](seen.flatten(1)))).view(-1, 2, 3)
        x = F.grid_sample(x, F.affine_grid(theta, x.size(), align_corners=True), align_corners=True)
        lifted = F.leaky_relu(res.features.lift(x), 0.2)
        lifted = res.features.norm(F.leaky_relu(res.features.mix(lifted), 0.2))
        lifted = F.interpolate(lifted, scale_factor=0.584, mode="bilinear", align_corners=False)
        small = F.interpolate(x, scale_factor=0.584, mode="bilinear", align_corners=False)
        out = lifted
        for block in res.blocks:
            inner = F.leaky_relu(block.norm1(block.conv1(out)), 0.2)
            out = out + block.norm2(block.conv2(inner))
        out = lifted + res.fuse.norm(res.fuse.conv(out))
        return res.to_image(out) + small


def original_attention(self: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Window attention of ``timm`` in 2022: scores, bias, mask, softmax, each a tensor of its own."""
    windows, tokens, width = x.shape
    qkv = self.qkv(x).reshape(windows, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    index = self.relative_position_index.view(-1)
    bias = self.relative_position_bias_table[index].view(tokens, tokens, -1).permute(2, 0, 1).contiguous()
    scores = (query * self.scale) @ key.transpose(-2, -1) + bias.unsqueeze(0)
    if mask is not None:
        kinds = mask.shape[0]
        scores = scores.view(windows // kinds, kinds, self.num_heads, tokens, tokens)
        scores = (scores + mask.unsqueeze(1).unsqueeze(0)).view(-1, self.num_heads, tokens, tokens)
    mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(windows, tokens, width)
    return self.proj_drop(self.proj(mixed))


def build(way: str, options: argparse.Namespace) -> tuple[Callable[[], Tensor], nn.Module]:
    """A function that makes one training step, and the network it trains."""
    torch.manual_seed(0)
    ours = ResizedTransformer(options.backbone, 8, dropout=0.0, backbone_options={"drop_path_rate": 0.0})
    with torch.no_grad():  # away from the identity, so that the warp reads between pixels
        ours.spatial_transformer.regressor[2].bias.add_(0.05 * torch.randn(6))
    images = torch.randn(options.batch, 3, 384, 384, device=options.device)
    target = (torch.arange(options.batch) % 8).to(options.device)
    ours.to(options.device)
    precision, loss = "fp32", FocalPDLSLoss(ALPHA, GAMMA).to(options.device)
    model: nn.Module = ours
    if way == "original":
        loss = face_by_face
        kind = timm.models.swin_transformer.WindowAttention
        for module in ours.backbone.modules():
            if isinstance(module, kind):
                module.forward = original_attention.__get__(module)
        model = nn.Sequential(OriginalFront(ours), ours.backbone, ours.head)
    elif way == "ferlib, defaults":
        precision = options.precision
        model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
        if options.compile:
            model.compile()
    optimizer = torch.optim.Adam(ours.parameters(), lr=1e-4)
    device = torch.device(options.device)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, device):
            logits = model(images)
        loss(logits.float(), target).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return logits.detach()

    return step, ours


def ready(way: str, options: argparse.Namespace) -> Callable[[], Tensor]:
    """One training step, ready to be called."""
    return build(way, options)[0]


def check(options: argparse.Namespace) -> None:
    """The three ways agree: logits, and the gradient of the resizer's last layer."""
    gradient, logits = {}, {}
    for way in WAYS:
        step, model = build(way, options)
        logits[way] = step().float().cpu()
        gradient[way] = model.resizer.to_image.weight.grad.float().cpu()
    for way in WAYS[1:]:
        rounded = way != "ferlib" and options.precision == "bf16"
        compared = [("logits", logits, 0.1 if rounded else 2e-3)]
        if not rounded:  # batch norm over a few faces makes gradients too touchy for eight bits
            compared.append(("gradient", gradient, 2e-2))
        for kind, found, part in compared:
            scale = found["original"].abs().max()
            far = float((found[way] - found["original"]).abs().max() / scale)
            assert far < part, f"{way}: {kind} differ by {far:.3f} of their largest value"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="swin_tiny_patch4_window7_224", help="any Swin of timm")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: bf16 where it is computed")
    parser.add_argument("--compile", action="store_true", help="compile the third way")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    computed = "bf16" if computes_bf16(torch.device(options.device).type) else "fp32"
    options.precision = options.precision or computed
    check(options)
    costs = take_turns(partial(ready, options=options), WAYS, options.rounds, threads=options.threads)
    print(
        f"{options.backbone} behind the resizer, training step, batch {options.batch}, {options.device}, "
        f"{options.threads} threads, torch {torch.__version__}, timm {timm.__version__}, defaults: channels "
        f"last, {options.precision}{', compiled' if options.compile else ''}"
    )
    base = costs["original"]
    for way, cost in costs.items():
        print(
            f"  {way:18s} median {cost.median:7.3f} s   {base.median / cost.median:5.2f} x as fast   peak "
            f"+{cost.added:7.0f} MiB, {cost.added / base.added:4.2f} of the original's"
        )


if __name__ == "__main__":
    main()
