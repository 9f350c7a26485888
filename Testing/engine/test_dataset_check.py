"""Every kind of fault, made by hand in a sound data set, is found there and nowhere else."""

import itertools
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from image_files import AFFINE, noise, write
from scipy import ndimage
from segmamba.cases.case import Case
from segmamba.cases.labels import CONVENTIONS, to_standard
from segmamba.cli import main
from segmamba.datasets.check import KINDS, check_dataset
from segmamba.datasets.collect import init_dataset, update_dataset
from segmamba.datasets.manifest import read_dataset
from segmamba.datasets.phantom import make_phantom
from segmamba.datasets.plausibility import find_implausible
from segmamba.datasets.registration import Misplaced, find_misplaced
from segmamba.datasets.split import make_split
from segmamba.datasets.task import custom_task

NAMES = ("t1n", "t1c", "t2w", "t2f")


@pytest.fixture
def phantoms(phantom_cases, tmp_path):
    """A folder of three synthetic cases, to be spoilt."""
    for i in range(3):
        shutil.copytree(phantom_cases / f"phantom-{i}", tmp_path / "set" / f"phantom-{i}")
    return tmp_path / "set"


def path_of(root, name, case=1):
    return root / f"phantom-{case}" / f"phantom-{case}-{name}.nii.gz"


def change(path, function, affine=None):
    """Rewrites an image with `function` of its array."""
    image = nib.load(path)
    array = np.asarray(image.dataobj)
    write(path, np.asarray(function(array.copy())), image.affine if affine is None else affine)


def found(root, update=True):
    """(kind, case) of every finding, in a data set made of `root` before or after it was spoilt."""
    if update:
        init_dataset(root, convention="brats2023") if not (root / "dataset.json").exists() else update_dataset(root)
    findings = check_dataset(read_dataset(root))
    assert all(finding.kind in KINDS and finding.text for finding in findings)
    return [(f.kind, f.case) for f in findings]


def run_check(root, *options):
    """The command, in one process: two take their time to begin, and a sound data set has had them."""
    return main(["dataset", "check", str(root), "--jobs", "1", *options])


def shift(array, voxels, axis):
    """Moved towards higher indices, with zeros coming in."""
    moved = np.roll(array, voxels, axis)
    edge = [slice(None)] * 3
    edge[axis] = slice(0, voxels) if voxels > 0 else slice(voxels, None)
    moved[tuple(edge)] = 0
    return moved


def test_a_sound_data_set(phantoms, capsys):
    assert found(phantoms) == []
    assert main(["dataset", "check", str(phantoms), "--jobs", "2"]) == 0
    assert capsys.readouterr().out == "3 cases: 0 errors, 0 warnings\n"


# --- files


def test_files_that_changed_or_went(phantoms, capsys):
    found(phantoms)
    change(path_of(phantoms, "t1n", 0), lambda a: a + (a > 0))
    path_of(phantoms, "t2w").unlink()
    path_of(phantoms, "seg", 2).unlink()
    assert found(phantoms, update=False) == [
        ("missing", "phantom-1"),
        ("missing", "phantom-2"),
        ("changed", "phantom-0"),
    ]
    assert run_check(phantoms) == 1
    text = capsys.readouterr().out
    assert "phantom-1-t2w.nii.gz" in text and "init --update" in text and "3 errors, 0 warnings" in text
    assert run_check(phantoms, "--json") == 1
    rows = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in rows} == {"missing", "changed"} and rows[0]["severity"] == "error"


FAULTS = {
    "another grid": ("t2w", lambda a: a[:, :, 1:]),
    "constant": ("t1n", lambda a: np.zeros_like(a)),
    "label of another grid": ("seg", lambda a: a[1:]),
    "label of fractions": ("seg", lambda a: a / np.float32(2)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_cannot_be_used(phantoms, fault):
    """Spoilt since the data set was made: read again, not only hashed."""
    found(phantoms)
    name, function = FAULTS[fault]
    change(path_of(phantoms, name), function)
    assert found(phantoms, update=False) == [("changed", "phantom-1"), ("file", "phantom-1")]
    update_dataset(phantoms)
    assert found(phantoms, update=False) == [("left out", "phantom-1")]


def test_a_broken_file(phantoms):
    found(phantoms)
    path_of(phantoms, "t2f").write_bytes(path_of(phantoms, "t2f").read_bytes()[:5000])
    assert found(phantoms, update=False) == [("changed", "phantom-1"), ("file", "phantom-1")]


def test_nan(phantoms):
    change(path_of(phantoms, "t1c"), lambda a: np.where(np.arange(a.size).reshape(a.shape) == 5, np.nan, a))
    assert found(phantoms) == [("note", "phantom-1")]


def test_unknown_label_values(phantoms):
    found(phantoms)

    def spoil(a):
        a[a == 3] = 4
        return a

    change(path_of(phantoms, "seg"), spoil)
    assert ("label values", "phantom-1") in found(phantoms, update=False)


# --- the same twice


def test_the_same_image_in_two_subjects(phantoms):
    """Another file by its bytes, the same voxels."""
    change(path_of(phantoms, "t1n", 2), lambda a: a)
    image = nib.load(path_of(phantoms, "t1n", 0))
    write(path_of(phantoms, "t1n", 2), np.asarray(image.dataobj).astype(np.float32), image.affine)
    assert ("same image", "phantom-2") in found(phantoms)


def test_a_whole_case_twice(phantoms, capsys):
    shutil.copytree(phantoms / "phantom-0", phantoms / "again")
    assert found(phantoms) == [("same image", "phantom-0")]
    run_check(phantoms)
    assert "same voxels as again (t1n, t1c, t2w, t2f); subjects again and phantom-0" in capsys.readouterr().out


def test_an_examination_of_one_subject_twice(phantoms):
    shutil.copytree(phantoms / "phantom-0", phantoms / "phantom-0b")
    init_dataset(phantoms, convention="brats2023", subject_pattern=r"phantom-\d")
    assert found(phantoms) == [("repeated image", "phantom-0b")]


def test_a_label_map_copied_over_another(phantoms):
    shutil.copy(path_of(phantoms, "seg", 0), path_of(phantoms, "seg", 2))
    assert ("same label", "phantom-2") in found(phantoms)


# --- labels


def test_no_label_and_an_empty_one(phantoms):
    path_of(phantoms, "seg", 0).unlink()
    change(path_of(phantoms, "seg", 1), np.zeros_like)
    assert found(phantoms) == [("no label", "phantom-0"), ("empty label", "phantom-1")]


@pytest.mark.parametrize(("share", "kind"), [(0.1, "outside head"), (3, "other patient")])
def test_labels_outside_the_head(phantoms, share, kind):
    def spoil(a):
        count = int(share * np.count_nonzero(a))
        a.ravel()[:count] = 2  # a corner, far from the head
        return a

    change(path_of(phantoms, "seg"), spoil)
    assert (kind, "phantom-1") in found(phantoms)


def test_specks(tmp_path):
    """Five pieces of a voxel are let pass, six are not; large ones do not count."""
    for name, count in (("five", 5), ("six", 6)):
        (tmp_path / name).mkdir()
        label = np.zeros((20, 21, 22), np.uint8)
        label[10:] = 1
        label[0:8:4, 0:12:4, 0][np.unravel_index(np.arange(count), (2, 3))] = 1
        write(tmp_path / name / "ct.nii.gz", noise(count, label.shape), np.eye(4))
        write(tmp_path / name / "seg.nii.gz", label, np.eye(4))
    findings = check_dataset(init_dataset(tmp_path, task=custom_task(("ct",), {"a": [1]})).dataset)
    assert [(f.kind, f.case, f.text) for f in findings] == [("specks", "six", "6 of 7 pieces are smaller than 10 mm3")]


# --- geometry


def test_odd_geometry(tmp_path):
    affines = {f"c{i}": AFFINE for i in range(5)}
    affines |= {"c5": AFFINE @ np.diag([1, -1, 1, 1]), "c6": AFFINE @ np.diag([4, 4, 4, 1])}
    for i, (name, affine) in enumerate(affines.items()):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "ct.nii.gz", noise(i), affine)
        label = np.zeros_like(noise(0), np.uint8)
        label[2:7, 3:9, i : i + 2] = 1
        write(tmp_path / name / "seg.nii.gz", label, affine)
    findings = check_dataset(init_dataset(tmp_path, task=custom_task(("ct",), {"a": [1]})).dataset)
    assert [(f.kind, f.case) for f in findings] == [("geometry", "c5"), ("geometry", "c6")]
    assert "right-handed, unlike" in findings[0].text and "3.6 x 4.8 x 10 mm" in findings[1].text


# --- registration


@pytest.mark.parametrize("name", NAMES)
def test_a_moved_image(phantoms, name):
    """By 8 mm, also the reference; phantoms have 4 mm voxels."""
    change(path_of(phantoms, name), lambda a: shift(a, 2, 1))
    init_dataset(phantoms, convention="brats2023")
    [finding] = [f for f in check_dataset(read_dataset(phantoms)) if f.kind == "registration"]
    assert finding.case == "phantom-1"
    assert finding.text.startswith(f"{name} fits the others better 8 mm away (+0, -8, +0 mm")


def test_a_mirrored_image(phantoms):
    change(path_of(phantoms, "t2w"), lambda a: a[::-1])
    assert ("registration", "phantom-1") in found(phantoms)


def test_one_image_has_nothing_to_lie_on():
    assert find_misplaced(Case("x", {"ct": noise(0)}, AFFINE, {}, ())) == []


def test_images_of_noise_say_nothing():
    """Too small to tell anything, too."""
    images = {name: noise(i) for i, name in enumerate(("a", "b"))}
    assert find_misplaced(Case("x", images, AFFINE, {}, ())) == []


def test_what_hardly_depends_on_the_reference_lies_where_it_is():
    """Of all places some fit better by chance."""
    noise = np.random.default_rng(4).normal(9, 1, (2, 40, 40, 40)).astype(np.float32)
    images = dict(zip(("a", "b"), noise))
    assert find_misplaced(Case("x", images, np.diag([2.0, 2.0, 2.0, 1.0]), {}, ())) == []


# --- plausibility


@pytest.mark.parametrize(("one", "other"), [("t2w", "t2f"), ("t1n", "t1c"), ("t1n", "t2f"), ("t1c", "t2w")])
def test_exchanged_modalities(phantoms, one, other):
    a, b = path_of(phantoms, one), path_of(phantoms, other)
    a.rename(a.with_name("aside"))
    b.rename(a)
    a.with_name("aside").rename(b)
    assert ("modalities", "phantom-1") in found(phantoms)


def test_a_wrong_convention(phantoms):
    """Told for each case, and for the data set."""
    init_dataset(phantoms, convention="msd")
    kinds = [kind for kind in found(phantoms) if kind[0] == "labels"]
    assert kinds == [("labels", ""), *(("labels", f"phantom-{i}") for i in range(3))]


def test_a_mirrored_label_map(phantoms):
    change(path_of(phantoms, "seg"), lambda a: a[::-1])
    assert ("mirrored", "phantom-1") in found(phantoms)


@pytest.mark.parametrize(
    ("seed", "dark"),
    [(702, "t2f"), (714, "t2f"), (701, "t2f"), (704, "t2w")],
    ids=["a cystic core", "a larger one", "T2-FLAIR mismatch", "a core bright on T1"],
)
def test_a_tumour_dark_on_one_image_is_where_the_other_shows_it(seed, dark):
    """Fluid in a core is dark on FLAIR and bright on T2. Exchanged or mirrored it is found all the same."""
    phantom = make_phantom(seed, spacing=(4, 4, 4), enhancing=False)
    images, truth = phantom.images, phantom.label_map
    inside = np.all([image > 0 for image in images.values()], axis=0)
    normal = {name: np.median(image[inside & (truth == 0)]) for name, image in images.items()}
    ratio = {name: np.median(images[name][truth > 0]) / normal[name] for name in ("t2w", "t2f")}
    assert min(ratio, key=ratio.__getitem__) == dark  # what the test is about

    def kinds(label=truth, **exchanged):
        return {kind for kind, _ in find_implausible(Case("x", {**images, **exchanged}, phantom.affine, {}, ()), label)}

    assert kinds() == set()
    for one, other in [("t1n", "t2w"), ("t1n", "t2f"), ("t1c", "t2w"), ("t1c", "t2f"), ("t2w", "t2f")]:
        assert "modalities" in kinds(**{one: images[other], other: images[one]}), (one, other)
    low, high = (edge(np.argwhere(inside)[:, 0]) for edge in (np.min, np.max))
    mirrored = truth.copy()
    mirrored[low : high + 1] = truth[low : high + 1][::-1]
    assert kinds(mirrored) & {"mirrored", "elsewhere"}


def test_plausibility_is_of_brain_tumours_alone(phantoms):
    task = custom_task(NAMES, {"a": [1], "b": [2], "c": [3]})
    change(path_of(phantoms, "seg"), lambda a: a[::-1])
    init_dataset(phantoms, task=task)
    assert not {kind for kind, _ in found(phantoms)} & {"mirrored", "labels", "modalities"}


def stroke(case: Case, label: np.ndarray, size: int) -> np.ndarray:
    """The label map with ET in a cube of `size` voxels, where oedema is least brighter on t1c than on t1n."""
    gain = ndimage.uniform_filter(case.images["t1c"] - case.images["t1n"], size)
    inner = ndimage.binary_erosion(label == 2, np.ones((3, 3, 3)), iterations=size // 2)
    place = np.unravel_index(np.where(inner, gain, np.inf).argmin(), label.shape)
    painted = label.copy()
    painted[tuple(slice(p - size // 2, p - size // 2 + size) for p in place)] = 3
    return painted


def test_a_stroke_of_the_brush_is_no_reason_to_doubt_the_images():
    """0.4 mL of "enhancing tumor" that does not enhance are a remark. With 5 mL of it the labels are doubted, not the
    images, which show themselves, by veins in the depth, that t1c is the one with contrast agent."""
    phantom = make_phantom(8, spacing=(1.5, 1.5, 1.5), enhancing=False)
    case = Case("x", dict(phantom.images), phantom.affine, {}, ())
    brain = case.images["t1n"] > 0
    deep = ndimage.distance_transform_edt(brain, sampling=1.5)
    veins = (deep > 15) & (phantom.label_map == 0) & (np.random.default_rng(1).random(brain.shape) < 0.02)
    case.images["t1c"][veins] *= 2
    little, much = stroke(case, phantom.label_map, 5), stroke(case, phantom.label_map, 11)
    case.images["t1c"][much == 3] = 0.9 * case.images["t1n"][much == 3]
    found = list(find_implausible(case, little))
    assert {kind for kind, _ in found} == {"slight"} and all("0.4 mL" in text for _, text in found)
    found = list(find_implausible(case, much))
    assert {kind for kind, _ in found} == {"labels"} and any("does this part enhance?" in text for _, text in found)


# --- the split


def test_a_case_in_no_fold(phantoms):
    init_dataset(phantoms, convention="brats2023")
    make_split(read_dataset(phantoms), folds=2)
    (phantoms / "phantom-1").rename(phantoms / "new")
    assert found(phantoms) == [("split", "new")]


def test_long_tables_are_cut(phantoms, capsys):
    found(phantoms)
    path = phantoms / "dataset.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"left_out": {f"c{i:02d}": "why" for i in range(30)}}))
    run_check(phantoms)
    assert "and 20 more; --all shows them" in capsys.readouterr().out
    run_check(phantoms, "--all")
    assert "c29" in capsys.readouterr().out


# --- real cases


@pytest.fixture(scope="module")
def real(brats):
    """Two real cases as read by nibabel: one of strong enhancement, one of none."""
    cases = {}
    for name in ("BraTS2021_00006", "BraTS2021_01484"):
        images = {m: np.asarray(nib.load(brats / name / f"{m}.nii.gz").dataobj).astype(np.float32) for m in NAMES}
        stored = nib.load(brats / name / "seg.nii.gz")
        cases[name] = (images, np.asarray(stored.dataobj), stored.affine)
    return cases


def test_real_images_lie_on_one_another_unless_moved(real):
    for images, _, affine in real.values():
        assert find_misplaced(Case("x", images, affine, {}, ())) == []
    images, _, affine = real["BraTS2021_00006"]
    inside = images["t1c"] != 0
    moved = {**images, "t2w": shift(images["t2w"], 6, 2) * inside}  # the mask stays
    assert find_misplaced(Case("x", moved, affine, {}, ())) == [Misplaced("t2w", (0.0, 0.0, -6.0))]


def test_real_tumours_are_plausible_as_named_only(real):
    for images, stored, affine in real.values():
        case = Case("x", images, affine, {}, ())
        assert list(find_implausible(case, to_standard(stored, "brats2021"))) == []
        wrong = {4: 3, 1: 2, 2: 1}
        swapped = sum((stored == value) * np.uint8(label) for value, label in wrong.items())
        assert [kind for kind, _ in find_implausible(case, swapped)] == ["labels"]
    assert CONVENTIONS["msd"] == {1: 2, 2: 1, 3: 3}  # the exchange made above
    images, stored, affine = real["BraTS2021_00006"]
    truth = to_standard(stored, "brats2021")
    for one, other in itertools.combinations(NAMES, 2):
        exchanged = {**images, one: images[other], other: images[one]}
        kinds = {kind for kind, _ in find_implausible(Case("x", exchanged, affine, {}, ()), truth)}
        assert "modalities" in kinds, (one, other)
    mirrored = truth.copy()
    head = np.argwhere(images["t1c"] != 0)
    low, high = head[:, 0].min(), head[:, 0].max() + 1
    mirrored[low:high] = truth[low:high][::-1]
    kinds = [kind for kind, _ in find_implausible(Case("x", images, affine, {}, ()), mirrored)]
    assert "mirrored" in kinds
