"""What the recorder hears of each architecture, where it puts it, and that nothing is left behind."""

import copy
import itertools

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from book.figures import maps
from ferlib.explain import AttentionRecorder
from ferlib.explain.recorder import Layout
from ferlib.models import btn_small
from ferlib.models.poster_v2 import LevelFusion
from tests.tiny import net

TINY = dict(num_classes=5, pretrained=False)


def swin(size: int = 32, version: int = 1, window: int = 4, **options) -> nn.Module:
    torch.manual_seed(0)
    name = "swin_tiny_patch4_window7_224" if version == 1 else "swinv2_tiny_window8_256"
    options = dict(embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=window) | options
    model = timm.create_model(name, img_size=size, **TINY, **options)
    with torch.no_grad():  # weights that matter: at timm's start attention is nearly uniform
        for module in model.modules():
            if "WindowAttention" in type(module).__name__:
                module.qkv.weight.normal_(0, 0.5)
    return model.eval()


def fuse(model: nn.Module, on: bool) -> nn.Module:
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = on
    return model


def fingers(model: nn.Module) -> list:
    """Everything a recorder could leave behind: weights, flags, modes, hooks, listeners, attributes."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")
    return [
        (
            name,
            module.training,
            getattr(module, "fused_attn", None),
            sorted(vars(module)),
            *(len(getattr(module, kind)) for kind in hooks),
            len(getattr(module, "listeners", [])),
            [(key, value.requires_grad, value.grad) for key, value in module.named_parameters(recurse=False)],
        )
        for name, module in model.named_modules()
    ]


def unchanged(model: nn.Module, before: tuple) -> bool:
    state, marks = before
    now = model.state_dict()
    return fingers(model) == marks and all(torch.equal(value, now[key]) for key, value in state.items())


def as_is(model: nn.Module) -> tuple:
    return copy.deepcopy(model.state_dict()), fingers(model)


def brute_force(block: nn.Module, x: Tensor) -> Tensor:
    """Attention of one Swin (v1) block over the whole map, place by place: (B, heads, places, places).

    Every place asks every other; two may speak if they lie in one window of the rolled map and were
    neighbours before it was rolled.
    """
    rows, columns = x.shape[1:3]
    attn, (wide, _), (shift, _) = block.attn, block.window_size, block.shift_size
    normed = block.norm1(x).flatten(1, 2)
    heads = attn.num_heads
    query, key, _ = attn.qkv(normed).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    scores = query @ key.mT * attn.scale
    place = [((r - shift) % rows, (c - shift) % columns) for r in range(rows) for c in range(columns)]
    for i, (ri, ci) in enumerate(place):
        for j, (rj, cj) in enumerate(place):
            together = (ri // wide, ci // wide) == (rj // wide, cj // wide)
            # after rolling, the last `shift` rows are those that came from the top
            split = shift and ((ri >= rows - shift) != (rj >= rows - shift))
            split = split or (shift and ((ci >= columns - shift) != (cj >= columns - shift)))
            if not together or split:
                scores[:, :, i, j] = -torch.inf
            else:
                down, right = ri % wide - rj % wide + wide - 1, ci % wide - cj % wide + wide - 1
                scores[:, :, i, j] += attn.relative_position_bias_table[down * (2 * wide - 1) + right]
    return scores.softmax(-1)


@pytest.mark.parametrize("fused", [True, False])
def test_windows_of_swin_are_put_back_where_they_were_cut(fused):
    """8 x 8 places, windows of 4, shifted by 2: attention on the grid equals a place-by-place computation."""
    model, images, inputs = fuse(swin(), fused), torch.randn(2, 3, 32, 32), []
    hooks = [
        block.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        for stage in model.layers
        for block in stage.blocks
    ]
    with torch.no_grad(), AttentionRecorder(model) as recorder:
        model(images)
    for hook in hooks:
        hook.remove()
    blocks = [block for stage in model.layers for block in stage.blocks]
    assert [record.layout.shift for record in recorder.records] == [(0, 0), (2, 2), (0, 0), (0, 0)]
    assert [record.layout.grid for record in recorder.records] == [(8, 8), (8, 8), (4, 4), (4, 4)]
    for record, block, x in zip(recorder.records, blocks, inputs, strict=True):
        with torch.no_grad():
            expected = brute_force(block, x)
        found = record.on_grid()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:-1]))
        heads, places = found.shape[1:3]
        assert record.to_image().shape == (2, heads, places, *record.layout.grid)
        assert record.kind == "window"
    assert found.std() > 0.05  # attention here is far from uniform


def test_cutting_and_joining_windows_are_inverse_and_roll_as_torch_does():
    layout = Layout((6, 8), window=(3, 4), shift=(1, 2))
    rows = torch.arange(48.0)[None]
    windows = maps._cut(layout, rows)
    rolled = rows.view(6, 8).roll((-1, -2), (0, 1))
    torch.testing.assert_close(windows[0, 0].view(3, 4), rolled[:3, :4])
    torch.testing.assert_close(windows[0, 3].view(3, 4), rolled[3:, 4:])
    torch.testing.assert_close(maps._join(layout, windows), rows)
    padded = Layout((5, 5), window=(4, 4), shift=(2, 2))
    torch.testing.assert_close(maps._join(padded, maps._cut(padded, rows[:, :25])), rows[:, :25])
    with pytest.raises(ValueError, match="47 tokens"):
        layout.pictures(torch.zeros(2, 47))


def test_swin_version_two_is_heard_as_well():
    model, images, values = swin(version=2), torch.randn(2, 3, 32, 32), []
    attn = model.layers[0].blocks[1].attn
    hook = attn.attn_drop.register_forward_hook(lambda m, args, out: values.append(out))
    before = as_is(model)
    with torch.no_grad(), AttentionRecorder(model) as recorder:
        model(images)
    assert unchanged(model, before)
    hook.remove()
    torch.testing.assert_close(recorder.records[1].weights, values[0])
    for record in recorder.records:
        whole = record.on_grid()
        torch.testing.assert_close(whole.sum(-1), torch.ones(whole.shape[:-1]))


VITS = {
    "vit_tiny_patch16_224": dict(depth=2),
    "deit_tiny_distilled_patch16_224": dict(depth=2),
    "vit_small_patch16_rope_224": dict(depth=2, embed_dim=48, num_heads=2),
    "vit_tiny_patch16_224 mean": dict(depth=2, global_pool="avg", class_token=False, qk_norm=True),
}


@pytest.mark.parametrize("name", VITS)
def test_every_kind_of_timm_transformer_with_fused_attention_and_without(name):
    torch.manual_seed(0)
    model = timm.create_model(name.split()[0], img_size=48, **TINY, **VITS[name]).eval()
    images, found = torch.randn(2, 3, 48, 48), {}
    for fused in (True, False):
        fuse(model, fused)
        before = as_is(model)
        with torch.no_grad():
            expected = model(images)
            with AttentionRecorder(model) as recorder:
                torch.testing.assert_close(model(images), expected)
            torch.testing.assert_close(model(images), expected, rtol=0, atol=0)
        assert unchanged(model, before)
        found[fused] = recorder.records
    assert [r.kind for r in found[True]] == ["tokens"] * 2
    for one, other in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(one.weights, other.weights, rtol=1e-4, atol=1e-6)
        assert one.layout == Layout((3, 3), one.weights.shape[-1] - 9)
        picture = one.to_image()
        assert picture.shape == (*one.weights.shape[:3], 3, 3)
        torch.testing.assert_close(picture.flatten(3), one.weights[..., -9:])


def test_the_windows_of_poster_v2_are_put_back_and_landmarks_ask():
    """Two heads, a 6 x 6 map in windows of 3: queries from the landmark map, keys from the face map."""
    torch.manual_seed(0)
    fusion = LevelFusion(8, 2, 6, window=3).eval()
    face, marks = torch.randn(2, 8, 12, 12), torch.randn(2, 8, 6, 6)
    before = as_is(fusion)
    with torch.no_grad(), AttentionRecorder(fusion) as recorder:
        fusion(face, marks)
    assert unchanged(fusion, before)
    (record,) = recorder.records
    assert record.kind == "window-cross" and record.weights.shape == (8, 2, 9, 9)
    asking = marks.permute(0, 2, 3, 1).unflatten(-1, (2, 4)).permute(0, 3, 1, 2, 4)
    with torch.no_grad():
        answering = fusion.norm(fusion.conv(face).permute(0, 2, 3, 1))
        keys = fusion.attn.key_value(answering)[..., :8].unflatten(-1, (2, 4)).permute(0, 3, 1, 2, 4)
    expected = torch.zeros(2, 2, 6, 6, 6, 6)
    for r in range(6):
        for c in range(6):
            top, left = 3 * (r // 3), 3 * (c // 3)
            window = keys[:, :, top : top + 3, left : left + 3]
            scores = torch.einsum("bhd,bhijd->bhij", asking[:, :, r, c], window) / 2
            for i, j in itertools.product(range(3), range(3)):
                index = (r - top - i + 2) * 5 + (c - left - j + 2)
                scores[:, :, i, j] += fusion.attn.bias_table[index].detach()
            shares = scores.flatten(2).softmax(-1).view(2, 2, 3, 3)
            expected[:, :, r, c, top : top + 3, left : left + 3] = shares
    torch.testing.assert_close(record.on_grid().view(expected.shape), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(record.to_image(), expected.flatten(2, 3), rtol=1e-4, atol=1e-6)


def test_levels_transformer_and_batch_have_their_kinds_and_places():
    torch.manual_seed(0)
    model = btn_small(8).eval()
    before = as_is(model)
    with torch.no_grad(), AttentionRecorder(model) as recorder:
        model.outputs(torch.randn(4, 3, 48, 48))
    assert unchanged(model, before)
    assert [r.kind for r in recorder.records] == ["levels", "tokens", "tokens", "class-batch"]
    levels, first, _, batch = recorder.records
    assert levels.layout == Layout((7, 7), 0, 3) and first.layout == Layout((7, 7), 1, 3)
    torch.testing.assert_close(levels.to_image().sum((-1, -2)), torch.ones(4, 2, 147))
    by_level = first.weights[..., 1:].unflatten(-1, (3, 7, 7)).sum(-3)
    torch.testing.assert_close(first.to_image(), by_level)
    assert batch.weights.shape == (8, 4, 4) and "query image" in batch.axes
    for record in recorder.records:
        torch.testing.assert_close(record.weights.sum(-1), torch.ones(record.weights.shape[:-1]))
    with pytest.raises(ValueError, match="does not lie on a picture"):
        batch.to_image()
    torch.testing.assert_close(batch.on_grid(), batch.weights)


def test_recorders_inside_each_other_hear_the_same_once():
    model, images = fuse(swin(), True), torch.randn(1, 3, 32, 32)
    before = as_is(model)
    for graph in (False, True):
        images = images.to(memory_format=torch.channels_last)
        with AttentionRecorder(model) as outer:
            with AttentionRecorder(model, keep_graph=graph) as inner:
                model(images)
            model(images)
        assert unchanged(model, before)
        assert (len(inner.records), len(outer.records)) == (4, 8)
        for one, other in zip(inner.records, outer.records, strict=False):
            torch.testing.assert_close(one.weights, other.weights, rtol=1e-4, atol=1e-6)


def test_an_error_in_the_middle_of_a_layer_leaves_nothing_behind():
    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    for model, size in ((fuse(swin(), True), 32), (btn_small(4).eval(), 48)):
        inner = [m for m in model.modules() if hasattr(m, "proj") and hasattr(m, "qkv")][1]
        hook = inner.proj.register_forward_hook(stop)
        before = as_is(model)
        with pytest.raises(Stop), AttentionRecorder(model) as recorder:
            model(torch.randn(2, 3, size, size))
        assert unchanged(model, before) and recorder.records
        hook.remove()
        heard = len(recorder.records)
        torch.softmax(torch.randn(2, 3, 4), -1)
        F.scaled_dot_product_attention(*torch.randn(3, 1, 1, 4, 2))
        assert len(recorder.records) == heard


def test_attention_whose_places_are_not_known_is_recorded_without_them():
    model = timm.create_model("crossvit_9_240", num_classes=4).eval()
    with torch.no_grad(), AttentionRecorder(model) as recorder:
        model(torch.rand(1, 3, 240, 240))
    assert recorder.records and {record.layout for record in recorder.records} == {None}
    with pytest.raises(ValueError, match="does not lie on a picture"):
        recorder.records[0].to_image()


def test_what_cannot_be_recorded_is_told():
    model = swin()
    with pytest.raises(ValueError, match="compiled"):
        AttentionRecorder(torch.compile(model))
    with pytest.raises(ValueError, match="no attention"):
        AttentionRecorder(net())
    with pytest.raises(ValueError, match="heads='two'"):
        AttentionRecorder(model, heads="two")
    with pytest.raises(ValueError, match="keep_graph"):
        AttentionRecorder(model, heads="mean", keep_graph=True)
