"""Dates that `segmamba follow` segments itself: by which model, and what the segmentation has to say."""

import json
from argparse import Namespace

import nibabel as nib
import numpy as np
import pytest
import torch
from segmamba.cases.case import save_image
from segmamba.cases.labels import GLIOMA, PEDIATRIC, POST_TREATMENT, LabelScheme
from segmamba.cli import _parser, main
from segmamba.commands.follow import _given
from segmamba.commands.follow_dates import Given, make_ready
from segmamba.errors import InputError
from segmamba.followup.dates import read_label_map
from segmamba.models.package import Manifest, save_package
from segmamba.models.specs import InferenceSpec, PreprocessSpec
from segmamba.networks.segmamba import NetworkConfig, SegMamba


def model_of(folder, scheme, label):
    """A package whose network says `label` everywhere, with a probability of nearly 1."""
    channels = len(scheme.labels) + 1
    config = NetworkConfig(
        features=(4, 4, 8, 8), full_features=4, bottleneck=8, depths=(1, 1, 1, 1), out_channels=channels
    )
    network = SegMamba(config)
    *_, last = (one for one in network.modules() if getattr(one, "out_channels", 0) == channels)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.eye(channels)[scheme.labels[label]] * 20)
    preprocess = PreprocessSpec(modalities=("t2w", "t2f", "t1n", "t1c"), spacing=(8.0, 8.0, 8.0))
    inference = InferenceSpec(window=(32, 32, 32))
    more = {"preprocess": preprocess, "inference": inference, "label_map": scheme.labels, "regions": scheme.regions}
    manifest = Manifest(id="other", network=config, **more)
    save_package(folder, network, manifest, "# other\n")
    return folder


def segmented(case, model, output, region="ET"):
    options = Namespace(model=str(model), device="cpu", region=region, labels=None, dicom_sr=False)
    return make_ready(Given(case, 0), options, output)[0]


@pytest.fixture
def case(phantom_cases, tmp_path):
    """Without a label map of its own."""
    folder = tmp_path / "case"
    folder.mkdir()
    for path in (phantom_cases / "phantom-0").glob("*-t*.nii.gz"):
        (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.parametrize(
    ("scheme", "label", "as_followed"),
    [(PEDIATRIC, "ET", 3), (PEDIATRIC, "ED", 2), (POST_TREATMENT, "ET", 3), (POST_TREATMENT, "RC", 0)],
)
def test_what_a_models_labels_mean_is_what_is_followed(case, tmp_path, scheme, label, as_followed):
    """In BraTS-PED 1 is enhancing tumor and 4 edema; after treatment 4 is a cavity, which is no lesion."""
    found = segmented(case, model_of(tmp_path / "model", scheme, label), tmp_path / "out")
    written = np.asarray(nib.load(tmp_path / "out" / "segmentations" / "day-0000-seg.nii.gz").dataobj)
    brain = written == scheme.labels[label]
    assert brain.sum() > 1000 and set(np.unique(written)) == {0, scheme.labels[label]}
    np.testing.assert_array_equal(found.label_map, np.where(brain, as_followed, 0))
    assert found.probabilities["ET"][brain].mean() == pytest.approx(float(label == "ET"), abs=1e-3)


def test_a_label_map_that_predict_wrote_is_read_by_its_summary(case, tmp_path):
    """Values alone do not tell: 1 is enhancing tumor in BraTS-PED and necrosis in BraTS 2023."""
    segmented(case, model_of(tmp_path / "model", PEDIATRIC, "ET"), tmp_path / "out")
    written = tmp_path / "out" / "segmentations" / "day-0000-seg.nii.gz"
    ones = np.asarray(nib.load(written).dataobj) == 1
    assert ones.sum() > 1000
    np.testing.assert_array_equal(read_label_map(written)[0], np.where(ones, 3, 0))
    np.testing.assert_array_equal(read_label_map(written, "brats2023")[0], np.where(ones, 1, 0))
    (summary,) = written.parent.glob("*-summary.json")
    summary.write_text(summary.read_text().replace('"ED"', '"edema"'))
    with pytest.raises(InputError, match=r"day-0000-seg.nii.gz: made by a model of .*edema.*--labels says it"):
        read_label_map(written)
    summary.unlink()
    np.testing.assert_array_equal(read_label_map(written)[0], np.where(ones, 1, 0))


def test_what_is_to_be_known_of_the_images_is_told(case, tmp_path):
    """T1 and T1c under each other's name: `segmamba predict` says so, and the sums are as wrong here as there."""
    one, other, aside = (case / f"phantom-0-{name}.nii.gz" for name in ("t1n", "t1c", "aside"))
    model = model_of(tmp_path / "model", GLIOMA, "ET")
    assert not any("swapped" in note for note in segmented(case, model, tmp_path / "right").notes)
    for old, new in ((one, aside), (other, one), (aside, other)):
        old.rename(new)
    assert "Are the two swapped?" in " ".join(segmented(case, model, tmp_path / "wrong").notes)


def test_a_model_of_something_else_is_refused_by_its_labels(case, tmp_path):
    scheme = LabelScheme(labels={"tumor": 1}, regions={"tumor": ("tumor",)})
    with pytest.raises(InputError, match=r"its labels are tumor, .* expected a model of brain tumors"):
        segmented(case, model_of(tmp_path / "model", scheme, "tumor"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_result_that_was_corrected_beside_its_images_is_followed_as_it_is(case, tmp_path, capsys):
    """One that nobody has changed is segmented anew. Its file, named as the patient may be, stands in no note."""
    model = model_of(tmp_path / "model", PEDIATRIC, "ET")
    assert main(["predict", str(case), "--model", str(model), "--device", "cpu", "--output", str(case)]) == 0
    (result,) = case.glob("*-seg.nii.gz")
    assert "corrected" not in "".join(segmented(case, model, tmp_path / "out").notes)
    image = nib.load(result)
    voxels = np.zeros(image.shape, np.uint8)
    voxels[20:24, 20:24, 15:18] = 1  # enhancing tumor, as this model numbers it
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), result)
    found = segmented(case, model, tmp_path / "again")
    assert {3: (voxels == 1).sum()} == dict(zip(*np.unique(found.label_map[found.label_map > 0], return_counts=True)))
    assert any(note.startswith("the result was corrected since") for note in found.notes)
    assert not any(result.name in note for note in found.notes) and result.name in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_a_date_is_segmented_once_by_one_model(case, tmp_path, capsys):
    """Another model's result is made anew, and one that somebody has changed in its place is not taken for it."""
    one, other, output = model_of(tmp_path / "one", GLIOMA, "ET"), tmp_path / "other", tmp_path / "out"
    first = segmented(case, one, output)
    written = {
        path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (output / "segmentations").iterdir()
    }
    assert "day 0: segmenting" in capsys.readouterr().err
    again = segmented(case, one, output)
    shown = capsys.readouterr().err
    assert "segmenting" not in shown and "day 0: segmented before" in shown
    for path in (output / "segmentations").iterdir():
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == written[path.name]
    np.testing.assert_array_equal(again.label_map, first.label_map)
    np.testing.assert_array_equal(again.probabilities["ET"], first.probabilities["ET"])
    assert (again.made_by, again.notes, again.absent) == (first.made_by, first.notes, first.absent)
    segmented(case, model_of(other, GLIOMA, "ED"), output)
    assert "segmenting" in capsys.readouterr().err
    result = output / "segmentations" / "day-0000-seg.nii.gz"
    image = nib.load(result)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), result)
    with pytest.raises(InputError, match="was changed since it was written here"):
        segmented(case, other, output)


def test_of_two_corrected_results_one_has_to_be_named(case, tmp_path):
    model = model_of(tmp_path / "model", PEDIATRIC, "ET")
    for name in ("one", "two"):
        (case / f"{name}-seg.nii.gz").write_bytes(b"changed")
        summary = {"files": {"label_map": f"{name}-seg.nii.gz"}, "label_maps_sha256": {f"{name}-seg.nii.gz": "0"}}
        (case / f"{name}-summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match=r"several results were corrected \(one-seg.nii.gz, two-seg.nii.gz\)"):
        segmented(case, model, tmp_path / "out")


def test_each_date_has_labels_of_its_own(tmp_path, capsys):
    """Another tool's label map, 4 for enhancing tumor, is followed by one of ours."""
    for name, values in (("one", (1, 2, 4)), ("two", (1, 2, 3))):
        (tmp_path / name).mkdir()
        label_map = np.zeros((12, 6, 6), np.uint8)
        for label, value in enumerate(values):
            label_map[4 * label : 4 * label + label + 1] = value
        save_image(label_map, np.eye(4), tmp_path / name / "x_seg.nii.gz", np.uint8)
        save_image(label_map, np.eye(4), tmp_path / name / "x-t1c.nii.gz", np.float32)
    line = ["follow", str(tmp_path / "one"), str(tmp_path / "two"), "--dates", "0", "50", "-o", str(tmp_path / "out")]

    def read(*labels):
        options = _parser().parse_args([*line, *(word for name in labels for word in ("--labels", name))])
        return [make_ready(one, options, tmp_path / "out")[0].label_map for one in _given(options)[0]]

    for label_map in read("brats2021", "brats2023"):
        assert np.bincount(label_map.ravel())[1:].tolist() == [36, 72, 108]
    for label_map, necrosis in zip(read("brats2021", "msd"), (36, 72)):
        assert (label_map == 1).sum() == necrosis
    with pytest.raises(InputError, match=r"two/x_seg.nii.gz: .*'brats2021'"):
        read("brats2021")  # one is that of all
    assert main([*line, *["--labels", "brats2023"] * 3]) == 1
    assert "--labels: 3 given for 2 timepoints" in capsys.readouterr().err
