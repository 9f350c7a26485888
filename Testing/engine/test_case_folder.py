"""Which file is which modality, by the names that data sets give them."""

import json

import nibabel as nib
import numpy as np
import pytest
from image_files import RIGHT_HANDED, SHAPE, noise, write, write_dicom
from segmamba.cases.case import MODALITIES, Source, find_case, find_label, load_case, load_label_map
from segmamba.cases.labels import cohort_of
from segmamba.errors import InputError

NAMINGS = {
    "BraTS 2018": ("Brats18_X_1_{}.nii.gz", ["t1", "t1ce", "t2", "flair"]),
    "BraTS 2020": ("BraTS20_Training_001_{}.nii", ["t1", "t1ce", "t2", "flair"]),
    "BraTS 2023": ("BraTS-GLI-00001-000-{}.nii.gz", ["t1n", "t1c", "t2w", "t2f"]),
    "bare": ("{}.nii.gz", ["t1n", "t1c", "t2w", "t2f"]),
    "upper case": ("UPENN-GBM-00001_11_{}.nii.gz", ["T1", "T1GD", "T2", "FLAIR"]),
    "BraTS 2015": ("VSD.Brain.XX.O.MR_{}.54517.mha", ["T1", "T1c", "T2", "Flair"]),
    "words": ("p1 {}.nrrd", ["t1 pre", "t1 post", "t2w", "t2_flair"]),
    "BIDS": ("sub-1_ses-post_{}.nii.gz", ["T1w", "ce-gadolinium_T1w", "T2w", "FLAIR"]),
    "agent first": ("{}.nii.gz", ["T1", "post_T1", "T2", "FLAIR"]),
    "agent first, short": ("P7 {}.nii.gz", ["pre_T1", "Gd_T1", "T2", "FLAIR"]),
    "agent and more": ("{}.nii.gz", ["nativ_ax_T1", "KM_ax_T1", "KM_ax_T2", "KM_ax_FLAIR"]),
    "initials that look like agent": ("KM_12_{}.nii.gz", ["t1", "t1ce", "t2", "flair"]),
    "a visit after surgery": ("p_post_{}.nii.gz", ["t1", "t1ce", "t2", "flair"]),
    "T1w": ("sub-1_{}.nii.gz", ["T1w", "T1w_Gd", "T2w", "T2-FLAIR"]),
}


def names_of(naming):
    pattern, words = NAMINGS[naming]
    return [pattern.format(word) for word in words]


@pytest.mark.parametrize("naming", NAMINGS)
def test_namings(tmp_path, naming):
    names = names_of(naming)
    others = [
        "x_seg.nii.gz",
        "x-seg.nii.gz",
        "t1c_brainmask.nii.gz",
        "brainMask_0_ID_T1.nii.gz",
        "brainMask_0_ID_T2.nii.gz",
        "x_desc-brain_mask_T1w.nii.gz",
        "seg_T2.nii.gz",
        "t2w.json",
        "t2w.txt",
        "._x_t1.nii.gz",
        ".t1c.nii.gz",
    ]
    for name in (*names, *others):
        (tmp_path / name).touch()
    (tmp_path / "notes").mkdir()
    assert find_case(tmp_path) == {m: Source(tmp_path / n) for m, n in zip(MODALITIES, names)}


PUBLISHED = {  # what lies in a case's folder of a collection: the four, the label map, and what is neither
    "UCSF-PDGM-0004": (
        ["T1", "T1c", "T2", "FLAIR"],
        "tumor_segmentation",
        [
            *("T1_bias", "T1c_bias", "T2_bias", "FLAIR_bias", "SWI", "SWI_bias", "DWI", "DWI_bias", "ADC", "ASL"),
            *("DTI_eddy_FA", "DTI_eddy_MD", "DTI_eddy_L1", "DTI_eddy_noreg"),
            *("brain_segmentation", "brain_parenchyma_segmentation"),
        ],
    ),
    "UPENN-GBM-00002_11": (["T1", "T1GD", "T2", "FLAIR"], "segm", ["brain_mask"]),
    "UPENN-GBM-00002_21": (["T1", "T1GD", "T2", "FLAIR"], "automated_approx_segm", []),
}


@pytest.mark.parametrize("incomplete", [False, True])
@pytest.mark.parametrize("case", PUBLISHED)
def test_cases_as_the_archives_publish_them(tmp_path, case, incomplete):
    images, label, others = PUBLISHED[case]
    for name in (*images, label, *others):
        (tmp_path / f"{case}_{name}.nii.gz").touch()
    found = find_case(tmp_path, incomplete=incomplete)
    assert found == {m: Source(tmp_path / f"{case}_{name}.nii.gz") for m, name in zip(MODALITIES, images)}
    assert find_label(tmp_path) == tmp_path / f"{case}_{label}.nii.gz"
    assert cohort_of(case) == case[:9]


def test_unstripped_images_of_upenn_are_not_mixed_with_stripped_ones(tmp_path):
    for name in ("T1", "T1GD", "T2", "FLAIR"):
        (tmp_path / f"UPENN-GBM-00002_11_{name}.nii.gz").touch()
        (tmp_path / f"UPENN-GBM-00002_11_{name}_unstripped.nii.gz").touch()
    assert {source.path.name for source in find_case(tmp_path).values()} == {
        f"UPENN-GBM-00002_11_{name}.nii.gz" for name in ("T1", "T1GD", "T2", "FLAIR")
    }


UNREAD = ["mgz", "mgh", "nii.gz.gz", "mnc", "img", "hdr", "zip", "nii.zip", "tar.gz", "nii.bz2", "7z", "HEAD", "npy"]
UNREAD += ["nii.zst", "nii.gz.part", "nii.gz.crdownload", "nii.lz4", "mif.gz", "nii.gz.gpg"]


@pytest.mark.parametrize("incomplete", [False, True])
@pytest.mark.parametrize("suffix", UNREAD)
def test_a_file_that_is_there_and_cannot_be_read_is_not_absent(tmp_path, suffix, incomplete):
    for name in ("x_t1.nii.gz", "x_t2.nii.gz", "x_flair.nii.gz", f"x_t1ce.{suffix}", f"x_t2.{suffix}"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"x_t1ce.{suffix}: looks like t1c, and is in a format that cannot be read"):
        find_case(tmp_path, incomplete=incomplete)


@pytest.mark.parametrize("name", ["T1_FLAIR", "x-t1flair", "T1w-FLAIR"])
def test_a_t1_flair_is_a_t1(tmp_path, name):
    for other in (name, "T1C", "T2", "T2_FLAIR"):
        (tmp_path / f"{other}.nii.gz").touch()
    found = {modality: source.path.name for modality, source in find_case(tmp_path).items()}
    expected = {"t1n": f"{name}.nii.gz", "t1c": "T1C.nii.gz", "t2w": "T2.nii.gz", "t2f": "T2_FLAIR.nii.gz"}
    assert found == expected
    (tmp_path / "T2_FLAIR.nii.gz").unlink()
    assert "t2f" not in find_case(tmp_path, incomplete=True)


def test_a_t1_that_says_both_is_asked_about(tmp_path):
    for name in ("x_T1_pre-post_T1.nii.gz", "x_t2.nii.gz"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="says T1 with and without contrast agent; end it in t1n or t1c"):
        find_case(tmp_path)


def test_a_native_t1_after_radiation_is_no_t1c(tmp_path):
    names = {"t1n": "P1_post_radiation_T1.nii.gz", "t2w": "P1_T2.nii.gz", "t2f": "P1_FLAIR.nii.gz"}
    for name in names.values():
        (tmp_path / name).touch()
    assert find_case(tmp_path, incomplete=True) == {m: Source(tmp_path / name) for m, name in names.items()}


def test_words_of_agent_in_every_name_are_no_proof_that_t1c_is_missing(tmp_path):
    for name in ("Gd_T1.nii.gz", "Gd_T2.nii.gz", "Gd_FLAIR.nii.gz"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="no file for t1c"):
        find_case(tmp_path, incomplete=True)


def test_dicom_folders(tmp_path):
    names = ["T1", "series_t1ce", "T2", "FLAIR"]
    for i, name in enumerate(names):
        write_dicom(tmp_path / name, noise(i), RIGHT_HANDED, f"1.2.{i + 1}")
    case = load_case(find_case(str(tmp_path)))
    assert case.shape == SHAPE


def test_a_missing_file_is_named_beside_those_found(tmp_path):
    for name in ("x_t1.nii.gz", "x_t2.nii.gz", "x_seg.nii.gz"):
        (tmp_path / name).touch()
    with pytest.raises(
        InputError, match=r"no file for t1c, t2f; found: x_seg.nii.gz, x_t1.nii.gz, x_t2.nii.gz; exp.*t1ce"
    ):
        find_case(tmp_path)


def test_two_files_for_one_modality(tmp_path):
    for name in (*names_of("bare"), "x_t1ce.nii"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"several files could be t1c: t1c.nii.gz, x_t1ce.nii; leave one"):
        find_case(tmp_path)


def test_an_empty_and_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="no file for t1n, t1c, t2w, t2f; found: nothing"):
        find_case(tmp_path)
    for find in (find_case, find_label):
        with pytest.raises(InputError, match="no such folder"):
            find(tmp_path / "x")


@pytest.fixture
def decathlon(tmp_path):
    """One case as in MSD Task01: imagesTr with FLAIR, T1w, T1gd, T2w on the fourth axis, and labelsTr."""
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).mkdir()
    path = write(tmp_path / "imagesTr" / "BRATS_001.nii.gz", np.stack([noise(i) for i in range(4)], -1))
    write(
        tmp_path / "labelsTr" / "BRATS_001.nii.gz",
        np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8),
    )
    return path


def test_the_decathlon_file(decathlon):
    sources = find_case(decathlon)
    assert sources == {m: Source(decathlon, i) for m, i in (("t2f", 0), ("t1n", 1), ("t1c", 2), ("t2w", 3))}
    case = load_case(sources)
    assert case.id == "BRATS_001"
    for i, m in enumerate(("t2f", "t1n", "t1c", "t2w")):
        np.testing.assert_array_equal(case.images[m], noise(i))
    assert find_case(decathlon.parent) == sources  # the only file of its folder
    label = find_label(decathlon)
    assert label == decathlon.parents[1] / "labelsTr" / "BRATS_001.nii.gz"
    stored = np.asarray(nib.load(label).dataobj)
    np.testing.assert_array_equal(load_label_map(label, "msd", case), np.array([0, 2, 1, 3])[stored])


def test_the_decathlon_description_has_the_say(decathlon):
    order = {"0": "T2w", "1": "t1gd", "2": "T1w", "3": "FLAIR"}
    (decathlon.parents[1] / "dataset.json").write_text(json.dumps({"modality": order}))
    sources = find_case(decathlon)
    assert [sources[m].volume for m in ("t2w", "t1c", "t1n", "t2f")] == [0, 1, 2, 3]


@pytest.mark.parametrize("text", ["{", "[]", '{"modality": {"1": "T1w"}}', '{"modality": 4}', '{"modality": {"0": 1}}'])
def test_a_description_that_says_nothing(decathlon, text):
    (decathlon.parent / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset.json: no readable table of modalities"):
        find_case(decathlon)


def test_a_4d_file_of_unknown_order_is_not_guessed(tmp_path):
    path = write(tmp_path / "patient.nii.gz", noise(0, (*SHAPE, 4)))
    with pytest.raises(InputError, match=r"holds 4 volume\(s\), and nothing says which is which; expected a folder"):
        find_case(path)
    path = write(tmp_path / "BRATS_001.nii.gz", noise(0, (*SHAPE, 3)))
    with pytest.raises(InputError, match=r"holds 3 volume\(s\), described as t2f, t1n, t1c, t2w; expected"):
        find_case(path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"a.txt: expected the folder of a case"):
        find_case(tmp_path / "a.txt")


def test_other_modalities_go_by_their_own_name(tmp_path):
    for name in ("p1_ct.nii.gz", "p1_pet.nii.gz", "p1_t1.nii.gz"):
        (tmp_path / name).touch()
    found = find_case(tmp_path, ("ct", "t1n"))
    assert found == {"ct": Source(tmp_path / "p1_ct.nii.gz"), "t1n": Source(tmp_path / "p1_t1.nii.gz")}
    with pytest.raises(InputError, match=r"no file for mr; found: p1_ct.nii.gz"):
        find_case(tmp_path, ("ct", "mr"))


def test_a_decathlon_set_of_one_channel(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": {"0": "CT"}}))
    path = write(tmp_path / "liver_1.nii.gz", noise(0))
    case = load_case(find_case(path, ("ct",)), modalities=("ct",))
    np.testing.assert_array_equal(case.images["ct"], noise(0))


@pytest.mark.parametrize(
    "name",
    [
        "x_seg.nii.gz",
        "x-seg.nii.gz",
        "seg.nii",
        "W39_1998.09.19_Segm.nii",
        "label.nrrd",
        "VSD.Brain.OT.54517.mha",
    ],
)
def test_label_names(tmp_path, name):
    for other in (*names_of("bare"), name, "t1c_brainmask.nii.gz"):
        (tmp_path / other).touch()
    assert find_label(tmp_path) == tmp_path / name


def test_no_label_and_two(tmp_path, decathlon):
    (tmp_path / "t1c.nii.gz").touch()
    assert find_label(tmp_path) is None
    for name in ("a_seg.nii.gz", "b_seg.nii.gz"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"several label maps: a_seg.nii.gz, b_seg.nii.gz; leave one"):
        find_label(tmp_path)
