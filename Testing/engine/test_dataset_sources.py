"""Where the cases of a data set are: every naming, folders of slices, lists, the Decathlon, a task file."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from case_files import CT, ML, NAMES, labels, make_case
from image_files import RIGHT_HANDED, SHAPE, noise, write, write_dicom
from segmamba.cli import main
from segmamba.datasets.collect import init_dataset
from segmamba.datasets.manifest import read_dataset
from segmamba.datasets.task import read_task
from segmamba.errors import InputError

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
        ("id,t1n,t1c,t2w,t2f\nx,a,b,c,d\nP1/pre,a,b,c,d\n", "case 2: the id 'P1/pre' is no plain name"),
        ("id,t1n,t1c,t2w,t2f\nP1\\pre,a,b,c,d\n", "case 1: the id .* is no plain name"),
        ("id,t1n,t1c,t2w,t2f\n..,a,b,c,d\n", "case 1: the id '..' is no plain name"),
        ("id,t1n,t1c,t2w,t2f\nP\a1,a,b,c,d\n", "case 1: the id .* is no plain name"),
        ("id,t1n,t1c,t2w\nx,a,b,c\n", "none of 1 cases can be used:\n  x: .*no t2f; expected a column for each"),
    ],
)
def test_a_list_that_is_wrong(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        init_dataset(tmp_path / "list.csv")


@pytest.mark.parametrize("sound", ["", "A", "B"])
@pytest.mark.parametrize("listed", [False, True])
def test_two_cases_of_one_id_are_told_whichever_is_sound(tmp_path, sound, listed):
    """One of them would be left out for what the other lacks, or be named alone."""
    rows = ["id,folder"]
    for patient in "AB":
        folder = make_case(tmp_path / patient / "2024-01-01")
        if patient != sound:
            (folder / "2024-01-01-t2w.nii.gz").unlink()
        rows.append(f"x,{patient}/2024-01-01")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    with pytest.raises(InputError, match=r"two cases have the id (x|2024-01-01)"):
        init_dataset(tmp_path / "list.csv" if listed else tmp_path)


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


def test_two_files_of_one_id_are_told(tmp_path):
    root = make_decathlon(tmp_path / "Task01", MSD)
    write(root / "imagesTr" / "BRATS_001.nii", noise(1, (*SHAPE, 4)))
    with pytest.raises(InputError, match="two cases have the id BRATS_001"):
        init_dataset(root, output=root / "segmamba")


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
    told = ["--modality", "ct", "--label", "lesion=1", "--jobs", "1"]
    assert main(["dataset", "init", str(tmp_path / "set"), *told]) == 0
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
