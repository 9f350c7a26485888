"""The formulas of the network written out plainly in float64: what test_network_formulas compares with.

Tokens are walked one by one, by coordinates (s, h, w) of the grid; nothing here is taken from the package.
Parameters come as a state dict of float64 tensors.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

STATES = 16
_erf = np.vectorize(math.erf)


def walk(grid, direction):
    """Places (s, h, w) in the order in which a direction visits them."""
    slices, height, width = grid
    if direction == "slices":
        return [(s, h, w) for h in range(height) for w in range(width) for s in range(slices)]
    places = [(s, h, w) for s in range(slices) for h in range(height) for w in range(width)]
    return places[::-1] if direction == "reverse" else places


def tri_mamba(tokens, state, grid, directions=("forward", "reverse", "slices")):
    """tokens (B, L, C) in C order of the grid -> (B, L, C), numpy."""
    p = {name: tensor.numpy() for name, tensor in state.items()}
    total = 0
    for direction in directions:
        mark = {"forward": "", "reverse": "_b", "slices": "_s"}[direction]
        total = total + np.stack([_scan(sample, p, mark, walk(grid, direction), grid) for sample in tokens])
    return total @ p["out_proj.weight"].T


def _scan(tokens, p, mark, places, grid):
    """One direction over the tokens of one sample, each result put where its token stands."""
    A, D = -np.exp(p[f"A{mark}_log"]), p[f"D{mark}"]
    kernel, bias = p[f"conv1d{mark}.weight"], p[f"conv1d{mark}.bias"]
    d, rank = len(D), p[f"dt_proj{mark}.weight"].shape[1]
    order = [(s * grid[1] + h) * grid[2] + w for s, h, w in places]
    xz = [p["in_proj.weight"] @ tokens[token] for token in order]
    out, h = np.zeros((len(order), d)), np.zeros((d, STATES))
    for t, token in enumerate(order):
        u = bias.copy()
        for tap in range(4):
            if t - tap >= 0:
                u += kernel[:, 0, 3 - tap] * xz[t - tap][:d]
        u = _silu(u)
        r, B, C = np.split(p[f"x_proj{mark}.weight"] @ u, [rank, rank + STATES])
        dt = np.log1p(np.exp(p[f"dt_proj{mark}.weight"] @ r + p[f"dt_proj{mark}.bias"]))
        h = np.exp(dt[:, None] * A) * h + (dt * u)[:, None] * B[None, :]
        out[token] = (h @ C + D * u) * _silu(xz[t][d:])
    return out


def _silu(x):
    return x / (1 + np.exp(-x))


def mamba_layer(x, state, residual=True, directions=("forward", "reverse", "slices")):
    """x (B, C, S, H, W): LayerNorm over channels, ToM, and + x."""
    grid = x.shape[2:]
    tokens = np.stack([[sample[:, s, h, w] for s, h, w in walk(grid, "forward")] for sample in x])
    normed = tokens - tokens.mean(-1, keepdims=True)
    normed /= np.sqrt((normed**2).mean(-1, keepdims=True) + 1e-5)
    normed = normed * state["norm.weight"].numpy() + state["norm.bias"].numpy()
    mixed = tri_mamba(normed, below(state, "mamba"), grid, directions)
    out = np.zeros_like(x)
    for t, (s, h, w) in enumerate(walk(grid, "forward")):
        out[:, :, s, h, w] = mixed[:, t]
    return out + x if residual else out


def conv(x, state, name):
    """Convolution of odd kernel k, stride 1, zero padding k // 2: a sum over the taps."""
    weight, bias = state[f"{name}.weight"].numpy(), state[f"{name}.bias"].numpy()
    k = weight.shape[2]
    padded = np.pad(x, [(0, 0), (0, 0)] + [(k // 2, k // 2)] * 3)
    d, h, w = x.shape[2:]
    out = np.zeros((len(x), len(weight), d, h, w)) + bias[:, None, None, None]
    for i, j, m in np.ndindex(k, k, k):
        out += np.einsum("oc,bcdhw->bodhw", weight[:, :, i, j, m], padded[:, :, i : i + d, j : j + h, m : m + w])
    return out


def instance_norm(x):
    centred = x - x.mean((2, 3, 4), keepdims=True)
    return centred / np.sqrt((centred**2).mean((2, 3, 4), keepdims=True) + 1e-5)


def relu(x):
    return np.where(x > 0, x, 0)


def gsc_sum(x, state):
    """The published code: branches added, each convolution followed by norm and ReLU."""

    def f(x, name):
        return relu(instance_norm(conv(x, state, name)))

    return f(f(f(x, "proj"), "proj2") + f(x, "proj3"), "proj4") + x


def gsc_product(x, state):
    """The paper: branches multiplied, each block norm, convolution, ReLU."""

    def f(x, name):
        return relu(conv(instance_norm(x), state, name))

    return x + f(f(x, "spatial") * f(x, "gate"), "fuse")


def mlp(x, state):
    hidden = conv(x, state, "fc1")
    return conv(hidden * 0.5 * (1 + _erf(hidden / math.sqrt(2))), state, "fc2")


def channel_norm(x, state, eps):
    """LayerNorm over the channels of (B, C, D, H, W)."""
    centred = x - x.mean(1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(1, keepdims=True) + eps)
    weight, bias = (state[name].numpy()[:, None, None, None] for name in ("weight", "bias"))
    return normed * weight + bias


def mamba_mlp(x, state, directions):
    x = mamba_layer(x, below(state, "layer"), True, directions)
    return mlp(channel_norm(x, below(state, "norm"), 1e-6), below(state, "mlp")) + x


def ts_mamba(x, state):
    x = mamba_layer(gsc_product(x, below(state, "gsc")), below(state, "layer"))
    return mlp(channel_norm(x, below(state, "norm"), 1e-6), below(state, "mlp")) + x


def uncertainty(z):
    p = 1 / (1 + np.exp(-z.mean(1, keepdims=True)))
    return z + z * (1 - (-p * np.log(p)))


def below(state, prefix):
    """The part of a state dict under a name."""
    return {name.removeprefix(f"{prefix}."): t for name, t in state.items() if name.startswith(f"{prefix}.")}


# --- whole networks, put together again from their state dict


def network(x, state, form, depths, directions, groups=1):
    """x (B, C, D, H, W) float64 -> logits. The blocks above where there is one, torch's functions elsewhere."""
    prefix = {"released": "vit", "paper": "encoder", "v1": "mamba_encoder", "v1-text": "encoder"}[form]
    encoder = below(state, prefix)
    skips, y = [], x
    for i, depth in enumerate(depths):
        y = _downsample(y, encoder, i, form, groups)
        if form == "released":
            y = _numpy(gsc_sum, y, below(encoder, f"gscs.{i}"))
        for j in range(depth):
            layer = below(encoder, f"stages.{i}.{j}")
            if form == "paper":
                y = _numpy(ts_mamba, y, layer)
            elif form == "v1-text":
                y = _numpy(mamba_mlp, y, layer, directions)
            else:
                y = _numpy(mamba_layer, y, layer, form == "released", directions)
        skips.append(y)
        if form == "released":
            skips[i] = _numpy(mlp, F.instance_norm(y), below(encoder, f"mlps.{i}"))
        if form == "v1":
            normed = _numpy(channel_norm, y, below(encoder, f"norm{i}"), 1e-6)
            skips[i] = _numpy(mlp, normed, below(encoder, f"mlps.{i}"))
    full = _residual(x, below(state, "encoder1.layer"))
    if form == "paper":
        full, skips = _numpy(uncertainty, full), [_numpy(uncertainty, skip) for skip in skips]
    y = _residual(skips[3], below(state, "encoder5.layer"))
    for i in (5, 4, 3, 2):
        beside = full if i == 2 else _residual(skips[i - 3], below(state, f"encoder{i - 1}.layer"))
        y = F.conv_transpose3d(y, state[f"decoder{i}.transp_conv.conv.weight"], stride=2)
        y = _residual(torch.cat([y, beside], dim=1), below(state, f"decoder{i}.conv_block"))
    y = _residual(y, below(state, "decoder1.layer"))
    return F.conv3d(y, state["out.conv.conv.weight"], state["out.conv.conv.bias"])


def _downsample(x, encoder, i, form, groups):
    place = f"downsample_layers.{i}.{min(i, 1)}"
    weight, bias = encoder[f"{place}.weight"], encoder[f"{place}.bias"]
    if i == 0:
        x = F.conv3d(x, weight, bias, stride=2, padding=3, groups=groups)
        return _numpy(channel_norm, x, below(encoder, "downsample_layers.0.1"), 1e-6) if form == "v1" else x
    if form == "v1":
        x = _numpy(channel_norm, x, below(encoder, f"downsample_layers.{i}.0"), 1e-6)
    else:
        x = F.instance_norm(x)
    return F.conv3d(x, weight, bias, stride=2)


def _residual(x, state):
    """MONAI's residual block: two convolutions with norm; the input, projected where the channels differ, is added."""
    y = F.leaky_relu(F.instance_norm(F.conv3d(x, state["conv1.conv.weight"], padding=1)), 0.01)
    y = F.instance_norm(F.conv3d(y, state["conv2.conv.weight"], padding=1))
    if "conv3.conv.weight" in state:
        x = F.instance_norm(F.conv3d(x, state["conv3.conv.weight"]))
    return F.leaky_relu(y + x, 0.01)


def _numpy(function, x, *arguments):
    return torch.from_numpy(function(x.numpy(), *arguments))
