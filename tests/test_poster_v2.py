"""POSTER V2: counted as the papers count, odd behaviours by name, the landmark branch computed once."""

import math

import pytest
import torch
from torch import nn

from ferlib.models import BatchTransformerNetwork, MobileFaceNet, PosterV2, PosterV2Encoder
from ferlib.models.poster_v2 import HEADS, SIZES, LevelFusion, TokenTransformer, cut_windows, join_windows


def operations_and_parameters(model: nn.Module, image: torch.Tensor) -> tuple[int, int]:
    """As thop counts, the tool of both papers: only leaf modules that run; one multiply-add is one operation.

    Convolutions and linear maps by their products (no bias), normalisations 4 per number where they have
    gains (2 to normalise, twice), PReLU 1 per number; parameters of the same modules. Attention's products,
    activations without parameters and parameters that belong to no leaf module are not counted.
    """
    total, counted = 0, set()

    def count(module: nn.Module, given: tuple, out: torch.Tensor) -> None:
        nonlocal total
        counted.add(module)
        if isinstance(module, nn.Conv2d):
            total += out.numel() * math.prod(module.weight.shape[1:])
        elif isinstance(module, nn.Linear):
            total += out.numel() * module.in_features
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
            total += 4 * given[0].numel()
        elif isinstance(module, nn.PReLU):
            total += given[0].numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if not list(m.children())]
    model(image)
    for hook in hooks:
        hook.remove()
    return total, sum(p.numel() for m in counted for p in m.parameters())


@pytest.mark.parametrize(("classes", "more"), [(7, 0), (8, 1)])
def test_43_7_million_parameters_and_8_4_g(classes, more):
    with torch.device("meta"):
        model, landmarks = PosterV2(classes).eval(), MobileFaceNet().eval()
        image = torch.empty(1, 3, 224, 224)
        total, parameters = operations_and_parameters(model, image)
        head = operations_and_parameters(landmarks.output_layer, torch.empty(1, 512, 7, 7))
    # The tool counted three things more in the released program, all without effect on the answer:
    # the landmark head, run and thrown away; the last layer norm, applied to all tokens and
    # not to the class token alone; and the softmax modules of the three windows (exponential, sum, division).
    softmax = sum(heads * n**2 * (3 * n**2 - 1) for heads, n in zip(HEADS, SIZES, strict=True))
    assert total + head[0] + 4 * 147 * 768 + softmax == 8_482_266_176 + 768 * more
    assert parameters + head[1] == 43_724_311 + 769 * more
    assert round((total + softmax) / 1e9, 1) in (8.4, 8.5) and round(parameters / 1e6, 1) in (43.6, 43.7)
    assert sum(p.numel() for p in model.parameters()) == 43_753_941 + 769 * more


def test_windows_are_cut_row_by_row_and_joined_again():
    maps = torch.arange(2 * 4 * 4 * 3).view(2, 4, 4, 3)
    cut = cut_windows(maps, 2)
    assert cut.shape == (8, 4, 3)
    assert torch.equal(cut[1].view(2, 2, 3), maps[0, :2, 2:])
    assert torch.equal(cut[6].view(2, 2, 3), maps[1, 2:, :2])
    assert torch.equal(join_windows(cut, 2, 4), maps)
    assert torch.equal(join_windows(cut_windows(maps, 4), 4, 4), maps)


def test_in_a_smaller_window_places_ask_their_own_neighbours():
    torch.manual_seed(0)
    level = LevelFusion(8, 2, 4, window=2, scale=1.0).eval()
    face, marks = torch.randn(1, 8, 8, 8), torch.randn(1, 8, 4, 4)
    expected = level(face, marks)
    other = face.clone()
    other[:, :, :, 5:] += 1  # reaches, through the 3x3 convolution, only the right half of the halved map
    changed = (level(other, marks) - expected).abs().sum(-1)[0] > 1e-6
    assert changed[:, 2:].any() and not changed[:, :2].any()
    whole = LevelFusion(8, 2, 4, scale=1.0).eval()
    assert ((whole(other, marks) - whole(face, marks)).abs().sum(-1)[0] > 1e-6).all()


def test_the_shortcut_before_or_after_its_normalisation():
    torch.manual_seed(0)
    level = LevelFusion(8, 2, 4).eval()
    face, marks = torch.randn(2, 8, 8, 8), torch.randn(2, 8, 4, 4)
    halved = level.conv(face).permute(0, 2, 3, 1)
    torch.testing.assert_close(level(face, marks), level.norm(halved), rtol=1e-3, atol=1e-3)  # gains of 1e-5
    level.shortcut = "input"
    torch.testing.assert_close(level(face, marks), halved, rtol=1e-3, atol=1e-3)


def test_projected_queries_start_as_the_unprojected():
    torch.manual_seed(0)
    plain, projected = LevelFusion(8, 2, 4, scale=1.0), LevelFusion(8, 2, 4, scale=1.0, project_query=True)
    missing = projected.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["attn.query.weight", "attn.query.bias"]
    face, marks = torch.randn(2, 8, 8, 8), torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(projected(face, marks), plain(face, marks))
    projected.attn.query.weight.data *= 2
    assert not torch.allclose(projected(face, marks), plain(face, marks))


@pytest.fixture(scope="module")
def encoders() -> dict[str, PosterV2Encoder]:
    torch.manual_seed(0)
    first = PosterV2Encoder()
    others = {"drifting": PosterV2Encoder(landmark_statistics="drifting")}
    others["unit"] = PosterV2Encoder(landmark_input="unit")
    for other in others.values():
        other.load_state_dict(first.state_dict())
    return {"frozen": first, **others}


def test_statistics_drift_only_on_request(encoders):
    images = torch.randn(2, 3, 112, 112)
    for name, encoder in encoders.items():
        before = encoder.landmarks.conv1.bn.running_mean.clone()
        encoder.train()
        training = encoder.frozen(images)
        moved = not torch.equal(before, encoder.landmarks.conv1.bn.running_mean)
        assert moved == (name == "drifting")
        assert not any(m.requires_grad for m in training)
        now = encoder.landmarks.conv1.bn.running_mean.clone()
        encoder.eval()
        encoder.frozen(images)
        assert torch.equal(now, encoder.landmarks.conv1.bn.running_mean)


def test_the_landmark_input(encoders):
    encoder = encoders["unit"].eval()
    unit = torch.rand(1, 3, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (unit - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    expected = encoder.landmarks.features(unit[:, :, ::2, ::2])
    for got, want in zip(encoder.frozen(normalised), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_what_is_frozen_is_computed_once_and_may_be_given_back():
    torch.manual_seed(0)
    net = BatchTransformerNetwork(7).train()
    images = torch.randn(2, 3, 112, 112)
    calls = []
    net.encoder.landmarks.conv1.register_forward_hook(lambda *given: calls.append(1))
    frozen = net.frozen(images)
    assert [tuple(m.shape) for m in frozen] == [(2, 64, 28, 28), (2, 128, 14, 14), (2, 512, 7, 7)]
    net.eval()
    with torch.no_grad():
        torch.testing.assert_close(net.outputs(images, frozen), net.outputs(images))
        torch.testing.assert_close(net(images, frozen=frozen), net(images))
    assert len(calls) == 3
    landmarks = net.encoder.landmarks
    assert not landmarks.training and not any(p.requires_grad for p in landmarks.parameters())


def test_any_module_that_gives_three_maps_is_a_face_backbone():
    class Maps(nn.Module):
        def __init__(self, sides=(56, 28, 14)) -> None:
            super().__init__()
            self.sides, self.scale = sides, nn.Parameter(torch.ones(()))

        def forward(self, images):
            widths = zip((64, 128, 256), self.sides, strict=True)
            return [
                self.scale * images.mean((1, 2, 3)).view(-1, 1, 1, 1).expand(-1, w, s, s) for w, s in widths
            ]

    images = torch.randn(2, 3, 64, 64)
    assert PosterV2(5, face_backbone=Maps()).eval()(images).shape == (2, 5)
    with pytest.raises(ValueError, match=r"\(B, 64, 56, 56\), got \(2, 64, 55, 55\)"):
        PosterV2(5, face_backbone=Maps((55, 28, 14))).eval()(images)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resize": "cubic"}, "resize='cubic'"),
        ({"shortcut": "none"}, "shortcut='none'"),
        ({"landmark_input": "raw"}, "landmark_input='raw'"),
        ({"windows": (28, 14, 4)}, "a window of 4 does not divide"),
        ({"face_backbone": "resnet"}, "face_backbone='resnet'"),
    ],
)
def test_unknown_choices_are_refused(options, words):
    with torch.device("meta"), pytest.raises(ValueError, match=words):
        PosterV2(7, **options)


@pytest.mark.parametrize("depth", [1, 2])
def test_the_lean_transformer_gives_the_same_and_the_same_gradients(depth):
    torch.manual_seed(0)
    net = TokenTransformer(5, dim=12, tokens=9, depth=depth, heads=3).double()
    seen = []
    hook = net.blocks[-1].register_forward_hook(lambda module, given, out: seen.append(out.shape[1]))
    for mode in (net.train, net.eval):
        mode()
        net(torch.randn(1, 9, 12).double())
    assert seen == [1, 10]  # the mode chooses
    hook.remove()
    tokens = torch.randn(2, 9, 12, dtype=torch.float64, requires_grad=True)
    found = []
    for lean in (False, True):
        net.lean = lean
        net.zero_grad()
        tokens.grad = None
        logits = net(tokens)
        logits.square().sum().backward()
        found.append([logits, tokens.grad, *[p.grad.clone() for p in net.parameters()]])
    torch.testing.assert_close(found[1], found[0])
    recorded = []
    net.blocks[-1].attn.attention.listeners.append(recorded.append)
    torch.testing.assert_close(net(tokens), found[0][0])
    assert recorded[0].shape == (2, 3, 10, 10), "who listens hears all tokens"
