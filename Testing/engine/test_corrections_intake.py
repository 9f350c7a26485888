"""What intake refuses, doubts and takes of submissions, and where a case's place is settled."""

import gzip
import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
from correction_runs import corrected, edited, grown, send, send_under_two_patients
from segmamba.cases.case import find_case, find_label
from segmamba.cli import main
from segmamba.datasets.manifest import read_dataset
from segmamba.datasets.phantom import make_phantom, save_phantom
from segmamba.datasets.split import read_split, training_cases, validation_cases
from segmamba.errors import InputError
from segmamba.files.digest import hash_file
from segmamba.learning.submissions import verdicts
from segmamba.learning.submissions.findings import WRONG, Finding
from segmamba.learning.submissions.intake import format_intake, ingest
from segmamba.learning.submissions.record import read_record

SOUND = (0, 2, 8, 9, 13, 14)  # seeds of phantoms that no check at 4 mm takes for exchanged or moved


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("sound")
    for seed in SOUND:
        folder = root / f"p{seed}"
        folder.mkdir()
        save_phantom(make_phantom(seed, spacing=(4, 4, 4), enhancing=True), folder, folder.name)
    return [root / f"p{seed}" for seed in SOUND]


def only_row(result):
    assert len(result.rows) == 1
    return result.rows[0]


def test_sending_twice_makes_a_version_and_no_duplicate(tmp_path, phantoms):
    first = send(tmp_path / "to", phantoms[0], labels=corrected(phantoms[0], tmp_path), subject="A")
    again = edited(find_label(phantoms[0]), tmp_path / "2.nii.gz", lambda voxels: grown(grown(voxels)))
    second = send(tmp_path / "to", phantoms[0], labels=again, subject="A")
    assert (first.name[:-3], second.name[-3:]) == (second.name[:-3], "-v2")
    result = ingest(tmp_path / "to")
    assert {row.name: row.status for row in result.rows} == {first.name: "replaced", second.name: "train"}
    (entry,) = read_dataset(tmp_path / "to").cases
    assert entry.label.sha256 == hash_file(second / "seg.nii.gz")
    assert ingest(tmp_path / "to").new == ()


# --- what intake refuses


def test_sound_cases_are_taken(tmp_path, phantoms):
    for case in phantoms[:3]:
        send(tmp_path / "to", case, labels=corrected(case, tmp_path), subject=case.name)
    result = ingest(tmp_path / "to")
    assert sorted(row.status for row in result.rows) == ["train", "train", "validation"]
    dataset = read_dataset(tmp_path / "to")
    assert len(dataset.cases) == 3
    for entry in dataset.cases:
        assert all(hash_file(dataset.path(file)) == file.sha256 for file in [*entry.images.values(), entry.label])
    assert "2 train, 1 validation" in format_intake(result)
    placed = read_split(dataset).subjects
    ingest(tmp_path / "to", withdraw=[row.name for row in result.rows])
    for case in phantoms[:3]:  # withdrawn patients keep no other from being validated on
        send(tmp_path / "to", case, labels=corrected(case, tmp_path), subject=f"{case.name} again")
    assert sorted(row.status for row in ingest(tmp_path / "to").rows) == ["train", "train", "validation"]
    assert placed.items() < read_split(read_dataset(tmp_path / "to")).subjects.items()


def mirror(voxels):
    return np.flip(voxels, 0)


def aside(voxels):
    """To another place in the head: half-way to its other side, and back."""
    return np.roll(voxels, (voxels.shape[0] // 3, -voxels.shape[1] // 5), (0, 1))


POISON = {
    "exchanged labels": ("labels", lambda v: np.array([0, 2, 1, 3])[v]),
    "every label another": ("labels", lambda v: np.array([0, 3, 1, 2])[v]),
    "a mirrored label map": ("mirrored", mirror),
    "a label map beside the head": ("other patient", lambda v: np.where(np.indices(v.shape)[0] < 3, 2, 0)),
    "an empty label map": ("empty label", np.zeros_like),
}


@pytest.mark.parametrize("poison", POISON)
def test_a_poisoned_label_map_is_refused(tmp_path, phantoms, poison):
    kind, edit = POISON[poison]
    labels = edited(find_label(phantoms[0]), tmp_path / "wrong.nii.gz", edit)
    send(tmp_path / "to", phantoms[0], labels=labels, subject="A")
    row = only_row(ingest(tmp_path / "to"))
    assert row.status == ("refused" if kind in WRONG else "doubtful")
    assert kind in {finding.kind for finding in row.findings}
    assert not (tmp_path / "to" / "dataset.json").exists()


def test_labels_elsewhere_in_the_head_are_refused(tmp_path, phantoms):
    labels = edited(find_label(phantoms[1]), tmp_path / "wrong.nii.gz", aside)
    send(tmp_path / "to", phantoms[1], labels=labels, subject="A")
    row = only_row(ingest(tmp_path / "to"))
    assert row.status == "doubtful" and {f.kind for f in row.findings} & {"elsewhere", "mirrored"}


@pytest.mark.parametrize("pair", [("t1n", "t1c"), ("t2w", "t2f"), ("t1c", "t2f"), ("t1n", "t2w")])
def test_exchanged_modalities_are_refused(tmp_path, phantoms, pair):
    images = find_case(phantoms[0])
    one, other = pair
    images[one], images[other] = images[other], images[one]
    send(tmp_path / "to", phantoms[0], images=images, labels=corrected(phantoms[0], tmp_path), subject="A")
    row = only_row(ingest(tmp_path / "to"))
    assert row.status == "doubtful" and "modalities" in {finding.kind for finding in row.findings}


def spoil_file(place):
    data = bytearray((place / "seg.nii.gz").read_bytes())
    data[-20] ^= 1
    (place / "seg.nii.gz").write_bytes(data)


def lose_file(place):
    (place / "t2w.nii.gz").unlink()


def add_file(place):
    (place / "IM0001.dcm").write_bytes(b"DICM")


def edit_record(place, **changes):
    values = json.loads((place / "case.json").read_text())
    (place / "case.json").write_text(json.dumps({**values, **changes}))


def replace_file(place, name, data):
    """With a hash that is right: somebody wrote the submission so."""
    (place / name).write_bytes(data)
    values = json.loads((place / "case.json").read_text())
    for file in [*values["images"].values(), values["segmentation"], values["proposal"]]:
        if file["file"] == name:
            file["sha256"] = hashlib.sha256(data).hexdigest()
    (place / "case.json").write_text(json.dumps(values))


def name_in_header(place):
    image = nib.load(place / "t1c.nii.gz")
    image.header["descrip"] = b"ERIKA"
    replace_file(place, "t1c.nii.gz", gzip.compress(image.to_bytes(), mtime=0))


def name_in_gzip(place):
    data = gzip.decompress((place / "t1c.nii.gz").read_bytes())
    replace_file(place, "t1c.nii.gz", gzip.compress(data, mtime=1_600_000_000))


def value_4(place):
    image = nib.load(place / "seg.nii.gz")
    voxels = np.where(np.asarray(image.dataobj) == 3, 4, np.asarray(image.dataobj)).astype(np.uint8)
    replace_file(place, "seg.nii.gz", gzip.compress(nib.Nifti1Image(voxels, image.affine).to_bytes(), mtime=0))


def other_grid(place):
    image = nib.load(place / "seg.nii.gz")
    moved = nib.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([1, 1, 1.01, 1]))
    replace_file(place, "seg.nii.gz", gzip.compress(moved.to_bytes(), mtime=0))


FAULTS = {
    "changed": spoil_file,
    "file": lose_file,
    "identifying a file": add_file,
    "identifying a header": name_in_header,
    "identifying a time": name_in_gzip,
    "identifying a date": lambda place: edit_record(place, role="seen on 12.3.2021"),
    "label values": value_4,
    "file grid": other_grid,
    "consent": lambda place: edit_record(place, deidentified=False),
    "record": lambda place: (place / "case.json").write_text('{"schema": 1'),
    "record key": lambda place: edit_record(place, name="ERIKA"),
    "record path": lambda place: edit_record(place, segmentation={"file": "../seg.nii.gz", "sha256": "0" * 64}),
    "record counts": lambda place: edit_record(
        place, changes={"ED": {"added": 1, "removed": 0, "ml_before": 0.0, "ml": 0.0}}
    ),
    "record schema": lambda place: edit_record(place, schema=2),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_submission_that_is_wrong_is_refused_and_no_reason_helps(tmp_path, phantoms, fault):
    place = send(tmp_path / "to", phantoms[0], labels=corrected(phantoms[0], tmp_path), subject="A")
    FAULTS[fault](place)
    row = only_row(ingest(tmp_path / "to"))
    kinds = {finding.kind for finding in row.findings}
    assert row.status == "refused" and any(fault.startswith(kind) for kind in kinds), row.findings
    assert only_row(ingest(tmp_path / "to", accept={place.name: "it will do"})).status == "refused"


def test_one_examination_under_two_patients_is_refused(tmp_path, phantoms):
    send_under_two_patients(tmp_path / "to", phantoms[0], tmp_path)
    result = ingest(tmp_path / "to")
    assert sorted(row.status for row in result.rows) in (["refused", "train"], ["refused", "validation"])
    (refused,) = (row for row in result.rows if row.status == "refused")
    assert "same image" in {finding.kind for finding in refused.findings}


@pytest.mark.parametrize("earlier", (0, 1))
def test_the_later_of_two_with_one_image_is_refused_until_the_other_is_withdrawn(tmp_path, phantoms, earlier):
    folder = tmp_path / "to"
    both = send_under_two_patients(folder, phantoms[0], tmp_path)
    first, second = both[earlier], both[1 - earlier]
    second.rename(tmp_path / "later")
    place = only_row(ingest(folder)).status
    (tmp_path / "later").rename(second)
    assert {row.name: row.status for row in ingest(folder).rows} == {first.name: place, second.name: "refused"}
    row = only_row(ingest(folder, withdraw=[first.name]))
    assert (row.name, row.status in ("train", "validation")) == (second.name, True)
    assert "same image" not in {finding.kind for finding in row.findings}


def test_a_case_sent_again_as_another_patients_is_refused_and_keeps_its_place(tmp_path, phantoms):
    folder = tmp_path / "to"
    first = send(folder, phantoms[0], labels=corrected(phantoms[0], tmp_path), subject="A")
    place = only_row(ingest(folder)).status
    again = send(folder, phantoms[0], labels=find_label(phantoms[0]), subject="B")
    result = ingest(folder)
    assert {row.name: row.status for row in result.rows} == {first.name: place, again.name: "refused"}
    (refused,) = (row for row in result.rows if row.status == "refused")
    assert "other subject" in {finding.kind for finding in refused.findings}
    third = send(folder, phantoms[0], labels=corrected(phantoms[0], tmp_path), subject="A")
    assert ingest(folder).names(place) == [third.name]


def test_what_is_doubtful_a_person_may_take_with_a_reason(tmp_path, phantoms):
    place = send(tmp_path / "to", phantoms[0], labels=edited(find_label(phantoms[0]), tmp_path / "m.nii.gz", mirror))
    assert only_row(ingest(tmp_path / "to")).status == "doubtful"
    picture = tmp_path / "to" / "verdicts" / f"{place.name}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="say why"):
        ingest(tmp_path / "to", accept={place.name: " "})
    with pytest.raises(InputError, match="no such submission"):
        ingest(tmp_path / "to", accept={"x-v1": "because"})
    assert only_row(ingest(tmp_path / "to", accept={place.name: "two tumours"})).status == "train"
    assert only_row(ingest(tmp_path / "to")).status == "train"  # and it stays so
    assert not picture.exists()


def touched(place):
    """As a copy or another system's clock leaves it: the same bytes, another time."""
    os.utime(place / "t1c.nii.gz", ns=(10**18, 10**18))


@pytest.fixture
def accepted(tmp_path, phantoms):
    """(folder of corrections, the one submission in it: a doubtful one that a person has accepted)."""
    place = send(tmp_path / "to", phantoms[0], labels=edited(find_label(phantoms[0]), tmp_path / "m.nii.gz", mirror))
    ingest(tmp_path / "to", accept={place.name: "two tumours"})
    return tmp_path / "to", place


def test_what_a_person_accepted_stays_so_when_only_times_change(accepted, monkeypatch):
    folder, place = accepted
    touched(place)
    result = ingest(folder)
    assert only_row(result).status == "train" and result.new == (place.name,)
    with monkeypatch.context() as patch:  # the share is away while it is looked at again
        patch.setattr(verdicts, "examine", mock.Mock(side_effect=OSError(5, "Input/output error", "t1c.nii.gz")))
        os.utime(place / "t1c.nii.gz", ns=(10**18 + 1, 10**18 + 1))
        assert only_row(ingest(folder)).status == "refused"
    assert only_row(ingest(folder)).status == "train"


def test_what_a_person_accepted_is_asked_again_for_another_doubt_or_other_content(accepted, monkeypatch):
    folder, place = accepted
    usual = verdicts.examine

    def doubting(*arguments):
        found = usual(*arguments)
        return replace(found, findings=(*found.findings, Finding(kind="registration", text="one lies elsewhere")))

    with monkeypatch.context() as patch:
        patch.setattr(verdicts, "examine", doubting)
        touched(place)
        assert only_row(ingest(folder)).status == "doubtful"
    ingest(folder, accept={place.name: "looked at that too"})
    edit_record(place, editor_seconds=12.0)
    assert only_row(ingest(folder)).status == "doubtful"


def test_what_is_doubtful_can_be_withdrawn_and_the_version_before_counts_again(tmp_path, phantoms, capsys):
    folder = tmp_path / "to"
    first = send(folder, phantoms[0], labels=corrected(phantoms[0], tmp_path), subject="A")
    second = send(
        folder, phantoms[0], labels=edited(find_label(phantoms[0]), tmp_path / "m.nii.gz", mirror), subject="A"
    )
    assert {row.name: row.status for row in ingest(folder).rows} == {first.name: "train", second.name: "doubtful"}
    with pytest.raises(InputError, match="no such submission"):
        ingest(folder, withdraw=["../identity"])
    assert main(["intake", str(folder), "--withdraw", second.name]) == 0
    assert "1 train, 0 validation, 0 replaced, 0 waiting, 0 doubtful, 0 refused" in capsys.readouterr().out
    assert [path.name for path in (folder / "incoming").iterdir()] == [first.name]
    assert [path.name for path in (folder / "verdicts").iterdir()] == [f"{first.name}.json"]


def test_a_withdrawn_case_whose_files_cannot_be_deleted_is_named(tmp_path, phantoms, monkeypatch):
    """Who takes a consent back must not be told that the images are gone while they are there."""
    folder = tmp_path / "to"
    place = send(folder, phantoms[0], labels=corrected(phantoms[0], tmp_path), subject="A")
    ingest(folder)

    def forbidden(path, ignore_errors=False):
        if not ignore_errors:
            raise PermissionError(13, "Permission denied", str(path / "t1c.nii.gz"))

    with monkeypatch.context() as patch:
        patch.setattr("segmamba.learning.submissions.doubtful.shutil.rmtree", forbidden)
        with pytest.raises(InputError, match=rf"{place.name} is withdrawn, but .*t1c\.nii\.gz: no permission"):
            ingest(folder, withdraw=[place.name])
    assert not ingest(folder).rows and not read_dataset(folder).cases


def test_an_edit_after_intake_takes_the_case_out(tmp_path, phantoms):
    places = [send(tmp_path / "to", case, labels=corrected(case, tmp_path), subject=case.name) for case in phantoms[:2]]
    assert len(read_dataset(ingest(tmp_path / "to") and tmp_path / "to").cases) == 2
    spoil_file(places[0])
    result = ingest(tmp_path / "to")
    assert result.names("refused") == [places[0].name] == list(result.new)
    assert [entry.id for entry in read_dataset(tmp_path / "to").cases] == [read_record(places[1]).case]


def test_unchanged_cases_wait_for_corrected_ones(tmp_path, phantoms):
    folder = tmp_path / "to"
    untouched = send(folder, phantoms[0], subject="A")
    assert only_row(ingest(folder)).status == "waiting"
    assert not (folder / "dataset.json").exists()
    for case in phantoms[1:5]:  # three to train on: then 30 % are one
        send(folder, case, labels=corrected(case, tmp_path), subject=case.name)
    result = ingest(folder)
    statuses = {row.name: row.status for row in result.rows}
    assert statuses[untouched.name] == "train" and "waiting" not in statuses.values()


def test_a_correction_that_a_later_proposal_repeats_stays_in_use(tmp_path, phantoms):
    folder, labels = tmp_path / "to", corrected(phantoms[0], tmp_path)
    first = send(folder, phantoms[0], labels=labels, subject="A")
    second = send(folder, phantoms[0], labels=labels, proposal=labels, subject="A")
    assert {row.name: row.status for row in ingest(folder).rows} == {first.name: "replaced", second.name: "train"}
    assert {row.name: row.status for row in ingest(folder, withdraw=[first.name]).rows} == {second.name: "waiting"}


# --- the place of a case


def test_a_place_never_changes_and_all_cases_of_a_subject_have_the_same(tmp_path, phantoms):
    folder, places = tmp_path / "to", {}
    for number, case in enumerate(phantoms):
        send(folder, case, labels=corrected(case, tmp_path), subject="twice" if number in (1, 4) else case.name)
        ingest(folder)
        dataset = read_dataset(folder)
        now = read_split(dataset).subjects
        assert {subject: now[subject] for subject in places} == places
        places = now
    assert len(places) == 5 and sorted(places.values()).count("validation") == 1
    trained = {entry.subject for entry in training_cases(dataset)}
    assert len(training_cases(dataset)) + len(validation_cases(dataset)) == 6
    assert not trained & {entry.subject for entry in validation_cases(dataset)}


def test_lost_places_are_not_made_anew(tmp_path, phantoms):
    send(tmp_path / "to", phantoms[0], labels=corrected(phantoms[0], tmp_path))
    ingest(tmp_path / "to")
    (tmp_path / "to" / "splits.json").unlink()
    with pytest.raises(InputError, match=r"splits\.json is gone"):
        ingest(tmp_path / "to")


def test_a_folder_that_was_moved_is_still_a_data_set(tmp_path, phantoms):
    send(tmp_path / "to", phantoms[0], labels=corrected(phantoms[0], tmp_path))
    ingest(tmp_path / "to")
    shutil.move(tmp_path / "to", tmp_path / "elsewhere")
    dataset = read_dataset(tmp_path / "elsewhere")
    assert dataset.path(dataset.cases[0].label).is_file()


def test_a_folder_without_submissions(tmp_path):
    with pytest.raises(InputError, match="not a folder of corrections"):
        ingest(tmp_path)
