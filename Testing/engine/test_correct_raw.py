"""Corrected cases of raw series: what is kept is prepared, what was drawn on T1c is not touched.

The series are of a phantom with something dim around the brain, T2 on a grid of its own and moved by a known amount;
scipy moves it.
"""

import hashlib
import hmac
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from correction_runs import edited, grown, send
from nibabel.affines import apply_affine
from safetensors.numpy import load_file
from scipy import ndimage
from scipy.spatial.transform import Rotation
from segmamba.cases.case import find_case, find_label
from segmamba.cli import main
from segmamba.datasets.phantom import make_phantom
from segmamba.errors import InputError
from segmamba.learning import submissions as corrections
from segmamba.learning.submissions.intake import ingest
from segmamba.learning.submissions.record import find_identifying_text, read_record
from training_runs import narrow_network

FORMAT = Path(corrections.__file__).parent
SPACING = (3.0, 3.5, 4.0)
SHAPE, THICK = (84, 92, 33), (2.2, 2.4, 5.5)  # of T1c


def sampled(image, affine, move, shape, there, order=1):
    """What a scanner sees of `image` on another grid after the patient has moved."""
    index = np.linalg.inv(move @ affine) @ there
    return ndimage.affine_transform(image, index[:3, :3], index[:3, 3], shape, order=order, output=np.float32)


def save(array, affine, path):
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(4, spacing=SPACING, enhancing=True)


@pytest.fixture(scope="module")
def raw(phantom, tmp_path_factory):
    """Folder of a raw case with a label map and a brain mask on T1c, and how the patient moved before T2."""
    folder = tmp_path_factory.mktemp("raw") / "case"
    folder.mkdir()
    brain = phantom.images["t1c"] > 0
    middle = apply_affine(phantom.affine, np.argwhere(brain)).mean(0)
    grids = {}
    for modality, shape, spacing in (
        ("t1c", SHAPE, (-THICK[0], THICK[1], THICK[2])),  # left-handed
        ("t2w", (42, 94, 86), (5.0, 2.3, 2.1)),
    ):
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        grids[modality] = shape, affine
    move = np.eye(4)  # of the patient between T2 and the others
    move[:3, :3] = Rotation.from_rotvec(np.radians(7) * np.array([0.6, 0, 0.8])).as_matrix()
    move[:3, 3] = middle - move[:3, :3] @ middle + (6, -4, 5)
    around = (ndimage.distance_transform_edt(~brain, sampling=SPACING) < 7) & ~brain
    for modality, image in phantom.images.items():
        head = np.where(around, 0.1, image / np.median(image[brain]))
        shape, affine = grids.get(modality, grids["t1c"])
        seen = sampled(head, phantom.affine, move if modality == "t2w" else np.eye(4), shape, affine)
        save(np.rint(1000 * seen).astype(np.int16), affine, folder / f"x-{modality}.nii.gz")
    shape, affine = grids["t1c"]
    for name, values in (("seg", phantom.label_map), ("mask", brain)):
        there = sampled(values.astype(np.float32), phantom.affine, np.eye(4), shape, affine, 0 if name == "seg" else 1)
        save(np.rint(there).astype(np.uint8), affine, folder / f"x-{name}.nii.gz")
    return folder, move


@pytest.fixture(scope="module")
def sent(raw, tmp_path_factory):
    """The folder of corrections, the submission, and the label map that was sent."""
    folder, _ = raw
    place = tmp_path_factory.mktemp("sent")
    labels = edited(find_label(folder), place / "labels.nii.gz", grown)
    mask = folder / "x-mask.nii.gz"
    return (
        place / "to",
        send(place / "to", folder, labels=labels, subject="A", preparing="auto", brain_mask=mask),
        labels,
    )


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


def test_what_is_kept_lies_on_the_t1c_as_it_came(raw, sent, phantom):
    (folder, _), (_, place, labels) = raw, sent
    stored = {name: nib.load(place / f"{name}.nii.gz") for name in ("t1n", "t1c", "t2w", "t2f", "seg", "proposal")}
    brain = voxels(folder / "x-mask.nii.gz") > 0
    there = nib.load(folder / "x-t1c.nii.gz")
    for image in stored.values():
        assert image.shape == SHAPE
        np.testing.assert_allclose(image.affine, there.affine, atol=1e-5)
    assert np.array_equal(voxels(place / "seg.nii.gz"), voxels(labels))
    assert np.array_equal(voxels(place / "proposal.nii.gz"), voxels(find_label(folder)))
    for modality in ("t1c", "t1n", "t2f"):  # not interpolated: on that grid already
        given = voxels(folder / f"x-{modality}.nii.gz")
        assert given[~brain].any()
        assert np.array_equal(voxels(place / f"{modality}.nii.gz"), np.where(brain, given, 0)), modality
    ideal = sampled(phantom.images["t2w"], phantom.affine, np.eye(4), SHAPE, there.affine)
    inner, registered = ndimage.binary_erosion(brain, iterations=2), voxels(place / "t2w.nii.gz")
    assert np.corrcoef(ideal[inner], registered[inner])[0, 1] > 0.85
    assert not registered[~brain].any()


def test_the_record_says_what_was_done_in_words_and_figures(raw, sent, phantom):
    (folder, move), (_, place, _) = raw, sent
    record = read_record(place)
    assert [step["kind"] for step in record.preparation] == ["grid", "brain", "register"]
    assert len(record.preprocessing) == 3 and "T2 registered" in record.preprocessing[2]
    _, brain, registered = record.preparation
    truth = np.count_nonzero(voxels(folder / "x-mask.nii.gz")) * np.prod(THICK) / 1000
    assert brain["method"] == "given" and brain["volume_ml"] == pytest.approx(truth, rel=0.03)
    assert registered["modality"] == "t2w" and registered["quality"] > 0.3
    inside = apply_affine(phantom.affine, np.argwhere(phantom.images["t1c"] > 0)[::7])
    apart = apply_affine(np.array(registered["transform"]) @ move, inside) - inside
    assert np.linalg.norm(apart, axis=1).mean() < 1.6  # mm; the move is of 10
    said = json.loads((place / "case.json").read_text())
    assert find_identifying_text(said) == [] and "seconds" not in json.dumps(said["preparation"])
    schema = pytest.importorskip("jsonschema")
    schema.validate(said, json.loads((FORMAT / "case.schema.json").read_text()))


def test_a_case_is_known_by_what_was_given(raw, sent):
    """Written down again from FORMAT.md; each image on its own grid."""
    folder, place = raw[0], sent[1]
    salt = bytes.fromhex(json.loads((sent[0] / "identity" / "identity.json").read_text())["salt"])
    parts = ["case"]
    for modality in ("t1c", "t1n", "t2f", "t2w"):
        array = voxels(folder / f"x-{modality}.nii.gz")
        data = " ".join(map(str, array.shape)).encode() + array.astype("<f4").tobytes(order="F")
        parts += [modality, hashlib.sha256(data).hexdigest()]
    digest = hmac.new(salt, b"\0".join(part.encode() for part in parts), "sha256").hexdigest()
    assert read_record(place).case == digest[:20]


def test_sent_again_by_other_threads_it_is_a_version_with_the_same_images(raw, sent, tmp_path, capsys):
    """From the command line, checked first, into a copy of the folder."""
    folder, _ = raw
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    shutil.copytree(sent[0], tmp_path / "to")
    line = ["correct", str(folder), "--labels", str(sent[2]), "--proposal", str(find_label(folder))]
    line += ["--brain-mask", str(folder / "x-mask.nii.gz"), "--output", str(tmp_path / "to"), "--subject", "A"]
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(2 if before != 2 else 3)
    try:
        assert main([*line, "--consent", "--json"]) == 0
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    second = tmp_path / "to" / "incoming" / json.loads(capsys.readouterr().out)["name"]
    assert second.name == sent[1].name[:-1] + "2"
    assert read_record(second).images == read_record(sent[1]).images
    assert read_record(second).preparation == read_record(sent[1]).preparation


def test_intake_takes_it_and_a_model_learns_from_it(sent, tmp_path, tiny_model):
    shutil.copytree(sent[0] / "incoming", tmp_path / "to" / "incoming")
    (row,) = ingest(tmp_path / "to").rows
    assert row.status == "train", row.findings
    assert [f.text for f in row.findings if f.kind == "prepared"][2].startswith("prepared: T2 registered")
    options = ["--model", str(tiny_model), "--replay", "none", "--run-folder", str(tmp_path / "run"), "--device", "cpu"]
    for setting in ("steps=2", "workers=0", "precision=fp32", "patch=[32, 32, 32]", "validation.every=100"):
        options += ["--set", setting]
    with narrow_network():
        assert main(["train", "--finetune", str(tmp_path / "to"), *options]) == 0
    steps = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert np.isfinite([step["loss"] for step in steps if "loss" in step]).all()
    before, after = (load_file(model / "model.safetensors") for model in (tiny_model, tmp_path / "run" / "model"))
    assert any(not np.array_equal(before[name], after[name]) for name in before)


def test_what_cannot_be_kept_is_refused_before_anything_is_written(raw, tmp_path):
    folder, _ = raw
    images, mask = find_case(folder), folder / "x-mask.nii.gz"
    for wrong, text in (
        ({"preparing": "never"}, "not on one grid"),
        ({"preparing": "never", "brain_mask": mask}, "nothing is to be prepared"),
        ({"preparing": "always"}, "expected one of auto, never"),
        ({"images": {m: images[m] for m in ("t1c", "t2f")}}, "no image t1n, t2w: .* needs all of t1n, t1c, t2w, t2f"),
    ):
        with pytest.raises(InputError, match=text):
            send(tmp_path / "to", folder, **wrong)
    assert not (tmp_path / "to").exists()


# --- what intake says of labels beside a brain that a program cut out


def kinds(folder):
    return {finding.kind for row in ingest(folder).rows for finding in row.findings}


@pytest.mark.parametrize("distance", [1, 2])
def test_labels_at_the_edge_of_a_brain_that_was_cut_out_are_noted(phantom_cases, tmp_path, distance):
    """Voxels of 4 mm: one beside the brain is at its edge, two are not."""
    case = phantom_cases / "phantom-0"
    head = np.any([voxels(source.path) != 0 for source in find_case(case).values()], axis=0)
    outside = np.argwhere(ndimage.distance_transform_edt(~head) == distance)
    tumour = np.argwhere(voxels(find_label(case))).mean(0)
    nearest = outside[np.argsort(np.linalg.norm(outside - tumour, axis=1))[:15]]

    def edit(label):
        label[tuple(nearest.T)] = 2
        return label

    labels = edited(find_label(case), tmp_path / "labels.nii.gz", edit)
    place = send(tmp_path / "to", case, labels=labels, subject="A")
    said = json.loads((place / "case.json").read_text())
    assert "preparation" not in said  # what older engines read stays so
    assert "outside head" in kinds(tmp_path / "to")
    said["preparation"], said["preprocessing"] = [{"kind": "brain", "method": "atlas"}], ["brain of T1c found"]
    (place / "case.json").write_text(json.dumps(said))
    found = kinds(tmp_path / "to")
    assert "prepared" in found and ("outside head" in found) == (distance == 2)
