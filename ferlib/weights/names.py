"""Weights of the original programs under the names of this library: strictly, every shape checked.

The networks here have names that say what a layer does; the originals have their own. Each original network
is one :class:`Architecture`: how to build ours, and what the original calls each of our tensors. Nothing is
loaded in part unless that is asked for, and nothing is dropped silently: what is missing, unexpected or of
another shape is listed in one report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ferlib import models
from ferlib.errors import choose
from ferlib.models import iresnet, mobilenet_faces
from ferlib.weights.checkpoints import CheckpointError
from ferlib.weights.reading import state_dict_in

Shape = tuple[int, ...]
Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
Named = dict[str, Tensor]


# The report


@dataclass
class LoadReport:
    """Every name of the file and of the network, and its place; ``str()`` is the whole report.

    Attributes:
        architecture: Whose names they are.
        part: The part of the network that alone was asked for, or None.
        matched: Our names that got a tensor of the file, in our order.
        missing: Names that the network needs and the file lacks, with the shape they should have.
        unexpected: Names of the file that found no place, with their shapes.
        misshaped: Names with the shape found and the shape expected.
        set_aside: Names of the file that are known not to affect the output, or that a mapping drops.
        at_start: Our names that were not looked for; the network keeps its start values there.
        inert: Classes that the file named and that were not run.

    Chapter 6.
    """

    architecture: str
    part: str | None = None
    matched: list[str] = field(default_factory=list)
    missing: dict[str, Shape] = field(default_factory=dict)
    unexpected: dict[str, Shape] = field(default_factory=dict)
    misshaped: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    set_aside: list[str] = field(default_factory=list)
    at_start: list[str] = field(default_factory=list)
    inert: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, unexpected or of another shape; where only a ``part`` was asked for,
        what the file holds besides does not count.
        """
        return not (self.missing or self.misshaped or (self.unexpected and self.part is None))

    def __str__(self) -> str:
        whole = f"the part {self.part!r} is whole" if self.part else "everything has its place"
        verdict = whole if self.complete else "does not fit"
        lines = [f"{self.architecture}: {len(self.matched)} tensors matched, {verdict}"]
        for title, entries in (
            ("missing in the file", [f"{name}  {_text(a)}" for name, a in self.missing.items()]),
            ("in the file, without a place here", [f"{n}  {_text(a)}" for n, a in self.unexpected.items()]),
            (
                "of another shape",
                [f"{n}  {_text(a)}, expected {_text(b)}" for n, (a, b) in self.misshaped.items()],
            ),
            ("set aside, they do not touch the output", _groups(self.set_aside)),
            ("not from the file, they keep their start values", _groups(self.at_start)),
            ("classes in the file that were not run", self.inert),
        ):
            if entries:
                lines += [f"  {title}:", *(f"    {entry}" for entry in entries)]
        return "\n".join(lines)


def _text(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _groups(names: Iterable[str]) -> list[str]:
    """Names that begin alike as one: "output_layer.* (5)"."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(".".join(name.split(".")[:2]), []).append(name)
    return [same[0] if len(same) == 1 else f"{start}.* ({len(same)})" for start, same in groups.items()]


# Placing


@dataclass(frozen=True)
class Architecture:
    """How one original network corresponds to ours.

    Attributes:
        build: Makes our module; it is called once, on the meta device, so that it costs no memory.
        rules: Patterns and replacements that turn our name of a tensor into the original's, one after the
            other.
        unused: Prefixes of original tensors that do not affect the output and are left out on purpose.
        optional: Parts of our names that the original lacks; they keep their start values.
        translate: Changes the names of another version of the same network, where there is one.
        parts: Parts that can be asked for alone, each with the prefixes of our names in it.
    """

    build: Callable[[], nn.Module]
    rules: Rules = ()
    unused: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    translate: Callable[[Named], Named] | None = None
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def official_name(self, name: str) -> str:
        """The original's name of our tensor ``name``."""
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        return name


@cache
def our_shapes(architecture: str) -> dict[str, torch.Size]:
    """Names and shapes of our network's tensors, built without memory."""
    with torch.device("meta"):
        module = ARCHITECTURES[choose("architecture", architecture, ARCHITECTURES, CheckpointError)].build()
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def from_official(state_dict: Mapping[str, Tensor], architecture: str) -> Named:
    """The original program's weights under our names, ready for ``load_state_dict``.

    Every tensor keeps its shape and values; nothing is copied. Wrappers (``{"state_dict": ...}``) and
    prefixes of training programs are taken off. Batch norm's ``num_batches_tracked``, which inference-only
    files lack and no output depends on, is filled with zero where it is absent.

    Args:
        state_dict: Original names, or names that are already ours, to tensors.
        architecture: A key of ``ARCHITECTURES``.

    Returns:
        Our names to the same tensors, in our order.

    Raises:
        CheckpointError: An unknown architecture, naming the known ones; or weights that do not fit, listing
            every missing, unexpected and misshaped name.

    Source: names as in the released code of each paper. Chapter 6.
    """
    ours, report = place_official(state_dict, architecture)
    if not report.complete:
        raise CheckpointError(f"these are not the weights of {architecture!r}\n{report}")
    return ours


def place_official(
    state_dict: Mapping[str, Tensor],
    architecture: str,
    *,
    part: str | None = None,
    mapping: Mapping[str, str | None] | None = None,
    shapes: Mapping[str, torch.Size] | None = None,
) -> tuple[Named, LoadReport]:
    """As :func:`from_official`, but what does not fit is reported, not raised.

    Args:
        state_dict: Original names, or names that are already ours, to tensors.
        architecture: A key of ``ARCHITECTURES``.
        part: A part of the network to look for alone ("poster-v2" of "btn-7" and "btn-8"); what else the file
            holds is reported as without a place, and does no harm.
        mapping: Places for names that the architecture does not know, {name or prefix in the file: name or
            prefix here, or None to drop it}; it goes before everything else.
        shapes: The names and shapes to fill, by default those of the whole network.

    Raises:
        CheckpointError: An unknown architecture or part, a mapping that names what is not there, and what is
            no state dict.

    Chapter 6.
    """
    known, entry = our_shapes(architecture), ARCHITECTURES[architecture]
    shapes = known if shapes is None else shapes
    if part is not None:
        choose(f"part of {architecture}", part, entry.parts, CheckpointError)
    given = state_dict_in(state_dict)
    placed, dropped = _by_mapping(given, mapping or {}, shapes)
    rest = {name: tensor for name, tensor in given.items() if name not in {*placed.values(), *dropped}}
    converted = bool(rest) and rest.keys() <= known.keys()
    if converted:
        names = {ours: ours for ours in shapes}
        absent = [ours for ours in shapes if ours not in rest and ours not in placed]
        for found, prefixes in entry.parts.items():
            part = part or (found if absent and not any(n.startswith(prefixes) for n in absent) else None)
    else:
        rest = entry.translate(rest) if entry.translate else rest
        names = {ours: entry.official_name(ours) for ours in shapes}
    inside = entry.parts[part] if part else ""
    wanted = {
        ours: theirs
        for ours, theirs in names.items()
        if ours not in placed and (ours.startswith(inside) or (converted and ours in rest))
    }
    found = {ours: given[theirs] for ours, theirs in placed.items()}
    found |= {ours: rest[theirs] for ours, theirs in wanted.items() if theirs in rest}
    report = LoadReport(architecture, part, inert=list(getattr(state_dict, "inert", ())))
    for ours, theirs in list(wanted.items()):
        if ours not in found and ours.endswith("num_batches_tracked"):
            found[ours] = torch.zeros((), dtype=torch.int64)
        elif ours not in found and any(word in ours for word in entry.optional):
            del wanted[ours]
        elif ours not in found:
            report.missing[theirs] = tuple(shapes[ours])
    for ours, tensor in found.items():
        if tensor.shape != shapes[ours]:
            theirs = placed.get(ours) or names[ours]
            report.misshaped[theirs] = (tuple(tensor.shape), tuple(shapes[ours]))
    left = {name: tuple(t.shape) for name, t in rest.items() if name not in set(wanted.values())}
    unused = [name for name in left if name.startswith(entry.unused)] if entry.unused else []
    report.set_aside = dropped + unused
    report.unexpected = {name: shape for name, shape in left.items() if name not in unused}
    report.matched = [ours for ours in shapes if ours in found]
    report.at_start = [ours for ours in shapes if ours not in found and ours not in wanted]
    return {ours: found[ours] for ours in report.matched}, report


def _by_mapping(
    given: Mapping[str, Tensor], mapping: Mapping[str, str | None], shapes: Mapping[str, torch.Size]
) -> tuple[dict[str, str], list[str]]:
    """Our name -> theirs for every tensor that a mapping places, and the names that it drops."""
    placed, dropped, used, wrong = {}, [], set(), []
    for theirs in given:
        parts = theirs.split(".")
        prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        prefix = next((p for p in prefixes if p in mapping), None)
        if prefix is None:
            continue
        used.add(prefix)
        if mapping[prefix] is None:
            dropped.append(theirs)
            continue
        ours = mapping[prefix] + theirs[len(prefix) :]
        if ours not in shapes:
            wrong.append(f"{theirs!r} is to become {ours!r}, which the network does not have")
        elif ours in placed:
            wrong.append(f"{theirs!r} and {placed[ours]!r} are both to become {ours!r}")
        placed[ours] = theirs
    wrong += [f"{name!r} is no name or prefix in the file" for name in mapping if name not in used]
    if wrong:
        raise CheckpointError("the mapping does not fit: " + "; ".join(wrong))
    return placed, dropped


def read_mapping(path: str | Path) -> dict[str, str | None]:
    """{name or prefix in the file: name or prefix here, or None}, from a JSON file.

    Raises:
        CheckpointError: A file that is not there or holds anything else.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read the mapping {path}: {str(error)[:200]}") from error
    pairs = found.items() if isinstance(found, dict) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(place, str | None) for name, place in pairs):
        raise CheckpointError(f"the mapping {path.name} is not of the form {{name: name, or null}}")
    return dict(pairs)


# The tables


def _up(pattern: str) -> Callable[[re.Match[str]], str]:
    """A replacement in which {n} is the first group, a number, plus one, and {rest} the second group."""
    return lambda found: pattern.format(n=int(found[1]) + 1, rest=found[2] if found.re.groups > 1 else "")


def _table(text: str) -> Rules:
    """One rule a line: a pattern of our names, and what the original has there."""
    rows = (line.split() for line in text.strip().splitlines())
    return [(pattern, _up(theirs) if "{" in theirs else theirs) for pattern, theirs in rows]


def _inside(ours: str, theirs: str, architecture: str) -> Rules:
    """A whole network as a part of another one."""
    return [(rf"^{ours}\.(.*)", lambda found: theirs + ARCHITECTURES[architecture].official_name(found[1]))]


RESIZER = _table(r"""
    ^features\.lift    conv1
    ^features\.mix     conv2
    ^features\.norm    bn1
    ^blocks\.0\.norm   resblock.0.bn
    ^blocks\.0         resblock.0
    ^fuse\.conv        conv3
    ^fuse\.norm        bn2
    ^to_image          conv4
""")
SPATIAL = _table(r"""
    ^localiser  localization
    ^regressor  fc_loc
""")
IR50 = _table(r"""
    ^stem           input_layer
    ^stages\.(\d)   body{n}
    residual        res_layer
    shortcut        shortcut_layer
""")
POSTER = _table(r"""
    ^vit\.head                               vit.head.linear
    ^vit\.                                   VIT.
    ^encoder\.landmarks                      face_landback
    ^encoder\.landmark_conv                  last_face_conv
    ^encoder\.embed\.0                       embed_q
    ^encoder\.embed\.1                       embed_k.0
    ^encoder\.embed\.2                       embed_v.proj
    ^encoder\.fusion\.(\d)\.conv             conv{n}
    ^encoder\.fusion\.(\d)\.norm\.           window{n}.norm.
    ^encoder\.fusion\.(\d)\.norm2            ffn{n}.norm
    ^encoder\.fusion\.(\d)\.mlp              ffn{n}.mlp
    ^encoder\.fusion\.(\d)\.gain(\d)         ffn{n}.gamma{rest}
    ^encoder\.fusion\.(\d)\.attn\.key_value  attn{n}.qkv
    ^encoder\.fusion\.(\d)\.attn\.bias_table attn{n}.relative_position_bias_table
    ^encoder\.fusion\.(\d)\.attn             attn{n}
""") + _inside("encoder\\.face", "ir_back.", "ir50")
POSTER_UNUSED = (
    *("ir_back.output_layer.", "face_landback.output_layer.", "VIT.patch_embed.", "VIT.CON1."),
    *("VIT.IRLinear1.", "VIT.IRLinear2.", "VIT.eca_block.", "VIT.blocks.0.conv.", "VIT.blocks.1.conv."),
    *(f"attn{number}.relative_position_index" for number in (1, 2, 3)),
)
#: The levels of DIC's hourglass lie in each other here; the original numbers them from 4 (outermost) to 1.
DIC = _table(r"""
    ^lift                                   conv_in
    ^enlarge                                out
    ^to_image                               conv_out.0
    ^first\.                                first_block.
    ^feedback\.                             block.
    ^(first_block|block)\.enter             \1.compress_in
    ^(first_block|block)\.up                \1.upBlocks
    ^(first_block|block)\.down              \1.downBlocks
    ^(first_block|block)\.mix_low           \1.uptranBlocks
    ^(first_block|block)\.mix_high          \1.downtranBlocks
    ^(first_block|block)\.join              \1.compress_out
    ^block\.fusion\.spread                  block.fusion_block.conv_in.0
    ^block\.fusion\.blocks                  block.fusion_block.resnet
    (fusion_block.*)\.conv1\.               \1.res.0.
    (fusion_block.*)\.conv2\.               \1.res.2.
    ^landmarks\.stem                        HG.pre_conv_block.0
    ^landmarks\.widen1                      HG.pre_conv_block.2
    ^landmarks\.widen2                      HG.pre_conv_block.4
    ^landmarks\.widen3                      HG.pre_conv_block.5
    ^landmarks\.enter                       HG.compress_in
    ^landmarks\.refine                      HG.hg_conv_out.0
    ^landmarks\.decide                      HG.hg_conv_out.1.conv_block.0
    ^landmarks\.maps                        HG.hg_conv_out.2
    ^landmarks\.hourglass(?:\.inner){4}     HG.hg.res_center
    ^landmarks\.hourglass(?:\.inner){3}\.   HG.hg.res1.
    ^landmarks\.hourglass(?:\.inner){2}\.   HG.hg.res2.
    ^landmarks\.hourglass\.inner\.          HG.hg.res3.
    ^landmarks\.hourglass\.                 HG.hg.res4.
    (HG\.hg\.res\d)\.here                   \1_1
    (HG\.hg\.res\d)\.before                 \1_2
    (HG\.hg\.res\d)\.after                  \1_3
    \.shortcut\.                            .skip_layer.
    \.narrow\.                              .conv_block.0.
    \.look\.                                .conv_block.2.
    \.widen\.                               .conv_block.3.
""")
TRANSFORMER = [
    *_inside("resizer", "res.", "neural-resizer"),
    *_inside("spatial_transformer", "stn.", "spatial-transformer"),
    *_table(r"""
    ^backbone\.  model.
    ^head\.      model.head.
    """),
]


def _old_swin(given: Named) -> Named:
    """Swin as older timm named it: downsampling at the end of stage n instead of the start of n + 1."""
    buffers = ("relative_position_index", "attn_mask")  # computed from the sizes, once saved with the weights
    given = {key: value for key, value in given.items() if not key.endswith(buffers)}
    if "model.layers.0.downsample.reduction.weight" not in given:
        return given
    pattern = r"^model\.layers\.(\d+)\.downsample"
    return {re.sub(pattern, _up("model.layers.{n}.downsample"), key): value for key, value in given.items()}


def _single_body(given: Named) -> Named:
    """ArcFace files name their units body.0 ... body.23; ours are the first 21, in three bodies."""

    def bodies(found: re.Match[str]) -> str:
        number, stage = int(found[1]), 0
        while stage < len(iresnet.UNITS) and number >= iresnet.UNITS[stage]:
            number, stage = number - iresnet.UNITS[stage], stage + 1
        return f"body{stage + 1}.{number}."

    return {re.sub(r"^body\.(\d+)\.", bodies, key): tensor for key, tensor in given.items()}


def _tensorflow_faces(given: Named) -> Named:
    """TensorFlow's names and axes -> ours: "conv1", then a depthwise "conv_dw_<n>" and a "conv_pw_<n>" for
    each block; batch norm is folded but for a depthwise convolution's scale.
    """
    parts = {"stem": "conv1"}
    for number in range(len(mobilenet_faces.WIDTHS)):
        parts[f"blocks.{number}.depthwise"] = f"conv_dw_{number + 1}"
        parts[f"blocks.{number}.pointwise"] = f"conv_pw_{number + 1}"
    found = dict(given)
    for ours, theirs in parts.items():
        kernel, scale = found.pop(f"{theirs}/convolution/merged_input", None), None
        if kernel is None:
            kernel = found.pop(f"{theirs}/depthwise_kernel", None)
            scale = found.pop(f"{theirs}_bn/batchnorm_1/mul", None)
        bias = found.pop(f"{theirs}_bn/batchnorm_1/sub", None)
        if kernel is not None:  # its axes: height, width, in, out; or height, width, channel, one
            axes = (3, 2, 0, 1) if scale is None else (2, 3, 0, 1)
            found[f"{ours}.weight"] = (kernel if scale is None else kernel * scale[:, None]).permute(axes)
        if bias is not None:
            found[f"{ours}.bias"] = bias
    return found


#: The networks whose original weights are known, by name.
ARCHITECTURES: dict[str, Architecture] = {
    "neural-resizer": Architecture(models.NeuralResizer, RESIZER),
    "spatial-transformer": Architecture(models.SpatialTransformer, SPATIAL),
    "vt-nr-swin-base": Architecture(models.ResizedTransformer, TRANSFORMER, translate=_old_swin),
    "ir50": Architecture(models.IResNet50, IR50, unused=("output_layer.", "body4."), translate=_single_body),
    "mobilefacenet": Architecture(models.MobileFaceNet, unused=("output_layer.",)),
    "mobilenet-faces": Architecture(
        models.MobileNetFaces, unused=("conv", "global_pooling/"), translate=_tensorflow_faces
    ),
    "dic": Architecture(models.DIC, DIC),
}
for _classes in (7, 8):
    ARCHITECTURES[f"poster-v2-{_classes}"] = Architecture(
        lambda classes=_classes: models.PosterV2(classes), POSTER, POSTER_UNUSED, (".attn.query.",)
    )
    # the original names of BTN's own parts are not known to us: a mapping places them
    ARCHITECTURES[f"btn-{_classes}"] = Architecture(
        lambda classes=_classes: models.BatchTransformerNetwork(classes),
        POSTER,
        POSTER_UNUSED,
        (".attn.query.",),
        parts={"poster-v2": ("encoder.", "vit.")},
    )
