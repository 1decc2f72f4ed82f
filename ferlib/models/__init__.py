"""The networks of both papers: plain torch modules that know nothing of data, losses, training or files."""

from collections.abc import Callable

from torch import nn

from ferlib.models.batch_transformer import BatchTransformer, class_batch_attention
from ferlib.models.btn import BatchTransformerNetwork, BTNOutput, MultiLevelAttention
from ferlib.models.common import evaluating
from ferlib.models.dic import DIC
from ferlib.models.iresnet import IResNet50
from ferlib.models.mobilefacenet import MobileFaceNet, MobileFaceNetOutput
from ferlib.models.mobilenet_faces import MobileNetFaces, MobileNetFacesBranch
from ferlib.models.pocket import Ensemble, PocketNet
from ferlib.models.poster_v2 import PosterV2, PosterV2Encoder
from ferlib.models.resized_transformer import ResizedTransformer, classification_head, vt_nr_small
from ferlib.models.resizer import (
    FixedResizer,
    NeuralResizer,
    ResidualBlock,
    bilinear,
    published_scale_factor,
)
from ferlib.models.small import btn_small
from ferlib.models.spatial_transformer import SpatialTransformer, warp

#: The networks that a recipe, an ensemble or a checkpoint may name.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "BatchTransformerNetwork": BatchTransformerNetwork,
    "Ensemble": Ensemble,
    "PocketNet": PocketNet,
    "PosterV2": PosterV2,
    "ResizedTransformer": ResizedTransformer,
    "btn_small": btn_small,
    "vt_nr_small": vt_nr_small,
}

__all__ = [
    "DIC",
    "NETWORKS",
    "BTNOutput",
    "BatchTransformer",
    "BatchTransformerNetwork",
    "Ensemble",
    "FixedResizer",
    "IResNet50",
    "MobileFaceNet",
    "MobileFaceNetOutput",
    "MobileNetFaces",
    "MobileNetFacesBranch",
    "MultiLevelAttention",
    "NeuralResizer",
    "PocketNet",
    "PosterV2",
    "PosterV2Encoder",
    "ResidualBlock",
    "ResizedTransformer",
    "SpatialTransformer",
    "bilinear",
    "btn_small",
    "class_batch_attention",
    "classification_head",
    "evaluating",
    "published_scale_factor",
    "vt_nr_small",
    "warp",
]
