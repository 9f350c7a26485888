"""From a folder or list of cases to a manifest: every naming, labels never guessed, bad cases told, updates."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from image_files import AFFINE, RIGHT_HANDED, SHAPE, noise, write, write_dicom
from segmamba.cli import main
from segmamba.datasets.collect import init_dataset, update_dataset
from segmamba.datasets.find import find_cases
from segmamba.datasets.manifest import read_dataset
from segmamba.datasets.reading import hash_file
from segmamba.datasets.task import Task, custom_task, read_task
from segmamba.errors import InputError

NAMES = ("t1n", "t1c", "t2w", "t2f")
CT = custom_task(("ct",), {"lesion": [1]})
ML = 0.9 * 1.2 * 2.5 / 1000  # of a voxel of AFFINE


def labels(*values, each=20):
    """A label map with `each` voxels of each value, in a row from the start."""
    array = np.zeros(SHAPE, np.uint8)
    array.ravel()[: each * len(values)] = np.repeat(values, each)
    return array


def make_case(folder, pattern="{}-{}.nii.gz", names=NAMES, seg="seg", seed=0, label=None):
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        write(folder / pattern.format(folder.name, name), noise(10 * seed + i))
    if label is not None:
        write(folder / pattern.format(folder.name, seg), label)
    return folder


@pytest.fixture
def three(tmp_path):
    """BraTS 2023: two examinations of one subject, one of another."""
    for seed, name in enumerate(("BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000")):
        make_case(tmp_path / "set" / name, seed=seed, label=labels(1, 2, 3))
    return tmp_path / "set"


# --- where cases are


NAMINGS = {
    "BraTS 2018": ("HGG/Brats18_X_1", "{}_{}.nii.gz", ("t1", "t1ce", "t2", "flair"), "Brats18_X_1"),
    "BraTS 2021": ("BraTS2021_00006", "{}_{}.nii.gz", ("t1", "t1ce", "t2", "flair"), "BraTS2021_00006"),
    "BraTS 2023": ("BraTS-GLI-00009-001", "{}-{}.nii.gz", NAMES, "BraTS-GLI-00009"),
    "BraTS 2025": ("BraTS-MET-00009-100", "{}-{}.nii.gz", NAMES, "BraTS-MET-00009"),
    "UPENN": ("UPENN-GBM-00001_11", "{}_{}.nii.gz", ("T1", "T1GD", "T2", "FLAIR"), "UPENN-GBM-00001"),
    "bare": ("17", "{1}.nii.gz", NAMES, "17"),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_namings(tmp_path, naming):
    path, pattern, names, subject = NAMINGS[naming]
    folder = make_case(tmp_path / path, pattern, names, label=labels(4))
    (tmp_path / "notes").mkdir()
    dataset = init_dataset(tmp_path, convention="brats2021").dataset
    [case] = dataset.cases
    assert (case.id, case.subject, case.shape) == (folder.name, subject, SHAPE)
    np.testing.assert_allclose(case.spacing, (0.9, 1.2, 2.5), rtol=1e-5)
    for modality, name in zip(NAMES, names):
        entry = case.images[modality]
        assert dataset.path(entry) == folder / pattern.format(folder.name, name)
        assert not Path(entry.path).is_absolute()
        assert entry.sha256 == hashlib.sha256(dataset.path(entry).read_bytes()).hexdigest()
    assert case.label is not None
    assert read_dataset(tmp_path) == dataset


def test_folders_of_dicom_slices(tmp_path):
    for i, name in enumerate(NAMES):
        (tmp_path / "p1").mkdir(exist_ok=True)
        write_dicom(tmp_path / "p1" / name, noise(i), RIGHT_HANDED, f"1.2.{i + 1}")
    [case] = init_dataset(tmp_path).dataset.cases
    slices = sorted((tmp_path / "p1" / "t1c").iterdir())
    joined = b"".join(s.read_bytes() for s in slices)
    assert case.images["t1c"].sha256 == hashlib.sha256(joined).hexdigest()
    assert case.label is None


def test_a_csv_list(tmp_path):
    a = make_case(tmp_path / "a", label=labels(4))
    make_case(tmp_path / "b" / "c", seed=1, label=labels(1, 4))
    rows = ["\ufeffid;subject;t1n;t1c;t2w;t2f;seg;folder;age"]
    rows += ["one;S1;" + ";".join(f"a/a-{m}.nii.gz" for m in NAMES) + ";a/a-seg.nii.gz;;70", ";S1;;;;;;b/c;71"]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    dataset = init_dataset(tmp_path / "list.csv", output=tmp_path / "out", convention="brats2021").dataset
    assert [(c.id, c.subject) for c in dataset.cases] == [("c", "S1"), ("one", "S1")]
    assert dataset.path(dataset.cases[1].images["t2w"]).samefile(a / "a-t2w.nii.gz")
    assert read_dataset(tmp_path / "out") == dataset


def test_a_json_list(tmp_path):
    make_case(tmp_path / "a", label=labels(4))
    rows = {"cases": [{"id": "x-1", **{m: f"a/a-{m}.nii.gz" for m in NAMES}, "label": "a/a-seg.nii.gz"}]}
    (tmp_path / "list.json").write_text(json.dumps(rows))
    dataset = init_dataset(tmp_path / "list.json", subject_pattern=r"(\w)-\d", convention="brats2021").dataset
    assert [(c.id, c.subject) for c in dataset.cases] == [("x-1", "x")]
    assert (tmp_path / "dataset.json").is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,t1n\n", "no cases"),
        ("id,t1n\na,b,c\n", "more columns than the first"),
        ("t1n,t1c,t2w,t2f\na,b,c,d\n", "case 1: no id; expected a column 'id'"),
        ("id,t1n,t1c,t2w,t2f\nx,a,b,c,d\nx,a,b,c,d\n", "two cases have the id x"),
        ("id,t1n,t1c,t2w\nx,a,b,c\n", "none of 1 cases can be used:\n  x: .*no t2f; expected a column for each"),
    ],
)
def test_a_list_that_is_wrong(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        init_dataset(tmp_path / "list.csv")


def make_decathlon(root, description=None, count=2, volumes=4, values=(1, 2, 3), suffix=""):
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    for n in range(1, count + 1):
        array = np.stack([noise(4 * n + i) for i in range(volumes)], -1) if volumes > 1 else noise(n)
        write(root / "imagesTr" / f"BRATS_{n:03d}{suffix}.nii.gz", array)
        write(root / "labelsTr" / f"BRATS_{n:03d}.nii.gz", labels(*values, each=10 * n))
    if description:
        (root / "dataset.json").write_text(json.dumps(description))
    return root


MSD = {
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
}


def test_the_decathlon_names_its_labels(tmp_path):
    root = make_decathlon(tmp_path / "Task01", MSD)
    with pytest.raises(InputError, match=r"was not written by this program.* --output"):
        init_dataset(root)
    dataset = init_dataset(root, output=root / "segmamba").dataset
    assert [c.id for c in dataset.cases] == ["BRATS_001", "BRATS_002"]
    assert {m: e.volume for m, e in dataset.cases[0].images.items()} == {"t1n": 1, "t1c": 2, "t2w": 3, "t2f": 0}
    assert dataset.renumbering == {1: 2, 2: 1, 3: 3}  # edema is ED, which the engine calls 2
    assert dataset.cases[1].label.path == "../labelsTr/BRATS_002.nii.gz"
    assert json.loads((root / "dataset.json").read_text()) == MSD


def test_the_decathlon_without_its_description(tmp_path):
    root = make_decathlon(tmp_path / "Task01")
    with pytest.raises(InputError, match="would be mistaken for the description"):
        init_dataset(root, convention="msd")
    dataset = init_dataset(root, output=root / "x", convention="msd").dataset
    assert dataset.renumbering == {1: 2, 2: 1, 3: 3} and len(dataset.cases) == 2


@pytest.mark.parametrize("nnunet", [False, True])
def test_another_organ_of_the_decathlon(tmp_path, nnunet):
    if nnunet:
        description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "cancer": 2}}
    else:
        description = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "cancer"}}
    root = make_decathlon(tmp_path / "x", description, volumes=1, values=(1, 2), suffix="_0000" if nnunet else "")
    dataset = init_dataset(root, output=tmp_path / "out").dataset
    assert dataset.modalities == ("ct",) and dataset.labels == {"liver": 1, "cancer": 2}
    assert dataset.regions == {"liver": ("liver",), "cancer": ("cancer",)}
    assert [c.id for c in dataset.cases] == ["BRATS_001", "BRATS_002"]
    assert dataset.cases[1].statistics["labels"]["cancer"]["voxels"] == 20


def test_a_ct_set_of_one_channel_and_one_label(tmp_path):
    for i in range(3):
        (tmp_path / "set" / f"p{i}").mkdir(parents=True)
        write(tmp_path / "set" / f"p{i}" / "ct.nii.gz", noise(i) - 1000)
        write(tmp_path / "set" / f"p{i}" / "seg.nii.gz", labels(1, each=100 * (i + 1)))
    assert main(["dataset", "init", str(tmp_path / "set"), "--modality", "ct", "--label", "lesion=1"]) == 0
    dataset = read_dataset(tmp_path / "set")
    assert dataset.scheme == CT.scheme and dataset.modalities == ("ct",)
    assert dataset.fingerprint["labels"]["lesion"]["ml"] == pytest.approx(
        {"median": 200 * ML, "min": 100 * ML, "max": 300 * ML}
    )
    assert dataset.fingerprint["voxel_shares"]["lesion"] == pytest.approx(200 / np.prod(SHAPE))
    assert dataset.fingerprint["suggested"]["normalisation"] == "zscore_box"


@pytest.mark.parametrize(
    "text",
    [
        'modalities = ["ct"]\n[labels]\nlesion = 1\nscar = [2, 5]\n[regions]\nall = ["lesion", "scar"]\n',
        '{"modalities": ["ct"], "labels": {"lesion": 1, "scar": [2, 5]}, "regions": {"all": ["lesion", "scar"]}}',
    ],
)
def test_a_task_file(tmp_path, text):
    path = tmp_path / ("task.json" if text.startswith("{") else "task.toml")
    path.write_text(text)
    task = read_task(path)
    assert task.modalities == ("ct",) and task.label_values == {"1": "lesion", "2": "scar", "5": "scar"}
    assert task.scheme.labels == {"lesion": 1, "scar": 2} and task.scheme.regions == {"all": ("lesion", "scar")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modality = ['ct']\n[labels]\na = 1", "did you mean 'modalities'"),
        ("modalities = ['ct']", "missing 'labels'"),
        ("modalities = ['ct']\n[labels]\na = 1\nb = 1", "value 1 is both a and b"),
        ("modalities = ['ct']\n[labels]\na = 0", "value 0: expected whole numbers above 0"),
        ("modalities = ['ct']\n[labels]\na = 1\n[regions]\nr = ['b']", "known labels are a"),
    ],
)
def test_a_task_file_that_is_wrong(tmp_path, text, message):
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_task(tmp_path / "t.toml")


# --- subjects


def test_examinations_of_one_subject_are_known_by_its_number(three):
    dataset = init_dataset(three, convention="brats2023").dataset
    assert [c.subject for c in dataset.cases] == ["BraTS-GLI-00001", "BraTS-GLI-00001", "BraTS-GLI-00002"]


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
