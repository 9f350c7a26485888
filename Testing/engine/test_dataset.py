"""From cases to a manifest: subjects, labels never guessed, statistics, bad cases told, updates."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from case_files import CT, ML, NAMES, labels, make_case
from image_files import AFFINE, SHAPE, noise, write
from segmamba.cases.labels import POST_TREATMENT
from segmamba.cli import main
from segmamba.datasets.collect import init_dataset, update_dataset
from segmamba.datasets.find import find_cases
from segmamba.datasets.manifest import read_dataset
from segmamba.datasets.task import Task
from segmamba.errors import InputError
from segmamba.files.digest import hash_file


@pytest.fixture
def three(tmp_path):
    """BraTS 2023: two examinations of one subject, one of another."""
    for seed, name in enumerate(("BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000")):
        make_case(tmp_path / "set" / name, seed=seed, label=labels(1, 2, 3))
    return tmp_path / "set"


# --- subjects


def test_examinations_of_one_subject_are_known_by_its_number(three):
    dataset = init_dataset(three, convention="brats2023").dataset
    assert [c.subject for c in dataset.cases] == ["BraTS-GLI-00001", "BraTS-GLI-00001", "BraTS-GLI-00002"]


def test_phantoms_of_one_seed_are_one_subject(phantom_cases, tmp_path):
    """They have one head, whatever their tumour and however they are stored."""
    for name in ("phantom-0001", "phantom-0001-shape", "phantom-0001-shape-raw", "phantom-0002-raw"):
        for file in (phantom_cases / "phantom-0").iterdir():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / file.name.replace("phantom-0", name)).symlink_to(file)
    subjects = [case.subject for case in find_cases(tmp_path).cases.values()]
    assert sorted(subjects) == ["phantom-0001"] * 3 + ["phantom-0002"]


def test_a_follow_up_of_ucsf_pdgm_is_of_its_patient(phantom_cases, tmp_path):
    for name in ("UCSF-PDGM-0429_nifti", "UCSF-PDGM-0429_FU003d_nifti", "UCSF-PDGM-0429_FU003d", "UCSF-PDGM-0430"):
        (tmp_path / name).symlink_to(phantom_cases / "phantom-0")
    subjects = [case.subject for case in find_cases(tmp_path).cases.values()]
    assert sorted(subjects) == ["UCSF-PDGM-0429"] * 3 + ["UCSF-PDGM-0430"]


def test_what_was_deleted_on_a_file_server_is_no_case(three):
    make_case(three / "#recycle" / "BraTS-GLI-00003-000", seed=3, label=labels(1, 2, 3))
    make_case(three / "$RECYCLE.BIN", seed=4, label=labels(1, 2, 3))
    found = find_cases(three)
    assert list(found.cases) == ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000"]
    assert not found.bad and not found.notes


def test_a_folder_that_cannot_be_looked_into_is_named_and_stops_none_of_the_others(three, monkeypatch):
    iterdir = Path.iterdir

    def refuse(path):
        if path.name == "BraTS-GLI-00001-001":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    found = find_cases(three)
    assert list(found.cases) == ["BraTS-GLI-00001-000", "BraTS-GLI-00002-000"]
    assert str(three / "BraTS-GLI-00001-001") in found.bad["BraTS-GLI-00001-001"]


def test_a_subject_pattern(three):
    found = find_cases(three, subject_pattern=r"\d{3}$")
    assert [c.subject for c in found.cases.values()] == ["000", "001", "000"]
    with pytest.raises(InputError, match="finds no subject in the case id 'BraTS-GLI-00001-000'"):
        find_cases(three, subject_pattern="P(.)")
    with pytest.raises(InputError, match="not a regular expression"):
        find_cases(three, subject_pattern="(")


# --- labels


def test_a_convention_follows_from_all_cases_together(tmp_path):
    """One case alone, with {1, 2}, could be any."""
    for seed, values in enumerate([(1, 2), (2, 4), ()]):
        make_case(tmp_path / f"BraTS2021_0000{seed}", seed=seed, label=labels(*values))
    dataset = init_dataset(tmp_path).dataset
    assert dataset.label_values == {"1": "NCR", "2": "ED", "4": "ET"}
    shares = [c.statistics["labels"]["ET"]["voxels"] for c in dataset.cases]
    assert shares == [0, 20, 0] and dataset.cases[1].statistics["labels"]["ET"]["ml"] == pytest.approx(20 * ML)


@pytest.mark.parametrize("values", [(1, 2, 3), (1, 2), (1, 2, 4), (1, 2, 3, 4), (7,)])
def test_labels_are_never_guessed(tmp_path, values):
    make_case(tmp_path / "c", label=labels(*values))
    with pytest.raises(InputError, match=r"1 case\(s\), e.g. c.*--labels brats2023\|brats2021\|msd\|.*, or .* --task"):
        init_dataset(tmp_path)
    assert not (tmp_path / "dataset.json").exists()


def test_label_maps_that_are_all_empty_are_told(tmp_path):
    for seed in range(2):
        make_case(tmp_path / f"c{seed}", seed=seed, label=labels())
    assert "all 2 label maps are empty: a model" in " ".join(init_dataset(tmp_path).notes)
    make_case(tmp_path / "BraTS2021_00003", seed=3, label=labels(4))
    assert "are empty" not in " ".join(init_dataset(tmp_path, output=tmp_path / "o", convention="brats2021").notes)


@pytest.mark.parametrize(("convention", "expected"), [("brats2023", "NCR"), ("msd", "ED")])
def test_a_stated_convention_is_followed(tmp_path, convention, expected):
    make_case(tmp_path / "c", label=labels(1))
    [case] = init_dataset(tmp_path, convention=convention).dataset.cases
    assert {name: v["voxels"] for name, v in case.statistics["labels"].items() if v["voxels"]} == {expected: 20}


def test_a_convention_is_for_brain_tumours(tmp_path):
    make_case(tmp_path / "c", names=("ct",))
    with pytest.raises(InputError, match="this task has lesion"):
        init_dataset(tmp_path, task=CT, convention="msd")
    with pytest.raises(InputError, match="unknown label convention 'brats'"):
        init_dataset(make_case(tmp_path / "d" / "e").parent, convention="brats")


def test_a_cavity_is_told_how_it_becomes_a_label(tmp_path):
    """The engine's own labels are those of tumours; brats2024 has one more."""
    make_case(tmp_path / "set/a", label=labels(1))
    make_case(tmp_path / "set/b", seed=1, label=labels(1, 4))
    why = init_dataset(tmp_path / "set", convention="brats2024").left_out["b"]
    told = why.partition("instead of --labels ")[2].split()
    assert main(["dataset", "init", str(tmp_path / "set"), "--output", str(tmp_path / "out"), *told]) == 0
    assert read_dataset(tmp_path / "out").scheme == POST_TREATMENT and len(read_dataset(tmp_path / "out").cases) == 2


# --- statistics


def test_statistics_are_those_of_the_voxels(tmp_path):
    image = noise(0)
    image[:4] = 0
    (tmp_path / "set" / "c").mkdir(parents=True)
    write(tmp_path / "set" / "c" / "ct.nii.gz", image)
    write(tmp_path / "set" / "c" / "seg.nii.gz", labels(1, each=900))
    [case] = init_dataset(tmp_path / "set", task=CT).dataset.cases
    measured, brain = case.statistics["images"]["ct"], image[4:]
    assert measured["mean"] == pytest.approx(brain.mean(dtype=float), rel=1e-4)
    assert measured["percentiles"]["99.5"] == pytest.approx(np.percentile(brain, 99.5), rel=1e-4)
    assert measured["min"] == pytest.approx(brain.min(), rel=1e-4)
    assert case.statistics["foreground"]["box"] == [[4, 11], [0, 14], [0, 9]]
    inside = image.ravel()[:900]
    assert case.statistics["labelled"]["ct"]["mean"] == pytest.approx(inside.mean(dtype=float), rel=1e-4)


def test_suggestions_do_not_depend_on_how_axes_are_stored(tmp_path):
    big = np.random.default_rng(0).uniform(1, 9, (40, 60, 150)).astype(np.float32)
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        (tmp_path / name / "c").mkdir(parents=True)
        affine = np.diag([2.0, 1.5, 1, 1])[:, [*order, 3]]
        write(tmp_path / name / "c" / "ct.nii.gz", big.transpose(order), affine)
        suggested = init_dataset(tmp_path / name, task=CT).dataset.fingerprint["suggested"]
        assert suggested["spacing"] == [1, 1.5, 2] and suggested["patch"] == [128, 48, 32]


# --- bad cases


def test_a_bad_case_does_not_stop_the_others(three, capsys):
    write(three / "BraTS-GLI-00001-001" / "BraTS-GLI-00001-001-t2w.nii.gz", noise(5, (11, 14, 8)))
    make_case(three / "BraTS-GLI-00003-000", names=NAMES[:3], seed=7)
    make_case(three / "BraTS-GLI-00004-000", seed=8, label=labels(1, 9))
    arguments = ["dataset", "init", str(three), "--labels", "brats2023"]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    for text in ("00001-001-t2w.nii.gz and .*not on one grid", "no file for t2f", r"label values 9 \(20 voxels\)"):
        assert re.search(text, printed.err)
    assert "2 cases of 2 subjects, 4 read, 3 left out" in printed.out
    dataset = read_dataset(three)
    assert sorted(dataset.left_out) == ["BraTS-GLI-00001-001", "BraTS-GLI-00003-000", "BraTS-GLI-00004-000"]
    with pytest.raises(InputError, match="already exists; add what changed with --update"):
        init_dataset(three)
    # mended, only that is read
    shutil.rmtree(three / "BraTS-GLI-00003-000")
    write(three / "BraTS-GLI-00001-001" / "BraTS-GLI-00001-001-t2w.nii.gz", noise(5))
    assert main(["dataset", "init", str(three), "--update", "--skip-bad"]) == 0
    assert "3 cases of 2 subjects, 2 read, 1 left out" in capsys.readouterr().out
    assert [c.id[-9:] for c in read_dataset(three).cases] == ["00001-000", "00001-001", "00002-000"]


def test_every_fault_of_a_case_is_told(tmp_path):
    make_case(tmp_path / "good", label=labels(4))
    folder = make_case(tmp_path / "bad", seed=1, label=labels(4).astype(np.float32) / 8)
    write(folder / "bad-t1n.nii.gz", np.zeros(SHAPE, np.float32))
    (folder / "bad-t2f.nii.gz").write_bytes(b"no image")
    why = init_dataset(tmp_path, convention="brats2021").left_out["bad"]
    for text in ("t1n.nii.gz (t1n) is empty", "t2f.nii.gz: cut off", "bad-seg.nii.gz: label values are not whole"):
        assert text in why


def test_a_label_map_on_another_grid(tmp_path):
    make_case(tmp_path / "good", label=labels(4))
    folder = make_case(tmp_path / "bad", seed=1)
    write(folder / "bad-seg.nii.gz", labels(4), AFFINE @ np.diag([-1, 1, 1, 1]))
    assert "is not on the grid of its images" in init_dataset(tmp_path, convention="brats2021").left_out["bad"]


@pytest.mark.parametrize("what", ["missing", "empty", "one case", "text"])
def test_what_is_no_data_set(tmp_path, what):
    messages = {"missing": "no such folder", "empty": "no cases; expected", "one case": "give the folder above it"}
    path = tmp_path / what
    if what == "one case":
        make_case(path)
    elif what == "text":
        path = tmp_path / "a.md"
        path.touch()
    elif what == "empty":
        path.mkdir()
    with pytest.raises(InputError, match=messages.get(what, "a list that ends in .csv")):
        init_dataset(path)


# --- updates


def test_an_update_reads_only_what_changed(three):
    first = init_dataset(three, convention="brats2023").dataset
    kept, corrected, touched = first.cases
    write(three / corrected.id / f"{corrected.id}-seg.nii.gz", labels(3, each=50))
    os.utime(first.path(touched.images["t1c"]), (1, 1))
    make_case(three / "BraTS-GLI-00000-000", seed=9, label=labels(2))
    result = update_dataset(three)
    assert result.read == ("BraTS-GLI-00000-000", corrected.id)
    new = {c.id: c for c in result.dataset.cases}
    assert new[kept.id] == kept
    assert new[touched.id].statistics == touched.statistics
    assert new[corrected.id].statistics["labels"]["ET"]["voxels"] == 50
    assert new[corrected.id].label.sha256 == hash_file(three / corrected.id / f"{corrected.id}-seg.nii.gz")
    assert new[corrected.id].images == corrected.images
    assert read_dataset(three) == result.dataset
    assert update_dataset(three).read == ()


def test_an_update_notices_new_content_of_the_same_size(three):
    """Size alone would not tell: the time does, and the hash decides."""
    first = init_dataset(three, convention="brats2023").dataset
    path = first.path(first.cases[0].label).with_suffix("")  # .nii: no compression, so the size stays
    first.path(first.cases[0].label).unlink()
    write(path, labels(1))
    update_dataset(three)
    before = path.stat()
    write(path, labels(2))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert path.stat().st_size == before.st_size
    assert update_dataset(three).read == ("BraTS-GLI-00001-000",)


def test_an_update_drops_what_is_gone_and_adds_a_label(three):
    init_dataset(three, convention="brats2023")
    shutil.rmtree(three / "BraTS-GLI-00002-000")
    (three / "BraTS-GLI-00001-000" / "BraTS-GLI-00001-000-seg.nii.gz").unlink()
    result = update_dataset(three)
    assert result.gone == ("BraTS-GLI-00002-000",) and len(result.dataset.cases) == 2
    assert result.dataset.cases[0].label is None and "no label map" in result.notes[0]
    assert result.dataset.fingerprint["labelled"] == 1


def test_an_update_keeps_what_was_stated(three, capsys):
    init_dataset(three, convention="brats2023", subject_pattern=r"GLI-(\d+)", name="mine")
    make_case(three / "BraTS-GLI-00005-000", seed=9, label=labels(4))
    result = update_dataset(three)
    assert "label values 4" in result.left_out["BraTS-GLI-00005-000"]
    assert result.dataset.name == "mine" and result.dataset.cases[0].subject == "00001"
    assert main(["dataset", "init", str(three), "--update", "--labels", "msd"]) == 1
    assert "leave out --labels" in capsys.readouterr().err


def test_a_convention_may_follow_later(tmp_path):
    make_case(tmp_path / "Brats18_a")
    make_case(tmp_path / "Brats18_b", seed=1, label=labels())
    assert init_dataset(tmp_path).dataset.made["convention"] == "no label seen yet"
    make_case(tmp_path / "Brats18_c", seed=2, label=labels(1, 4))
    assert update_dataset(tmp_path).dataset.renumbering == {1: 1, 2: 2, 4: 3}


def test_a_manifest_elsewhere_knows_its_source(three, tmp_path):
    init_dataset(three, output=tmp_path / "out", convention="brats2023")
    make_case(three / "BraTS-GLI-00007-000", seed=9, label=labels(2))
    assert update_dataset(tmp_path / "out").read == ("BraTS-GLI-00007-000",)
    assert not (three / "dataset.json").exists()


def test_a_data_set_may_be_moved(three, tmp_path):
    init_dataset(three, convention="brats2023")
    shutil.copytree(three, tmp_path / "moved")
    shutil.rmtree(three)
    dataset = read_dataset(tmp_path / "moved")
    assert all(dataset.path(e).is_file() for c in dataset.cases for e in c.images.values())
    assert update_dataset(tmp_path / "moved").read == ()


def test_more_processes_make_the_same_manifest(three, tmp_path):
    one = init_dataset(three, output=tmp_path / "1", convention="brats2023").dataset
    two = init_dataset(three, output=tmp_path / "2", convention="brats2023", jobs=2).dataset
    assert (one.cases, one.fingerprint) == (two.cases, two.fingerprint)


def test_the_summary(three, capsys):
    init_dataset(three, convention="brats2023")
    assert main(["dataset", "summary", str(three)]) == 0
    text = capsys.readouterr().out
    for line in ("3 cases of 2 subjects, 3 with labels", "WT = NCR + ED + ET", "11 x 14 x 9", "split         none yet"):
        assert line in text
    assert main(["dataset", "summary", str(three), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["label_values"] == {"1": "NCR", "2": "ED", "3": "ET"} and facts["split"] is None
    assert facts["fingerprint"]["labels"]["ED"]["cases"] == 3
    assert main(["dataset", "split", str(three), "--folds", "2"]) == 0
    assert main(["dataset", "summary", str(three)]) == 0
    assert "2 folds, seed 1; cases in " in capsys.readouterr().out


def test_the_real_cases(brats, tmp_path):
    case = brats / "BraTS2021_00006"
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / case.name).symlink_to(case)
    dataset = init_dataset(tmp_path / "set").dataset
    [entry] = dataset.cases
    assert entry.shape == (240, 240, 155) and entry.statistics["orientation"] == "LPS"
    assert {n: v["voxels"] for n, v in entry.statistics["labels"].items()} == {"NCR": 25506, "ED": 85957, "ET": 26448}
    assert dataset.label_values["4"] == "ET" and Task().modalities == dataset.modalities
    assert dataset.fingerprint["suggested"] == {
        "spacing": [1, 1, 1],
        "patch": [128, 128, 128],
        "normalisation": "zscore_nonzero",
    }


def test_a_data_set_that_is_missing_is_made_where_it_was_looked_for(tmp_path):
    """A folder that is there, one that is not, and the manifest by its own name."""
    for path in (tmp_path, tmp_path / "new", tmp_path / "new" / "dataset.json"):
        folder = tmp_path if path == tmp_path else tmp_path / "new"
        with pytest.raises(InputError) as found:
            read_dataset(path)
        expected = f"there is no data set {folder / 'dataset.json'}; make it with `segmamba dataset init {folder}`"
        assert str(found.value) == expected
