"""Lesions and their diameters: shapes of which the answer is known, an oracle that tries every line, turned axes."""

import itertools

import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage
from segmamba.errors import InputError
from segmamba.followup.diameters import diameters, stays_inside
from segmamba.followup.lesions import least_mm, measure, measure_mask, unmeasurable_reason

MM = np.eye(4)


def slab(image, depth=3):
    """The same image (X, Y) in `depth` slices, one empty one below."""
    return np.stack([np.zeros_like(image), *[image] * depth], axis=2)


def grid(*shape):
    return np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")


def only(mask, affine=MM):
    (lesion,) = measure_mask(mask, affine, "ET").lesions
    return lesion


def disc(radius, size=41):
    x, y = grid(size, size)
    return (x - 20) ** 2 + (y - 20) ** 2 <= radius**2


# --- shapes


@pytest.mark.parametrize("radius", [3, 5, 8, 13])
def test_a_disc_is_as_wide_as_high(radius):
    lesion = only(slab(disc(radius)))
    assert (lesion.d1, lesion.d2) == (2 * radius, 2 * radius)
    assert lesion.product == 4 * radius**2


def test_an_ellipse_turned_by_30_degrees_has_its_two_axes():
    x, y = grid(81, 81)
    c, s = np.cos(np.radians(30)), np.sin(np.radians(30))
    along, across = (x - 40) * c + (y - 40) * s, (y - 40) * c - (x - 40) * s
    image = (along / 30) ** 2 + (across / 15) ** 2 <= 1
    lesion = only(slab(image))
    assert (lesion.d1, lesion.d2) == pytest.approx(by_trying_every_line(image[:, :, None], MM), abs=1e-9)
    assert lesion.d1 == pytest.approx(60, abs=1) and lesion.d1 <= 60
    assert lesion.d2 == pytest.approx(30, abs=1) and lesion.d2 <= 30
    direction = (lesion.line1[1] - lesion.line1[0])[:2]
    assert abs(np.degrees(np.arctan2(direction[1], direction[0])) - 30) < 3


def test_a_rectangle_is_measured_along_its_diagonal():
    """13 x 5 voxels: from corner to corner 12 and 4 steps; (1, -3) is at a right angle exactly, and too short.

    (1, -4) runs 4 / sqrt(160) of a voxel along the diagonal: less than half of the 12 / sqrt(160) that a voxel takes.
    """
    mask = np.zeros((20, 12), bool)
    mask[3:16, 4:9] = True
    lesion = only(slab(mask))
    assert lesion.d1 == pytest.approx(np.hypot(12, 4))
    assert lesion.d2 == pytest.approx(np.hypot(1, 4))
    assert "D2 is 4.4 degrees off a right angle" in lesion.notes[0]


def test_a_line_does_not_leave_an_l():
    """Arms 3 wide: the longest line runs within one arm, corner to corner, and not from tip to tip."""
    mask = np.zeros((30, 30), bool)
    mask[2:23, 2:5] = True
    mask[2:5, 2:23] = True
    lesion = only(slab(mask))
    assert lesion.d1 == pytest.approx(np.hypot(20, 2))
    assert not stays_inside(mask, np.array([[22, 4]]), np.array([[4, 22]]))[0]


def test_a_line_does_not_cross_the_opening_of_a_c():
    """9 x 15 voxels with a bay of 6 x 9: the corners of the opening lie 14 apart with the bay between them."""
    mask = np.zeros((20, 20), bool)
    mask[3:12, 2:17] = True
    mask[6:12, 5:14] = False
    lesion = only(slab(mask))
    assert not stays_inside(mask, np.array([[11, 2]]), np.array([[11, 16]]))[0]
    # from the corner of the back to one row below it at the other end: passes the bay's corner, 5.46 < 5.5
    assert lesion.d1 == pytest.approx(np.hypot(3, 14))


def test_lines_stay_out_of_a_cavity():
    """A ring of radii 8 and 15 (excluded: below 8.01): no line passes nearer to its centre than the cavity's edge."""
    ring = disc(15) & ~disc(8.01)
    lesion = only(slab(ring))
    assert (lesion.d1, lesion.d2) == pytest.approx(by_trying_every_line(ring[:, :, None], MM), abs=1e-9)
    inner, outer = 8.01, 15
    assert lesion.d1 == pytest.approx(2 * np.sqrt(outer**2 - inner**2), abs=2)
    one, other = lesion.line1[:, :2] - 20
    normal = np.array([-(other - one)[1], (other - one)[0]]) / lesion.d1
    assert abs(one @ normal) > 8.01 - np.sqrt(0.5)
    filled = only(slab(disc(15)))
    assert filled.d1 == 30


def test_two_lesions_in_one_slice_are_two():
    mask = np.zeros((40, 20), bool)
    mask[2:14, 3:15] = True
    mask[20:31, 3:14] = True
    first, second = measure_mask(slab(mask), MM, "ET").lesions
    assert first.d1 == pytest.approx(np.hypot(11, 11)) and second.d1 == pytest.approx(np.hypot(10, 10))
    assert first.d2 == first.d1 and second.product == pytest.approx(200)
    assert (first.number, second.number) == (1, 2)


def test_voxels_of_half_a_millimetre_in_slices_of_five():
    """A disc of radius 10 mm is one of 20 voxels; four slices of it are 5 mm thick each."""
    affine = np.diag([0.5, 0.5, 5, 1])
    x, y = grid(61, 61)
    image = (x - 30) ** 2 + (y - 30) ** 2 <= 20**2
    measured = measure_mask(slab(image, 4), affine, "ET")
    (lesion,) = measured.lesions
    assert (lesion.d1, lesion.d2, lesion.slices) == (20, 20, 4)
    assert lesion.volume_ml == pytest.approx(image.sum() * 4 * 0.25 * 5 / 1000)
    assert measured.spacing == (0.5, 0.5, 5) and not measured.notes


def test_a_grid_turned_by_20_degrees_changes_nothing():
    angle = np.radians(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ np.diag([0.9, 0.9, 3, 1])
    mask = slab(disc(9))
    plain, oblique = only(mask, np.diag([0.9, 0.9, 3, 1])), only(mask, affine)
    assert oblique.d1 == pytest.approx(plain.d1) == pytest.approx(2 * 9 * 0.9)
    assert oblique.product == pytest.approx(plain.product)
    assert oblique.volume_ml == pytest.approx(plain.volume_ml)
    np.testing.assert_allclose(oblique.line1, apply_affine(turn, plain.line1), atol=1e-6)


def test_images_of_thick_sagittal_slices_are_noted():
    mask = np.zeros((10, 40, 40), bool)
    mask[3:7, 10:30, 10:30] = True
    notes = measure_mask(mask, np.diag([5.0, 0.5, 0.5, 1]), "ET").notes
    assert any("another plane" in note for note in notes)


@pytest.mark.parametrize(
    ("size", "d1", "d2"),
    [
        ((12, 2), np.hypot(11, 1), 1),  # (0, 1) is 5.2 degrees off
        ((3, 2), np.hypot(2, 1), np.sqrt(2)),  # (1, -1) ends exactly half a voxel off
        ((4, 2), np.hypot(3, 1), 1),
        ((3, 3), np.sqrt(8), np.sqrt(8)),
    ],
)
@pytest.mark.parametrize("voxel", [1.0, 4.0])
def test_thin_and_coarse_lesions_have_a_second_diameter(size, d1, d2, voxel):
    mask = np.zeros((20, 9), bool)
    mask[3 : 3 + size[0], 2 : 2 + size[1]] = True
    lesion = only(slab(mask), np.diag([voxel, voxel, 1, 1]))
    assert (lesion.d1, lesion.d2) == pytest.approx((voxel * d1, voxel * d2))
    assert any("off a right angle" in note for note in lesion.notes) == (size != (3, 3))


def test_a_lesion_one_voxel_wide_has_no_second_diameter_and_says_so():
    mask = np.zeros((20, 6), bool)
    mask[3:15, 2] = True
    lesion = only(slab(mask))
    assert (lesion.d1, lesion.d2, lesion.line2) == (11, 0, None)
    assert not lesion.measurable and "by hand" in lesion.notes[0]


# --- which voxels are a lesion


def test_corners_join_and_two_millimetres_part():
    mask = np.zeros((20, 20, 6), bool)
    mask[2:5, 2:5, 2] = True
    mask[5:8, 5:8, 3] = True  # touches by a corner
    mask[12:14, 2:4, 2] = True
    mask[15:17, 2:4, 2] = True  # middles 2 mm apart from those before: another lesion
    assert [lesion.voxels for lesion in measure_mask(mask, MM, "ET").lesions] == [18, 4, 4]
    fine = np.diag([0.9, 1, 1, 1])  # 1.8 mm
    assert [lesion.voxels for lesion in measure_mask(mask, fine, "ET").lesions] == [18, 8]
    assert measure_mask(mask, fine, "ET").lesions[1].pieces == 2


def test_pieces_of_two_voxels_are_left_out_and_counted():
    mask = np.zeros((20, 20, 6), bool)
    mask[2:5, 2, 2] = True
    mask[10:12, 10, 3] = True
    measured = measure_mask(mask, MM, "ET")
    assert [lesion.voxels for lesion in measured.lesions] == [3]
    assert measured.small_voxels == 2 and "2 voxels" in measured.notes[0]


def test_regions_are_those_of_the_labels():
    label_map = np.zeros((20, 20, 4), np.uint8)
    label_map[2:18, 2:18] = 2
    label_map[5:15, 5:15] = 1
    label_map[8:12, 8:12] = 3
    voxels = {
        region: measure(label_map, MM, region).lesions[0].voxels for region in ("ET", "TC", "WT", "non-enhancing")
    }
    assert voxels == {"ET": 64, "TC": 400, "WT": 1024, "non-enhancing": 960}
    with pytest.raises(InputError, match="expected one of ET"):
        measure(label_map, MM, "GTV")


def test_an_empty_map_holds_no_lesion():
    measured = measure(np.zeros((5, 6, 7), np.uint8), MM)
    assert measured.lesions == () and measured.volume_ml == 0


# --- measurable


@pytest.mark.parametrize(
    ("d1", "d2", "slices", "thickness", "measurable"),
    [
        (10.0, 10.0, 2, 1.0, True),
        (10.0, 10.0 - 1e-9, 2, 1.0, True),
        (10.0, 9.99, 2, 1.0, False),
        (9.99, 9.99, 2, 1.0, False),
        (30.0, 10.0, 1, 1.0, False),
        (10.0, 10.0, 2, 5.0, True),
        (11.98, 11.98, 2, 6.0, False),
        (12.0, 12.0, 2, 6.0, True),
    ],
)
def test_measurable_from_10_mm_on_two_slices(d1, d2, slices, thickness, measurable):
    assert (unmeasurable_reason(d1, d2, slices, thickness) == "") == measurable


def test_the_least_diameter_of_thick_slices_is_twice_their_thickness():
    assert [least_mm(t) for t in (1, 5, 5.5, 6)] == [10, 10, 11, 12]


@pytest.mark.parametrize(("step", "measurable"), [(1.0, True), (0.999, False)])
def test_a_disc_of_10_mm_is_measurable_and_one_of_9_99_is_not(step, measurable):
    lesion = only(slab(disc(5), 2), np.diag([step, step, 1, 1]))
    assert lesion.d1 == pytest.approx(10 * step) and lesion.measurable == measurable
    assert not only(slab(disc(5), 1), np.diag([step, step, 1, 1])).measurable


# --- every line tried


def runs_through_others(mask, start, end):
    """By clipping the line against the inside of every pixel that is not in the mask (Liang and Barsky)."""
    others = np.argwhere(~np.pad(mask, 2)) - 2
    enters, leaves = np.zeros(len(others)), np.ones(len(others))
    for axis in range(2):
        step = end[axis] - start[axis]
        near, far = others[:, axis] - 0.5 - start[axis], others[:, axis] + 0.5 - start[axis]
        if step == 0:
            leaves = np.where((near < 0) & (far > 0), leaves, -1)
            continue
        low, high = np.minimum(near / step, far / step), np.maximum(near / step, far / step)
        enters, leaves = np.maximum(enters, low), np.minimum(leaves, high)
    return bool((leaves - enters > 1e-9).any())


def by_trying_every_line(mask, affine):
    """(d1, d2) of all pairs of border voxels in all slices: the second within 2 degrees or half a voxel."""
    steps = affine[:3, :2]
    lines = []
    for k in range(mask.shape[2]):
        image = mask[:, :, k]
        border = np.argwhere(image & ~ndimage.binary_erosion(image))
        for a, b in itertools.combinations(border, 2):
            if not runs_through_others(image, a, b):
                lines.append((k, a, b, steps @ (b - a)))
    if not lines:
        return 0.0, 0.0
    lengths = np.array([np.linalg.norm(line[3]) for line in lines])
    longest = lengths.max()
    second = 0.0
    for i in np.flatnonzero(lengths > longest - 1e-6):
        k, a, b, along = lines[i]
        for (other, c, d, across), length in zip(lines, lengths):
            if other != k or length <= second:
                continue
            angle = np.degrees(np.arccos(np.clip(abs(along @ across) / (length * lengths[i]), 0, 1)))
            # how far the line runs along the longest one, against how wide a voxel is that way, by its edges
            unit = along / lengths[i]
            if angle < 88 - 1e-6 and abs(unit @ across) > max(abs(unit @ edge) for edge in steps.T) / 2 + 1e-9:
                continue
            # c + t (d - c) = a + u (b - a)
            t, u = np.linalg.solve(np.column_stack([d - c, a - b]).astype(float), (a - c).astype(float))
            if -1e-9 <= t <= 1 + 1e-9 and -1e-9 <= u <= 1 + 1e-9:
                second = length
    return longest, second


@pytest.mark.parametrize("seed", range(200))
def test_no_line_is_longer_than_the_one_that_was_found(seed):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(5, 15)), int(rng.integers(5, 13)), 2)
    mask = ndimage.gaussian_filter(rng.normal(size=shape), (rng.uniform(0.4, 1.6), 1.0, 0.3)) > rng.uniform(-0.1, 0.15)
    affine = np.eye(4)
    affine[:3, :3] = np.diag(rng.choice([0.5, 0.9, 1.0, 1.7], 3))
    affine[0, 1] = rng.choice([0.0, 0.1])  # a sheared grid measures along its own axes
    found = diameters(mask, affine)
    assert (found.d1, found.d2) == pytest.approx(by_trying_every_line(mask, affine), abs=1e-9)


# --- the same whatever the order and direction of the stored axes


def awkward():
    """(label map, affine): three lesions of no symmetry on an oblique grid of 0.5 x 0.5 x 5 mm."""
    rng = np.random.default_rng(3)
    label_map = np.zeros((52, 47, 9), np.uint8)
    blob = ndimage.gaussian_filter(rng.normal(size=label_map.shape), (4, 4, 1))
    label_map[blob > np.quantile(blob, 0.93)] = 3
    angle = np.radians(20)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.5, 0.5, 5])
    affine[:3, 3] = (-31, 12, 7)
    return label_map, affine


@pytest.fixture(scope="module")
def as_stored():
    return measure(*awkward())


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)), ids=str)
def test_48_orders_of_the_axes_give_the_same_lesions(as_stored, order, flips):
    """Of both handednesses: half of the 48 mirror the stored axes, and the affine says so."""
    label_map, affine = awkward()
    turned = label_map.transpose(order)[tuple(slice(None, None, flip) for flip in flips)]
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flips)):
        change[old, new] = flip
        change[old, 3] = 0 if flip > 0 else label_map.shape[old] - 1
    measured = measure(turned, affine @ change)
    assert len(measured.lesions) == len(as_stored.lesions) > 2
    for one, other in zip(measured.lesions, as_stored.lesions):
        assert (one.d1, one.d2, one.voxels, one.slices) == (other.d1, other.d2, other.voxels, other.slices)
        assert one.measurable == other.measurable
        np.testing.assert_allclose(one.line1, other.line1, atol=1e-6)
        np.testing.assert_allclose(one.centre, other.centre, atol=1e-6)
        # the slice is told as it is stored: all ends of the line lie in it
        at = apply_affine(np.linalg.inv(affine @ change), one.line1)[:, list(order).index(2)]
        assert at == pytest.approx([one.slice, one.slice], abs=1e-6)
