"""The stages of a small Batch Transformer Network, for :class:`ferlib.widgets.StagesExplorer`. Chapter 5."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ferlib.export import OPSET, resizing_matrix, store_half
from ferlib.models import BatchTransformerNetwork
from ferlib.widgets import StagesExplorer

OUTPUTS = ("vit", "cba", "bt")
WORDS = {
    "pixels": "The gray face as FER+ crops it.",
    "level 1": "After the stem and the first residual unit: edges and patches, still in their places.",
    "level 2": "Half as many places a side, twice as many channels.",
    "level 3": "The coarsest level.",
    "tokens": "Every level averaged to 7 × 7 places and mapped to one width: level 1, 2 and 3 side by side.",
    "mixed tokens": "The same tokens after multi-level attention.",
    "query maps": "For each class a map of 49 places, with which this face attends to the other images.",
    "key maps": "For each class a map of 49 places, with which other images find this face.",
}


class Stages(nn.Module):
    """A small network with all stages as outputs: a gray face (1, 1, S, S) in [0, 1] -> maps, logits."""

    def __init__(self, network: BatchTransformerNetwork, size: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("resizing_matrix", resizing_matrix(size, network.encoder.size, "bilinear"))
        self.register_buffer("pixel_mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("pixel_std", torch.tensor(IMAGENET_STD)[:, None, None])

    def forward(self, face: Tensor) -> tuple[Tensor, ...]:
        network, pyramid = self.network, self.network.encoder
        large = self.resizing_matrix @ face @ self.resizing_matrix.T
        levels = pyramid.maps((large.expand(-1, 3, -1, -1) - self.pixel_mean) / self.pixel_std)
        grids = [F.avg_pool2d(level, level.shape[-1] // 7).flatten(2).mT for level in levels]
        tokens = torch.cat([embed(grid) for embed, grid in zip(pyramid.embed, grids, strict=True)], 1)
        mixed, query, key = network.levels(tokens)
        vit = network.vit(mixed)
        cba, bt = network.batch_transformer(query, key, vit)
        maps = [part.unflatten(-1, (7, 7))[0] for part in (query, key)]
        rows = [part[0].unflatten(0, (3, 7, 7)).permute(3, 1, 0, 2).flatten(2) for part in (tokens, mixed)]
        return face[0] * 1.0, *(level[0] for level in levels), *rows, *maps, vit[0], cba[0], bt[0]


def stages_explorer(
    network: BatchTransformerNetwork, face: Tensor, others: Tensor, classes: Sequence[str]
) -> StagesExplorer:
    """A network opened for one face, and the file with which a page runs it on another.

    Args:
        network: A ``btn_small`` in evaluation mode; its weights are rounded to half precision.
        face: A gray face (1, S, S), uint8.
        others: The network's input for the other images of the batch, (M, 3, H, W).
        classes: Names of its classes.
    """
    network = copy.deepcopy(network).eval()
    network.set_reference(others)
    store_half(network)
    stages, pixels = Stages(network, face.shape[-1]).eval(), face[None].float() / 255
    with torch.no_grad():
        found = dict(zip([*WORDS, *OUTPUTS], stages(pixels), strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names = [name.replace(" ", "_") for name in found]
            how = {"dynamo": True, "verbose": False, "optimize": False, "opset_version": OPSET}
            how |= {"input_names": ["face"], "output_names": names}
            program = torch.onnx.export(stages, (pixels,), **how)
        model = program.model_proto
        for part in (model, model.graph, *model.graph.node, *model.graph.value_info):
            part.ClearField("metadata_props")  # where each step stood in the source
    file = model.SerializeToString(deterministic=True)
    outputs = {name: found.pop(name) for name in OUTPUTS}
    sizes = {name: " × ".join(map(str, maps.shape)) for name, maps in found.items()}
    for name in ("tokens", "mixed tokens"):
        sizes[name] = f"147 tokens of {len(found[name])}"
    return StagesExplorer(found, outputs, classes, sizes=sizes, words=WORDS, model=file)
