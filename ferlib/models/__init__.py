"""The networks of both papers: plain torch modules that know nothing of data, losses or training."""

from ferlib.models.batch_transformer import BatchTransformer, class_batch_attention
from ferlib.models.btn import BatchTransformerNetwork, BTNOutput
from ferlib.models.costs import PartCost, part_costs
from ferlib.models.dic import DIC
from ferlib.models.ensemble import Ensemble
from ferlib.models.inference import for_inference
from ferlib.models.iresnet import IResNet50
from ferlib.models.load_report import LoadReport
from ferlib.models.mobilefacenet import MobileFaceNet, MobileFaceNetOutput
from ferlib.models.mobilenet_faces import MobileNetFaces, MobileNetFacesBranch
from ferlib.models.multi_level_attention import MultiLevelAttention
from ferlib.models.official import (
    Architecture,
    CheckpointError,
    architectures,
    from_official,
    place_official,
    register,
)
from ferlib.models.official_files import read_official
from ferlib.models.pocket import PocketNet
from ferlib.models.poster_v2 import PosterV2, PosterV2Encoder
from ferlib.models.pretrained import PRETRAINED, find_pretrained, load_pretrained
from ferlib.models.resized_transformer import (
    ResizedTransformer,
    classification_head,
    load_backbone,
)
from ferlib.models.resizer import (
    FixedResizer,
    NeuralResizer,
    ResidualBlock,
    bilinear,
    published_scale_factor,
)
from ferlib.models.small import btn_small
from ferlib.models.spatial_transformer import SpatialTransformer, warp
from ferlib.models.vt_nr import vt_nr_small

__all__ = [
    "DIC",
    "PRETRAINED",
    "Architecture",
    "BTNOutput",
    "BatchTransformer",
    "BatchTransformerNetwork",
    "CheckpointError",
    "Ensemble",
    "FixedResizer",
    "IResNet50",
    "LoadReport",
    "MobileFaceNet",
    "MobileFaceNetOutput",
    "MobileNetFaces",
    "MobileNetFacesBranch",
    "MultiLevelAttention",
    "NeuralResizer",
    "PartCost",
    "PocketNet",
    "PosterV2",
    "PosterV2Encoder",
    "ResidualBlock",
    "ResizedTransformer",
    "SpatialTransformer",
    "architectures",
    "bilinear",
    "btn_small",
    "class_batch_attention",
    "classification_head",
    "find_pretrained",
    "for_inference",
    "from_official",
    "load_backbone",
    "load_pretrained",
    "part_costs",
    "place_official",
    "published_scale_factor",
    "read_official",
    "register",
    "vt_nr_small",
    "warp",
]
