"""What is said of images that came in: what was done to them here has to be said, and nothing else."""

import json

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from segmamba.cases.case import MODALITIES, Source, read_images, save_image
from segmamba.cli import main
from segmamba.datasets.phantom import make_phantom
from segmamba.errors import InputError
from segmamba.images.image_io import Image
from segmamba.preparation.look import LEFT_RIGHT, LONGEST_LINE, Taken, look

SPACING = (4.0, 4.5, 5.0)
SCALP = {"t1n": 1.6, "t1c": 1.5, "t2w": 0.9, "t2f": 1.2}


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(4, spacing=SPACING, enhancing=True)


@pytest.fixture
def images(phantom):
    """Without skull, on one grid."""
    return {m: Image(image.astype(np.float32), phantom.affine) for m, image in phantom.images.items()}


def seen(images, **taken):
    return look(images, {m: taken.get(m, Taken("named by the user")) for m in images})


def of(found, modality):
    return next(volume for volume in found.volumes if volume.modality == modality)


def in_head(array, spacing, modality):
    """The brain with 8 mm of bone, 7 mm of scalp, and noise in the air."""
    array = np.pad(array, 8)
    distance = ndimage.distance_transform_edt(array <= 0, sampling=spacing)
    values = np.where(distance == 0, array / np.median(array[array > 0]), 0.1)
    values[(distance > 8) & (distance <= 15)] = SCALP[modality]
    values[distance > 15] = 0
    return np.abs(values + 0.03 * np.random.default_rng(0).standard_normal(values.shape)).astype(np.float32)


def test_images_that_need_nothing(phantom, images):
    found = seen(images, t2w=Taken("series 7, DICOM", 0.98, "TE 90, TR 4000 ms of T2"))
    assert [volume.modality for volume in found.volumes] == list(MODALITIES)
    size = " x ".join(str(n) for n in phantom.label_map.shape)
    extent = " x ".join(f"{n * mm:.0f}" for n, mm in zip(phantom.label_map.shape, SPACING))
    codes = "".join(nib.aff2axcodes(phantom.affine))
    plane = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal"}.get(codes[2], "axial")
    assert of(found, "t2w").line == (
        "T2, series 7, DICOM (0.98), TE 90, TR 4000 ms of T2: no skull; lies on T1c already; "
        f"thick {plane} slices of 5 mm; {size} voxels of 4 x 4.5 x 5 mm, {extent} mm in all; {codes}"
    )
    assert of(found, "t1c").line.startswith("T1c, named by the user: no skull; the result lies on its grid; ")
    assert found.will == [
        "Nothing has to be prepared: the images lie on one grid and on one another, and no skull is seen."
    ]
    assert found.warnings == () and not found.plan.needed
    assert all(volume.intensity == () for volume in found.volumes)
    assert found.lines()[-2:] == [f"note: {LEFT_RIGHT}", *found.will]


def test_raw_images(phantom):
    """Heads; T2 left-handed, oblique, in thick slices; FLAIR on the grid of T1c."""
    images = {}
    for modality, array in phantom.images.items():
        affine = phantom.affine.copy()
        affine[:3, 3] -= affine[:3, :3] @ (8, 8, 8)
        images[modality] = Image(in_head(array, SPACING, modality), affine)
    angle = np.radians(15)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    t2w, own = images["t2w"].array, images["t2w"].affine.copy()
    own[:3, 3] += own[:3, 0] * (t2w.shape[0] - 1)
    own[:3, 0] *= -1
    own[:3, 2] *= 2
    own[:3] = turn @ own[:3]
    images["t2w"] = Image(np.ascontiguousarray(t2w[::-1, :, ::2]), own)
    found = seen(images)
    assert all(volume.skull for volume in found.volumes)
    volume = of(found, "t2w")
    assert volume.left_handed == (np.linalg.det(own[:3, :3]) < 0)
    assert volume.oblique_degrees == pytest.approx(15, abs=0.1)
    assert "thick" in volume.thick and volume.thick.endswith("slices of 10 mm")
    assert volume.text.startswith("skull on; a grid of its own, not that of T1c; thick ")
    assert "oblique by 15 degrees" in volume.text
    assert (volume.registered, of(found, "t2f").registered, of(found, "t1c").registered) == (False, None, None)
    assert of(found, "t2f").place == "on the grid of T1c"
    kinds = [sentence.split(":")[0] for sentence in found.will]
    assert "The brain is cut out of T1c" in kinds and "T2 is registered to T1c" in kinds
    assert len(found.will) == len(found.plan.actions)


def test_how_far_off_an_image_on_the_right_grid_is(phantom, images):
    images["t2w"] = Image(np.roll(images["t2w"].array, 2, axis=0), phantom.affine)  # 8 mm
    volume = of(seen(images), "t2w")
    assert volume.registered is False
    assert volume.place in [f"the grid of T1c, but fits it better {mm} mm away" for mm in (7, 8, 9)]


def test_what_is_unusual_about_the_values(images):
    array = images["t1n"].array
    brain = array > 0
    changes = {
        "values are negative": np.where(brain, array - np.percentile(array[brain], 20), 0),
        "bright parts were cut off": np.minimum(array, np.percentile(array[brain], 97)),
        "slices without an image in the middle": np.where(
            np.isin(np.arange(array.shape[2]), (array.shape[2] // 2, array.shape[2] // 2 + 1)), 0, array
        ),
    }
    for text, changed in changes.items():
        found = of(seen({"t1n": Image(changed.astype(np.float32), images["t1n"].affine)}), "t1n")
        assert len(found.intensity) == 1 and text in found.intensity[0], text
        assert found.text.startswith(found.intensity[0])
    assert found.intensity == ("2 slices without an image in the middle of others",)
    greys = np.rint(array / array.max() * 40).astype(np.float32)
    found = of(seen({"t1n": Image(greys, images["t1n"].affine)}), "t1n")
    assert found.intensity == (f"{len(np.unique(greys)) - 1} grey values only",)
    slab = {"t1n": Image(array[:, :, 7:27], images["t1n"].affine)}
    assert "only 100 mm of the head" in of(seen(slab), "t1n").text


def test_exchanged_images_are_told(images):
    images["t2w"], images["t2f"] = images["t2f"], images["t2w"]
    found = seen(images)
    assert found.warnings == ("Fluid is dark in T2 and brighter in FLAIR. Are T2 and FLAIR swapped?",)
    assert found.lines()[-1] == f"warning: {found.warnings[0]}"


def test_one_image_alone_and_none_of_a_head(images):
    found = seen({"t2f": images["t2f"]})
    assert len(found.volumes) == 1 and found.will == ["Nothing has to be prepared: no skull is seen."]
    assert of(found, "t2f").place == "" and found.plan.reference == "t2f"
    with pytest.raises(InputError, match=r"T2: .*dark everywhere"):
        seen({"t1c": images["t1c"], "t2w": Image(np.zeros((30, 31, 32), np.float32), np.eye(4))})


def test_lines_stay_short_and_the_facts_are_all_in_the_data(images):
    long = Taken("series 12, DICOM", 0.9, "a reason " * 40)
    array = np.round(images["t1n"].array / images["t1n"].array.max() * 30) - 5
    affine = images["t1n"].affine @ np.diag([1, 1, 3.3, 1])
    found = seen({**images, "t1n": Image(array.astype(np.float32), affine)}, t1n=long)
    volume = of(found, "t1n")
    assert len(volume.text) <= LONGEST_LINE and len(volume.line) <= LONGEST_LINE + 110
    facts = json.loads(json.dumps(found.as_json()))
    assert facts["volumes"][0]["taken"]["reason"] == long.reason
    assert facts["volumes"][0]["shape"] == list(array.shape)
    assert facts["volumes"][0]["spacing_mm"] == pytest.approx([4, 4.5, 16.5])
    assert facts["plan"]["needed"] and facts["will"] and facts["left_right"] == LEFT_RIGHT


def test_notes_of_reading_come_along(images, tmp_path):
    array, affine = images["t1c"].array.copy(), images["t1c"].affine
    array[1, 2, 3] = np.nan
    save_image(array, affine, tmp_path / "t1c.nii.gz", np.float32)
    read = read_images({"t1c": Source(tmp_path / "t1c.nii.gz")}, ("t1c",))
    assert "note: T1c: 1 NaN or infinite voxels set to 0" in seen(read).lines()


# --- the command


@pytest.fixture
def folder(images, tmp_path):
    for modality, image in images.items():
        save_image(image.array, image.affine, tmp_path / f"x_{modality}.nii.gz", np.float32)
    return tmp_path


def test_a_folder(folder, capsys):
    assert main(["look", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == [f"{t}, by its name" for t in ("T1", "T1c", "T2", "FLAIR")]
    assert lines[-1].startswith("Nothing has to be prepared")


def test_fewer_images_by_name_as_data(folder, capsys):
    arguments = [part for m in ("t2f", "t1c") for part in (f"--{m}", str(folder / f"x_{m}.nii.gz"))]
    assert main(["look", *arguments, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert sorted(volume["modality"] for volume in facts["volumes"]) == ["t1c", "t2f"]
    assert facts["volumes"][0]["taken"] == {"how": "named by the user", "confidence": None, "reason": ""}
    assert facts["warnings"] == []


def test_exchanged_files(folder, capsys):
    (folder / "x_t1n.nii.gz").rename(folder / "aside")
    (folder / "x_t1c.nii.gz").rename(folder / "x_t1n.nii.gz")
    (folder / "aside").rename(folder / "x_t1c.nii.gz")
    assert main(["look", str(folder)]) == 0
    assert "warning: T1 looks more like an image with contrast agent" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of"),
        (["CASE", "--t1c", "x.nii"], "give one of"),
        (["CASE", "--series", "t1c=7"], "--series requires --dicom"),
        (["CASE/none"], "no such folder"),
    ],
)
def test_wrong_commands(arguments, message, folder, capsys):
    assert main(["look", *(a.replace("CASE", str(folder)) for a in arguments)]) == 1
    assert message in capsys.readouterr().err


def test_dicom_says_why_each_series_was_taken(images, tmp_path, capsys):
    write_series = pytest.importorskip("dicom_files").write_series
    times = {
        "t1n": {"ScanningSequence": "SE", "RepetitionTime": "550", "EchoTime": "12"},
        "t1c": {"ScanningSequence": "SE", "RepetitionTime": "550", "EchoTime": "12", "ContrastBolusAgent": "Gd"},
        "t2w": {"ScanningSequence": "SE", "RepetitionTime": "4500", "EchoTime": "98"},
    }
    for number, (modality, attributes) in enumerate(times.items(), 3):
        stored = (images[modality].array / images[modality].array.max() * 3000).astype(np.int16)
        write_series(tmp_path, stored, images[modality].affine, number, SliceThickness="4", **attributes)
    assert main(["look", "--dicom", str(tmp_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    found = {volume["modality"]: volume for volume in facts["volumes"]}
    assert sorted(found) == ["t1c", "t1n", "t2w"]
    assert found["t1c"]["notes"] == ["slices are 4 mm thick, one every 5 mm"]
    taken = found["t1c"]["taken"]
    assert taken["how"] == "series 4, DICOM" and taken["confidence"] > 0.5
    assert "TE 12, TR 550 ms of T1" in taken["reason"] and "contrast agent noted" in taken["reason"]
    assert "SECRET" not in json.dumps(facts).upper() and facts["warnings"] == []
