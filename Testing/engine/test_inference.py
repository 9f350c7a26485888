"""Inference against its plain definition: windows one by one, flips by hand, every pass counted."""

import copy
import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference
from scipy import ndimage
from segmamba.errors import Cancelled, InputError
from segmamba.models.specs import InferenceSpec
from segmamba.networks.presets import build_network
from segmamba.prediction import windows as inference
from segmamba.prediction.tiling import mean_of_windows, window_places
from segmamba.prediction.windows import Prediction, count_windows, predict
from torch import nn

SHAPES = [(40, 56, 70), (33, 31, 48), (20, 90, 17), (64, 64, 64), (5, 6, 7), (16, 16, 16)]


class Recorder(nn.Module):
    """2 channels -> 3 logits; depends on place, orientation and window alike, and remembers what it saw."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kernel = nn.Parameter(torch.randn(3, 2, 3, 3, 3, generator=generator))
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        y = nn.functional.conv3d(x, self.kernel, padding=1)
        d, h, w = (torch.linspace(0, 1, side) for side in x.shape[2:])
        y = y * (1 + d[:, None, None] + 2 * h[:, None] ** 2 + 3 * w**3)
        return (y - y.mean((2, 3, 4), keepdim=True)) / y.std((2, 3, 4), keepdim=True)


def volume(shape, channels=2):
    return torch.randn(channels, *shape, generator=torch.Generator().manual_seed(1))


def padded(shape):
    sides = [math.ceil(side / 16) * 16 for side in shape]
    return sides if max(sides) > 16 else [32, *sides[1:]]


def starts(size, window, overlap):
    """Where windows begin along an axis: every step, and the last one flush with the end."""
    step = int(window * (1 - overlap))
    found = [0]
    while found[-1] + window < size:
        found.append(min(found[-1] + step, size - window))
    return found


def slowly(network, x, spec, flips=((),)):
    """Mean probabilities by definition: zeros at the far end, flip, run every window, weight, average, undo."""
    shape = x.shape[1:]
    size = padded(shape)
    window = [min(w, s) for w, s in zip(spec.window, size)]
    weight = compute_importance_map(tuple(window), mode="gaussian", sigma_scale=0.125).double()
    whole = torch.zeros(len(x), *size)
    whole[:, : shape[0], : shape[1], : shape[2]] = x
    places = list(product(*(starts(s, w, spec.overlap) for s, w in zip(size, window))))
    mean = 0
    with torch.no_grad():
        for axes in flips:
            dims = [axis + 1 for axis in axes]
            flipped = whole.flip(dims)
            total, weights = 0, torch.zeros(size, dtype=torch.float64)
            for place in places:
                part = tuple(slice(a, a + w) for a, w in zip(place, window))
                probabilities = torch.softmax(network(flipped[(slice(None), *part)][None])[0].double(), 0)
                canvas = torch.zeros(len(probabilities), *size, dtype=torch.float64)
                canvas[(slice(None), *part)] = probabilities * weight
                total = total + canvas
                weights[part] += weight
            mean = mean + (total / weights).flip(dims) / len(flips)
    return mean[:, : shape[0], : shape[1], : shape[2]], len(places) * len(flips)


def assert_matches(result, expected, tolerance=2e-6):
    probabilities, passes = expected
    assert result.probabilities.shape == probabilities.shape
    assert result.probabilities.dtype == torch.float32
    assert (result.probabilities - probabilities).abs().max() < tolerance
    assert result.passes == passes


# --- windows


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("window", "overlap"), [((32, 48, 32), 0.5), ((64, 32, 48), 0.25), ((32, 32, 64), 0.0)])
def test_windows_are_what_running_them_one_by_one_gives(shape, window, overlap):
    spec = InferenceSpec(window=window, overlap=overlap)
    network = Recorder()
    result = predict(network, volume(shape), spec)
    seen = list(network.seen)
    assert_matches(result, slowly(network, volume(shape), spec))
    assert len(seen) == result.passes == count_windows(shape, spec)
    assert set(seen) == {(1, 2, *(min(w, s) for w, s in zip(window, padded(shape))))}


@pytest.mark.parametrize("shape", [(40, 56, 70), (32, 48, 32), (33, 90, 47)], ids=str)
@pytest.mark.parametrize(("window", "overlap"), [((32, 48, 32), 0.5), ((24, 32, 16), 0.25), ((16, 48, 31), 0.7)])
@pytest.mark.parametrize("sw_batch_size", [1, 3])
def test_windows_are_monais_bit_for_bit(shape, window, overlap, sw_batch_size):
    network, image, cpu = Recorder(), volume(shape), torch.device("cpu")
    with torch.no_grad():
        places = window_places(shape, window, overlap)
        found = mean_of_windows(image, places, network, sw_batch_size=sw_batch_size, run_on=cpu, accumulate_on=cpu)
        passes = len(network.seen)
        expected = sliding_window_inference(
            image[None], window, sw_batch_size, network, overlap=overlap, mode="gaussian"
        )
    assert torch.equal(found, expected[0])
    assert network.seen[:passes] == network.seen[passes:]


def test_a_volume_that_fits_the_window_is_run_once_and_whole():
    network, x = Recorder(), volume((30, 48, 41))
    result = predict(network, x, InferenceSpec(window=(64, 64, 64)))
    whole = nn.functional.pad(x, (0, 7, 0, 0, 0, 2))
    with torch.no_grad():
        expected = torch.softmax(network(whole[None]), 1)[0, :, :30, :48, :41]
    assert network.seen == [(1, 2, 32, 48, 48)] * 2
    assert (result.probabilities - expected).abs().max() < 1e-6
    assert result.passes == 1


def test_probabilities_are_averaged_and_not_logits():
    """Two windows that disagree, one of them sure: the mean of logits would follow the sure one."""

    class Disagreeing(nn.Module):
        def forward(self, x):
            sure = x.mean() > 0
            logits = torch.zeros(1, 2, *x.shape[2:])
            logits[:, 0] = 50 if sure else -2
            return logits

    x = torch.ones(1, 32, 32, 48)
    x[..., 24:] = -1.1
    result = predict(Disagreeing(), x, InferenceSpec(window=(32, 32, 32), overlap=0.5))
    assert result.passes == 2
    doubtful = torch.sigmoid(torch.tensor(-2.0))
    middle = result.probabilities[0, 16, 16, 23:25]  # between the two centres both weigh the same
    assert middle.mean() == pytest.approx((1 + doubtful.item()) / 2, abs=1e-3)


def test_a_real_network_in_windows_with_mirroring():
    torch.manual_seed(0)
    narrow = {"features": (4, 4, 8, 8), "full_features": 4, "bottleneck": 8}
    network = build_network("quick", **narrow, in_channels=2, out_channels=3)
    spec = InferenceSpec(window=(32, 32, 48))
    x = volume((30, 40, 60))
    result = predict(network, x, spec, mirrorings=1)
    assert_matches(result, slowly(copy.deepcopy(network), x, spec, [(), (2,)]), tolerance=1e-4)
    assert (result.device, result.precision, result.notes) == ("cpu", "fp32", ())


# --- mirroring


FLIPS = {0: [()], 1: [(), (2,)], 3: [(), (1,), (2,), (1, 2)]}
FLIPS[7] = [*FLIPS[3], (0,), (0, 1), (0, 2), (0, 1, 2)]


@pytest.mark.parametrize("mirrorings", FLIPS)
def test_mirrorings_are_the_mean_over_flips_undone(mirrorings):
    network, x, spec = Recorder(), volume((40, 31, 50)), InferenceSpec(window=(48, 32, 48))
    result = predict(network, x, spec, mirrorings=mirrorings)
    assert_matches(result, slowly(network, x, spec, FLIPS[mirrorings]))
    assert result.passes == (mirrorings + 1) * count_windows(x.shape[1:], spec)


def test_an_unknown_number_of_mirrorings():
    with pytest.raises(InputError, match=r"2 mirrorings; expected one of 0, 1, 3, 7"):
        predict(Recorder(), volume((16, 32, 16)), InferenceSpec(), mirrorings=2)


# --- scale


def on_grid(x, shape):
    """(C, D, H, W) linearly interpolated at the middles of the voxels of another grid over the same box."""
    middles = np.meshgrid(*((np.arange(n) + 0.5) * old / n - 0.5 for n, old in zip(shape, x.shape[1:])), indexing="ij")
    channels = [ndimage.map_coordinates(channel, middles, order=1, mode="nearest") for channel in x.double().numpy()]
    return torch.from_numpy(np.stack(channels)).float()


@pytest.mark.parametrize(("coarser", "grids"), [((1.35,), [(32, 23, 32)]), ((1.25, 2), [(32, 25, 40), (20, 16, 25)])])
@pytest.mark.parametrize("mirrorings", [0, 1])
def test_coarser_passes_are_on_the_image_interpolated_and_back(coarser, grids, mirrorings):
    network, x = Recorder(), volume((40, 31, 50))
    spec, flips = InferenceSpec(window=(48, 32, 48), coarser=coarser), FLIPS[mirrorings]
    seen = []
    result = predict(network, x, spec, mirrorings=mirrorings, progress=seen.append)
    views = [slowly(network, x, spec, flips), *(slowly(network, on_grid(x, grid), spec, flips) for grid in grids)]
    mean = sum(on_grid(view, x.shape[1:]) for view, _ in views) / len(views)
    assert_matches(result, (mean, sum(passes for _, passes in views)), tolerance=1e-5)
    assert result.passes == len(flips) * count_windows(x.shape[1:], spec) == len(seen) and seen[-1] == 1


def test_of_nested_regions_the_innermost_is_found_on_the_images_own_voxels():
    network, x = Recorder(), volume((40, 31, 50))
    plain = InferenceSpec(window=(48, 32, 48), nested=(2, 1, 3))
    alone, *scaled = (predict(network, image, plain).probabilities for image in (x, on_grid(x, (32, 23, 32))))
    mean = (alone + on_grid(scaled[0], x.shape[1:])) / 2
    found = predict(network, x, replace(plain, coarser=(1.35,))).probabilities
    whole, core = (torch.stack([p[list(labels)].sum(0) for p in (found, mean)]) for labels in ((1, 2, 3), (1, 3)))
    torch.testing.assert_close(found[3], alone[3], atol=0, rtol=0)
    torch.testing.assert_close(core[0], torch.maximum(core[1], alone[3]), atol=1e-5, rtol=0)
    torch.testing.assert_close(whole[0], torch.maximum(whole[1], core[0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.sum(0), torch.ones(x.shape[1:]), atol=1e-5, rtol=0)
    assert (alone[3] > core[1]).any() and (core[1] > alone[3]).any() and found.min() >= 0


@pytest.mark.parametrize("coarser", [(0.5,), (1.0,), (1.35, 5.0), (1.1, 1.2, 1.3, 1.4)])
def test_voxels_are_seen_coarser_and_not_finer_and_a_few_times(coarser):
    with pytest.raises(InputError, match=r"coarser .* must be at most three sizes, above 1 and at most 4"):
        InferenceSpec(coarser=coarser)


# --- progress and cancelling


def test_progress_counts_every_pass_up_to_one():
    fractions = []
    spec = InferenceSpec(window=(32, 32, 32))
    result = predict(Recorder(), volume((40, 32, 60)), spec, mirrorings=3, progress=fractions.append)
    assert result.passes == 4 * 2 * 3
    assert fractions == [pytest.approx(n / 24) for n in range(1, 25)]
    assert fractions[-1] == 1.0


@pytest.mark.parametrize("after", [0, 1, 5])
def test_cancelling_stops_before_the_next_window(after):
    network = Recorder()
    with pytest.raises(Cancelled):
        predict(
            network,
            volume((64, 32, 64)),
            InferenceSpec(window=(32, 32, 32)),
            mirrorings=1,
            cancelled=lambda: len(network.seen) == after,
        )
    assert len(network.seen) == after


# --- uncertainty


class Fixed(nn.Module):
    """The same logits everywhere in a slice: of the slices, by turns, one row of the table."""

    table = torch.tensor([[0.0, 0.0, 0.0], [200.0, 0.0, 0.0], [math.log(2), 0.0, -200.0], [0.0, 0.0, -200.0]])

    def forward(self, x):
        rows = self.table[torch.arange(x.shape[2]) % 4]
        return rows.T[None, :, :, None, None].expand(1, 3, *x.shape[2:])


def test_uncertainty_is_the_entropy_over_its_largest():
    result = predict(Fixed(), volume((32, 20, 18)), InferenceSpec())
    third = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) / math.log(3)
    expected = torch.tensor([1.0, 0.0, third, math.log(2) / math.log(3)]).repeat(8)
    assert result.uncertainty.shape == (32, 20, 18)
    assert result.uncertainty.dtype == torch.float32
    torch.testing.assert_close(result.uncertainty, expected[:, None, None].expand(32, 20, 18), rtol=0, atol=1e-6)


def test_uncertainty_stays_within_0_and_1_and_tells_of_the_mean():
    network, spec = Recorder(), InferenceSpec(window=(32, 32, 32))
    result = predict(network, volume((40, 56, 33)), spec, mirrorings=7)
    p = result.probabilities.double()
    assert (p.sum(0) - 1).abs().max() < 1e-5
    expected = -(p * p.log()).sum(0) / math.log(3)
    assert (result.uncertainty - expected).abs().max() < 1e-5
    assert result.uncertainty.min() >= 0 and result.uncertainty.max() <= 1


def test_rounding_does_not_push_the_uncertainty_out_of_its_range():
    sure = torch.tensor([1 + 2**-20, 0.0, 0.0])  # what a mean over windows may come to
    even = torch.full((3,), 1 / 3 + 2**-22)
    found = inference._entropy(torch.stack([sure, even], dim=1))
    assert found.tolist() == [0.0, 1.0]


# --- what goes wrong


def test_too_little_gpu_memory_is_tried_elsewhere_and_said(caplog):
    cpu, gpu = torch.device("cpu"), torch.device("cuda:1")
    attempts = inference._attempts(gpu)
    assert [(a.run_on, a.accumulate_on) for a in attempts] == [(gpu, gpu), (gpu, cpu), (cpu, cpu)]
    assert inference._attempts(cpu) == [inference._Attempt(cpu, cpu)]
    for enough in range(3):
        tried = []

        def run(attempt, tried=tried, enough=enough):
            tried.append(attempt)
            if len(tried) <= enough:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return "result"

        result, notes = inference._first_that_fits(attempts, run)
        assert result == "result"
        assert tried == attempts[: enough + 1]
        assert notes == tuple(attempt.note for attempt in attempts[1 : enough + 1])
        assert all("GPU memory ran short" in note for note in notes)
    assert "the network ran on the CPU" in caplog.text


def test_where_no_attempt_fits_or_something_else_fails_the_error_is_raised():
    def run(attempt):
        tried.append(attempt)
        raise error

    for error, count in ((torch.cuda.OutOfMemoryError("full"), 3), (RuntimeError("broken"), 1)):
        tried = []
        with pytest.raises(type(error), match=str(error)):
            inference._first_that_fits(inference._attempts(torch.device("cuda")), run)
        assert len(tried) == count


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_that_is_really_too_small():
    network, x, spec = Recorder(), volume((64, 64, 64)), InferenceSpec(window=(64, 64, 64))
    expected = predict(network, x, spec)
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        result = predict(network, x, spec, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.device == "cpu" and len(result.notes) == 2
    assert torch.equal(result.probabilities, expected.probabilities)


def test_the_network_says_what_is_wrong_with_its_input():
    network = build_network("quick", features=(4, 4, 4, 4), full_features=4, bottleneck=4)
    with pytest.raises(InputError, match=r"shape \(1, 3, 16, 32, 16\)"):
        predict(network, volume((9, 30, 7), channels=3), InferenceSpec())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": (32, 32)}, "window"),
        ({"window": (32, 40, 32)}, "multiples of 16"),
        ({"window": (32, 16, 32)}, "32 or more"),
        ({"window": (32, -32, 32)}, "window"),
        ({"overlap": 1.0}, "overlap 1.0"),
        ({"overlap": -0.1}, "overlap -0.1"),
        ({"overlap": math.nan}, "overlap nan"),
    ],
)
def test_refused_settings(settings, message):
    with pytest.raises(InputError, match=message):
        InferenceSpec(**settings)


def test_the_input_is_left_as_it_was():
    x = volume((20, 33, 40))
    before = x.clone()
    predict(Recorder(), x, InferenceSpec(window=(32, 32, 32)), mirrorings=7)
    assert torch.equal(x, before)


def test_how_unsure_a_prediction_is_by_hand():
    """Five voxels: surely tumour, surely background, unsure tumour, unsure background, surely background."""
    background = torch.tensor([0.1, 0.9, 0.45, 0.6, 0.99]).reshape(1, 1, 1, 5)
    uncertainty = torch.tensor([0.2, 0.2, 0.5, 0.35, 0.01]).reshape(1, 1, 5)
    found = Prediction(torch.cat([background, 1 - background]), uncertainty, 1, "cpu", "fp32", ())
    assert found.unsure == pytest.approx(2 / 3)
    nothing = Prediction(torch.ones(2, 1, 1, 5), torch.zeros(1, 1, 5), 1, "cpu", "fp32", ())
    assert nothing.unsure == 0
