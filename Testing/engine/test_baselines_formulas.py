"""The blocks that are written here from the papers, against brute force."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from segmamba.errors import InputError
from segmamba.networks.baselines.nnformer import (
    NNFormer,
    VolumeAttention,
    partition,
    relative_index,
    reverse,
    shifted_neighbours,
)
from segmamba.networks.baselines.uxnet import LargeKernelBlock

GRID, WINDOW, SHIFT = (4, 6, 8), (2, 3, 4), (1, 1, 2)


def places(grid):
    return list(itertools.product(*map(range, grid)))


# --- windows


def test_a_window_holds_its_tokens_in_order():
    x = torch.arange(2 * 4 * 6 * 8 * 5).view(2, *GRID, 5)
    windows = partition(x, WINDOW)
    assert windows.shape == (2, 8, 24, 5)
    for number, corner in enumerate(places((2, 2, 2))):
        d, h, w = (i * side for i, side in zip(corner, WINDOW))
        assert torch.equal(windows[:, number], x[:, d : d + 2, h : h + 3, w : w + 4].reshape(2, 24, 5))


def test_reverse_undoes_partition():
    x = torch.randn(2, *GRID, 5, generator=torch.Generator().manual_seed(0))
    for window in (WINDOW, (4, 2, 8), (1, 6, 2)):
        assert torch.equal(reverse(partition(x, window), window, GRID), x)


def test_pairs_of_one_offset_share_an_entry_and_no_others():
    index = relative_index(WINDOW)
    entry_of = {}
    for (i, a), (j, b) in itertools.product(enumerate(places(WINDOW)), repeat=2):
        offset = tuple(x - y for x, y in zip(a, b))
        assert entry_of.setdefault(offset, index[i, j].item()) == index[i, j]
    assert sorted(entry_of.values()) == list(range(3 * 5 * 7))


@pytest.mark.parametrize("shift", [SHIFT, (1, 0, 2), (0, 1, 0), (0, 0, 0)])
def test_shifted_windows_join_only_what_was_side_by_side(shift):
    """Tokens may attend where, unrolled, the shifted window does not wrap around an edge between them."""
    allowed = shifted_neighbours(GRID, WINDOW, shift)
    rolled = torch.arange(4 * 6 * 8).view(GRID).roll([-s for s in shift], (0, 1, 2))
    windows = partition(rolled[None, ..., None], WINDOW)[0, ..., 0]
    where = places(GRID)
    for window, found in zip(windows.tolist(), allowed):
        for (i, a), (j, b) in itertools.product(enumerate(window), repeat=2):
            near = all(abs(x - y) < side for x, y, side in zip(where[a], where[b], WINDOW))
            assert found[i, j] == near


# --- attention


@pytest.mark.parametrize("crossed", [False, True], ids=["self", "skip"])
def test_attention_is_that_of_each_token_alone(crossed):
    """Token by token: softmax over those of its (shifted) volume, scores with the bias of their offset."""
    torch.manual_seed(0)
    attention = VolumeAttention(6, 2, GRID, WINDOW, SHIFT, crossed).double()
    attention.bias.data.normal_()
    x, q = torch.randn(2, 1, *GRID, 6, dtype=torch.float64)
    out = attention(x, q if crossed else None)
    volume = [tuple((c - s) // w for c, s, w in zip(place, SHIFT, WINDOW)) for place in places(GRID)]
    parts = attention.project(x[0])
    query, key, value = (q[0], *parts.split(6, -1)) if crossed else parts.split(6, -1)
    for a in [(0, 0, 0), (0, 3, 7), (3, 5, 1), (2, 1, 6)]:
        mates = [b for b, v in zip(places(GRID), volume) if v == volume[places(GRID).index(a)]]
        result = []
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            biases = []
            for b in mates:
                offset = [x - y + w - 1 for x, y, w in zip(a, b, WINDOW)]
                biases.append(attention.bias[(offset[0] * 5 + offset[1]) * 7 + offset[2], head])
            scores = torch.stack([query[a][part] @ key[b][part] / 3**0.5 for b in mates]) + torch.stack(biases)
            result.append(scores.softmax(0) @ torch.stack([value[b][part] for b in mates]))
        torch.testing.assert_close(out[0][a], attention.out(torch.cat(result)))


def test_a_token_of_a_shifted_volume_does_not_see_beyond_it():
    torch.manual_seed(0)
    attention = VolumeAttention(4, 1, GRID, WINDOW, SHIFT, False)
    x = torch.randn(1, *GRID, 4, requires_grad=True)
    attention(x)[0, 0, 0, 0].sum().backward()
    seen = x.grad[0].abs().sum(-1) > 0
    assert seen[:1, :1, :2].all() and seen.sum() == 2  # the corner that the shift cut off


# --- nnFormer as a whole


def narrow(patch=(32, 64, 64), **changes):
    torch.manual_seed(0)
    return NNFormer(1, 2, patch, 8, (1, 1, 2, 2), **changes)


def test_only_the_first_two_stages_are_cut_into_volumes():
    network = narrow((64, 128, 64))
    found = [[(b.attention.window, b.attention.shift) for b in stage] for stage in network.encoder]
    local, whole = (4, 4, 4), (0, 0, 0)
    assert found[0] == [(local, whole), (local, (2, 2, 2))]  # grid 16 x 32 x 16
    assert found[1] == [(local, whole), (local, (2, 2, 2))]  # 8 x 16 x 8
    assert found[2] == [((4, 8, 4), whole)] * 2
    assert found[3] == [((2, 4, 2), whole)] * 2


def test_an_axis_that_one_volume_spans_is_not_shifted():
    blocks = [block.attention for block in narrow((32, 64, 64)).encoder[1]]  # grid 4 x 8 x 8
    assert [block.shift for block in blocks] == [(0, 0, 0), (0, 2, 2)]


def test_a_stride_of_the_embedding_is_undone_at_the_end():
    network = narrow((16, 32, 32), stride=(2, 4, 4)).eval()
    assert network.encoder[0][0].attention.grid == (8, 8, 8)
    with torch.no_grad():
        assert network(torch.randn(1, 1, 16, 32, 32)).shape == (1, 2, 16, 32, 32)
    with pytest.raises(InputError, match="multiples"):
        narrow((16, 32, 32))


def test_drop_path_rises_with_depth_and_is_off_in_evaluation():
    network = narrow((32, 32, 32), drop_path=0.7)
    rates = [block.drop.drop_prob for stage in network.encoder for block in stage]
    assert rates == pytest.approx([0.1 * i for i in range(8)])
    deepest_first = [block.drop.drop_prob for stage in reversed(network.decoder) for block in stage]
    assert deepest_first == pytest.approx([0.14 * i for i in range(6)])
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.eval()(x), network(x))
        assert not torch.equal(network.train()(x), network(x))


def test_every_skip_reaches_the_logits():
    """Replacing the tokens of one stage's skip norm by zeros changes what comes out."""
    network = narrow((32, 32, 32)).eval()
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        before = network(x)
        for norm in network.norms:
            kept = norm.weight.clone()
            norm.weight.zero_()
            assert not torch.allclose(network(x), before, atol=1e-4)
            norm.weight.copy_(kept)


# --- 3D UX-Net


def test_a_large_kernel_block_sees_seven_voxels_along_each_axis():
    torch.manual_seed(0)
    block = LargeKernelBlock(3)
    block.gamma.data.fill_(1.0)
    x = torch.randn(1, 3, 11, 13, 15, requires_grad=True)
    block(x)[0, :, 5, 6, 7].sum().backward()
    expected = torch.zeros(11, 13, 15, dtype=torch.bool)
    expected[2:9, 3:10, 4:11] = True
    assert torch.equal(x.grad[0].abs().sum(0) > 0, expected)


def test_a_large_kernel_block_is_its_formula():
    """Channel by channel in float64; the scaling of a channel knows no other."""
    torch.manual_seed(0)
    block = LargeKernelBlock(3).double()
    for p in block.parameters():
        p.data.normal_()
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    convolved = torch.stack(
        [
            F.conv3d(x[:, c : c + 1], block.depthwise.weight[c : c + 1], padding=3)[:, 0] + block.depthwise.bias[c]
            for c in range(3)
        ],
        dim=1,
    )
    mean, variance = convolved.mean(1, keepdim=True), convolved.var(1, unbiased=False, keepdim=True)
    normed = (convolved - mean) / (variance + 1e-6).sqrt()
    expected = x.clone()
    for c in range(3):
        y = normed[:, c] * block.norm.weight[c] + block.norm.bias[c]
        total = block.narrow.bias[c].expand_as(y)
        for k in range(4):
            wide = y * block.widen.weight[4 * c + k].item() + block.widen.bias[4 * c + k]
            total = total + block.narrow.weight[c, k].item() * wide * 0.5 * (1 + torch.erf(wide / 2**0.5))
        expected[:, c] += block.gamma[c].item() * total
    torch.testing.assert_close(block(x), expected)


def test_a_large_kernel_block_begins_as_nearly_nothing():
    x = torch.randn(1, 4, 5, 6, 7)
    with torch.no_grad():
        assert 0 < (LargeKernelBlock(4)(x) - x).abs().max() < 1e-5
