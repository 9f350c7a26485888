"""The presets: their tensors by name and shape, what they start from, what they refuse; and the norm they share."""

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from segmamba.errors import InputError
from segmamba.networks.mamba import TriMamba, parameters_without_decay
from segmamba.networks.norm import instance_norm
from segmamba.networks.presets import PRESETS, build_network, preset_config
from segmamba.networks.segmamba import NetworkConfig, SegMamba

NARROW = {"features": (4, 8, 8, 16), "full_features": 4, "bottleneck": 16}
SPEC = Path(__file__).resolve().parents[3] / "shared" / "spec" / "state_dict_released.txt"


def tensors_of(preset, **overrides):
    """Name -> shape of a preset, built without memory."""
    with torch.device("meta"):
        network = build_network(preset, **overrides)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def count(tensors):
    return sum(math.prod(shape) for shape in tensors.values())


def published_tensors(features=(48, 96, 192, 384), full=48, bottleneck=768, depth=2, marks=("", "_b", "_s")):
    """Name -> shape of `released`, written from the published checkpoints (network.md, section 5)."""
    shapes = {}
    for i, c in enumerate(features):
        before = features[i - 1]
        place = f"vit.downsample_layers.{i}.{min(i, 1)}"
        shapes[f"{place}.weight"] = (c, before, 2, 2, 2) if i else (c, 4, 7, 7, 7)
        shapes[f"{place}.bias"] = (c,)
        d, rank = 2 * c, math.ceil(c / 16)
        for j in range(depth):
            layer = f"vit.stages.{i}.{j}"
            shapes |= {f"{layer}.norm.weight": (c,), f"{layer}.norm.bias": (c,)}
            mamba = f"{layer}.mamba"
            shapes |= {f"{mamba}.in_proj.weight": (2 * d, c), f"{mamba}.out_proj.weight": (c, d)}
            for mark in marks:
                shapes |= {
                    f"{mamba}.A{mark}_log": (d, 16),
                    f"{mamba}.D{mark}": (d,),
                    f"{mamba}.conv1d{mark}.weight": (d, 1, 4),
                    f"{mamba}.conv1d{mark}.bias": (d,),
                    f"{mamba}.x_proj{mark}.weight": (rank + 32, d),
                    f"{mamba}.dt_proj{mark}.weight": (d, rank),
                    f"{mamba}.dt_proj{mark}.bias": (d,),
                }
        for name, kernel in (("proj", 3), ("proj2", 3), ("proj3", 1), ("proj4", 1)):
            shapes |= {f"vit.gscs.{i}.{name}.weight": (c, c, *[kernel] * 3), f"vit.gscs.{i}.{name}.bias": (c,)}
        for name, a, b in (("fc1", 2 * c, c), ("fc2", c, 2 * c)):
            shapes |= {f"vit.mlps.{i}.{name}.weight": (a, b, 1, 1, 1), f"vit.mlps.{i}.{name}.bias": (a,)}

    def residual(name, a, b):
        shapes[f"{name}.conv1.conv.weight"] = (b, a, 3, 3, 3)
        shapes[f"{name}.conv2.conv.weight"] = (b, b, 3, 3, 3)
        if a != b:
            shapes[f"{name}.conv3.conv.weight"] = (b, a, 1, 1, 1)

    inputs = [4, *features]
    outputs = [full, *features[1:], bottleneck]
    for i in range(5):
        residual(f"encoder{i + 1}.layer", inputs[i], outputs[i])
    widths = [bottleneck, *features[:0:-1], full]  # below decoder5 .. decoder2, and what they give
    for i, (a, b) in zip((5, 4, 3, 2), pairwise(widths)):
        shapes[f"decoder{i}.transp_conv.conv.weight"] = (a, b, 2, 2, 2)
        residual(f"decoder{i}.conv_block", 2 * b, b)
    residual("decoder1.layer", full, full)
    return {**shapes, "out.conv.conv.weight": (4, full, 1, 1, 1), "out.conv.conv.bias": (4,)}


# --- names, shapes, counts


def test_released_has_the_tensors_of_the_published_code():
    tensors = tensors_of("released")
    assert tensors == published_tensors()
    assert (count(tensors), len(tensors)) == (67_416_196, 291)


def test_released_has_the_tensors_of_the_specification_file():
    if not SPEC.is_file():
        pytest.skip(f"needs {SPEC}, which is not part of the repository; the test above holds the same facts")
    lines = re.findall(r"^(\S+) \(([\d, ]+)\) float32$", SPEC.read_text(), flags=re.MULTILINE)
    listed = {name: tuple(int(n) for n in re.findall(r"\d+", shape)) for name, shape in lines}
    assert len(listed) == 291
    assert tensors_of("released") == listed


@pytest.mark.parametrize(
    ("directions", "marks", "parameters", "tensors"),
    [
        (("forward",), ("",), 66_903_556, 179),
        (("forward", "reverse"), ("", "_b"), 67_159_876, 235),
    ],
)
def test_released_with_fewer_directions(directions, marks, parameters, tensors):
    found = tensors_of("released", directions=directions)
    assert found == published_tensors(marks=marks)
    assert (count(found), len(found)) == (parameters, tensors)


def test_v1_has_the_count_of_the_first_code():
    tensors = tensors_of("v1")
    assert (count(tensors), len(tensors)) == (56_976_964, 219)
    assert tensors["mamba_encoder.stages.3.1.mamba.A_b_log"] == (768, 16)
    assert not any("_s" in name or "gsc" in name for name in tensors)


def test_quick_has_the_blocks_of_released():
    tensors = tensors_of("quick")
    assert tensors == published_tensors((24, 48, 64, 64), full=16, bottleneck=96, depth=1)
    assert (count(tensors), len(tensors)) == (2_867_460, 190)


def test_paper_keeps_its_count():
    """Nobody published one: this is ours, so that a change of the form is seen."""
    tensors = tensors_of("paper")
    assert (count(tensors), len(tensors)) == (78_732_004, 339)
    assert tensors["encoder.downsample_layers.0.0.weight"] == (48, 1, 7, 7, 7)  # "depth-wise"


def test_the_first_text_has_the_count_of_its_formula():
    """Every term by hand; N = 16 states, 4 taps, expansion 2, rank C / 16, two directions, MLP of ratio 4."""
    features, states, taps = (48, 96, 192, 384), 16, 4

    def mamba(c):
        d, rank = 2 * c, c // 16
        direction = d * taps + d + d * (rank + 2 * states) + rank * d + d + d * states + d
        return c * 2 * d + d * c + 2 * direction

    def block(c):  # two norms, Mamba, the two layers of the MLP
        return 2 * c + mamba(c) + 2 * c + (c * 4 * c + 4 * c) + (4 * c * c + c)

    def residual(a, b):
        return 27 * a * b + 27 * b * b + (a * b if a != b else 0)

    def up(a, b):
        return 8 * a * b + residual(2 * b, b)

    stem = 48 * 7**3 + 48  # each output channel sees one of the four modalities
    encoder = stem + sum(8 * a * b + b for a, b in pairwise(features)) + sum(2 * block(c) for c in features)
    skips = residual(4, 48) + residual(48, 96) + residual(96, 192) + residual(192, 384) + residual(384, 768)
    decoder = up(768, 384) + up(384, 192) + up(192, 96) + up(96, 48) + residual(48, 48) + 48 * 4 + 4
    tensors = tensors_of("v1-text")
    assert count(tensors) == encoder + skips + decoder
    assert not any("gsc" in name or "_s" in name for name in tensors)


def test_no_network_has_buffers():
    for preset in PRESETS:
        with torch.device("meta"):
            assert not list(build_network(preset).buffers()), preset


# --- forward


@pytest.mark.parametrize("preset", PRESETS)
def test_any_grid_of_multiples_of_16_and_any_number_of_channels(preset):
    network = build_network(preset, **NARROW, depths=(1, 1, 1, 1), in_channels=3, out_channels=2)
    with torch.no_grad():
        for shape in ((1, 3, 32, 16, 48), (2, 3, 16, 32, 16)):
            out = network(torch.randn(shape))
            assert out.shape == (shape[0], 2, *shape[2:])
            assert torch.isfinite(out).all()


def test_samples_of_a_batch_do_not_see_each_other():
    network = build_network("quick", **NARROW)
    x = torch.randn(2, 4, 16, 48, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(x), torch.cat([network(x[:1]), network(x[1:])]), rtol=1e-4, atol=1e-4)


def test_gradients_are_the_same_in_both_layouts_and_in_float64():
    """Also for a batch of one in channels last, which torch's own instance norm gets wrong."""
    torch.manual_seed(3)
    network = build_network("quick", features=(4, 4, 4, 4), full_features=4, bottleneck=4)
    x = torch.randn(1, 4, 32, 16, 48)

    def gradients(network, x):
        network.zero_grad()
        (network(x) ** 2).mean().backward()
        return torch.cat([p.grad.double().flatten() for p in network.parameters()])

    plain = gradients(network, x)
    last = gradients(
        network.to(memory_format=torch.channels_last_3d), x.contiguous(memory_format=torch.channels_last_3d)
    )
    exact = gradients(network.double(), x.double())
    for found in (plain, last):
        assert (found - exact).norm() < 1e-3 * exact.norm()


@pytest.mark.parametrize(
    "shape",
    [
        (1, 3, 32, 32, 32),  # channels
        (1, 4, 32, 40, 32),  # a side
        (1, 4, 0, 32, 32),
        (1, 4, 16, 16, 16),  # one voxel at the bottom has no variance
        (4, 32, 32, 32),  # no batch
        (1, 4, 32, 32),
        (32,),
    ],
    ids=str,
)
def test_refused_input_is_told_its_shape_and_what_to_do(shape):
    network = build_network("quick", **NARROW)
    with pytest.raises(InputError) as error:
        network(torch.zeros(shape))
    text = str(error.value)
    assert str(tuple(shape)) in text and "(B, 4, D, H, W)" in text and "multiple of 16" in text and "pad" in text


# --- configuration


def test_presets_differ_as_the_publications_do():
    assert PRESETS["released"].mamba_residual and not PRESETS["v1"].mamba_residual
    assert PRESETS["v1"].directions == ("forward", "reverse")
    assert preset_config("released", directions=["slices"]).directions == ("slices",)


def test_a_configuration_survives_its_dictionary():
    config = preset_config("quick", out_channels=2, mamba_residual=False)
    assert NetworkConfig.from_dict(config.to_dict()) == config != PRESETS["quick"]


@pytest.mark.parametrize("form", ["released", "paper", "v1", "v1-text"])
def test_fewer_directions_are_fewer_in_every_form(form):
    names = tensors_of(form, directions=("forward", "slices"), **NARROW)
    marks = {re.sub(r"^A|_log$", "", name.rpartition(".")[2]) for name in names if name.endswith("_log")}
    assert marks == {"", "_s"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "realised"}, "'realised'.*released, paper, v1"),
        ({"features": (1, 2, 3)}, "four stages"),
        ({"depths": (1, 1, 1, 1, 1)}, "four stages"),
        ({"directions": ()}, "forward"),
        ({"directions": ("forward", "sideways")}, "sideways"),
        ({"directions": ("forward", "forward")}, "each once"),
        ({"in_channels": 0}, "1 to 1536"),
        ({"depths": (1, 1, -1, 1)}, "depths 0 to 16"),
        ({"form": "paper", "mamba_residual": False}, "mamba_residual"),
        ({"form": "v1-text", "mamba_residual": False}, "mamba_residual"),
        ({"featrues": (1, 2, 3, 4)}, "featrues.*features"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_refused_settings(settings, message):
    with pytest.raises(InputError, match=message):
        NetworkConfig.from_dict(settings)


def test_unknown_preset():
    with pytest.raises(InputError, match=r"'best'.*released, paper, v1, v1-text, quick"):
        build_network("best")


# --- initial values


def test_every_direction_starts_as_mamba_does():
    torch.manual_seed(0)
    mamba = TriMamba(160)  # 320 inner channels, rank 10
    states = torch.arange(1, 17).float()
    for mark in ("", "_b", "_s"):
        A_log, D = getattr(mamba, f"A{mark}_log"), getattr(mamba, f"D{mark}")
        torch.testing.assert_close(A_log.detach().exp(), states.expand(320, 16))
        assert (D == 1).all()
        proj = getattr(mamba, f"dt_proj{mark}")
        dt = F.softplus(proj.bias.detach())
        assert 1e-3 * 0.999 <= dt.min() < 1.5e-3 and 0.07 < dt.max() <= 0.1 * 1.001
        assert dt.log10().mean() == pytest.approx(-2, abs=0.15)  # log-uniform
        limit = 10**-0.5
        assert 0.98 * limit < proj.weight.abs().max() <= limit
    assert not torch.equal(mamba.dt_proj.bias, mamba.dt_proj_b.bias)


def test_equal_seeds_give_equal_networks():
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_network("quick", **NARROW).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["out.conv.conv.weight"], states[2]["out.conv.conv.weight"])


@pytest.mark.parametrize(
    ("preset", "directions"), [("released", 3), ("paper", 3), ("v1", 2), ("v1-text", 2), ("quick", 3)]
)
def test_what_stays_out_of_weight_decay(preset, directions):
    """A, D and the dt bias of every direction of every layer, and nothing else."""
    with torch.device("meta"):
        network = build_network(preset)
    layers = [name for name, module in network.named_modules() if isinstance(module, TriMamba)]
    assert len(layers) == sum(network.config.depths)
    expected = {
        f"{layer}.{leaf}"
        for layer in layers
        for mark in ("", "_b", "_s")[:directions]
        for leaf in (f"A{mark}_log", f"D{mark}", f"dt_proj{mark}.bias")
    }
    assert parameters_without_decay(network) == expected
    assert parameters_without_decay(network.get_submodule(layers[0])) == {
        name.removeprefix(f"{layers[0]}.") for name in expected if name.startswith(f"{layers[0]}.")
    }


# --- the instance norm, which torch has, but wrongly (see network/norm)

LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last_3d}


def norm_by_definition(x):
    centred = x - x.mean((2, 3, 4), keepdim=True)
    return centred / torch.sqrt((centred**2).mean((2, 3, 4), keepdim=True) + 1e-5)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gradient_layout", LAYOUTS)
@pytest.mark.parametrize(
    ("dtype", "offset", "tolerance"),
    [(torch.float32, 0, 1e-6), (torch.float32, 1000, 1e-4), (torch.bfloat16, 0, 1e-2), (torch.float64, 1000, 1e-11)],
    ids=str,
)
def test_instance_norm_and_its_gradient(batch, layout, gradient_layout, dtype, offset, tolerance):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(batch, 5, 12, 20, 14, generator=generator) + offset).to(dtype)
    weight = torch.randn(batch, 5, 12, 20, 14, generator=generator).to(dtype)
    exact = x.detach().clone().double().requires_grad_()
    expected = norm_by_definition(exact)
    expected.backward(weight.double())
    x = x.contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
    out = instance_norm(x)
    out.backward(weight.contiguous(memory_format=LAYOUTS[gradient_layout]))
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=LAYOUTS[layout])
    for got, want in ((out.detach(), expected.detach()), (x.grad, exact.grad)):
        assert (got.double() - want).abs().max() <= tolerance * want.abs().max()
    torch.testing.assert_close(F.instance_norm(x.detach().double()), expected.detach(), rtol=1e-8, atol=1e-8)


def test_instance_norm_of_a_nearly_empty_volume():
    """A few voxels hold all the energy: naive float32 sums would be off by 1e-4."""
    x = torch.zeros(1, 2, 40, 64, 48).normal_(0, 0.01, generator=torch.Generator().manual_seed(0))
    x[..., :2, :3, :2] += 50
    x = x.contiguous(memory_format=torch.channels_last_3d)
    expected = norm_by_definition(x.double())
    assert (instance_norm(x) - expected).abs().max() < 2e-6 * expected.abs().max()


def test_bf16_autocast_stays_close_to_float32():
    torch.manual_seed(0)
    network = build_network("quick", **NARROW).to(memory_format=torch.channels_last_3d)
    x = torch.randn(1, 4, 48, 32, 64).contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        plain = torch.softmax(network(x), 1)
        with torch.autocast("cpu", torch.bfloat16):
            half = torch.softmax(network(x).float(), 1)
    assert (plain - half).abs().mean() < 0.02
    assert (plain - half).abs().mean() > 0  # it did run in bf16


def test_the_network_is_the_one_of_its_configuration():
    network = SegMamba(preset_config("released", **NARROW, mamba_residual=False))
    assert not any(layer.residual for stage in network.vit.stages for layer in stage)
