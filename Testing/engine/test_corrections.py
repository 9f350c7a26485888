"""What is written of a corrected case, how it is hashed, and what is refused before it is written."""

import gzip
import hashlib
import json
import re
from dataclasses import fields
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from correction_runs import edited, grown, send, small_case
from segmamba.cases.case import find_case, find_label
from segmamba.errors import InputError
from segmamba.files.digest import hash_file
from segmamba.learning.submissions.findings import DOUBTFUL, WRONG
from segmamba.learning.submissions.intake import ingest
from segmamba.learning.submissions.record import ROLES, CaseRecord, ModelRecord, read_record
from segmamba.learning.submissions.write import Provenance, proposal_facts, write_case

ENGINE = Path(__file__).resolve().parents[2] / "Training" / "segmamba"
SCHEMA = json.loads((ENGINE / "learning" / "submissions" / "case.schema.json").read_text())


# --- what is written


def test_a_submission_is_what_the_format_says(tmp_path):
    case = small_case(tmp_path / "case")
    labels = edited(find_label(case), tmp_path / "l.nii.gz", grown)
    about = Provenance(model=ModelRecord(id="quick-1"), settings={"mirrorings": 7}, role="radiologist")
    place = send(tmp_path / "to", case, labels=labels, subject=" MUSTER ", about=about)
    said = json.loads((place / "case.json").read_text())
    assert {path.name for path in place.iterdir()} == {
        *(f"{m}.nii.gz" for m in ("t1n", "t1c", "t2w", "t2f")), "seg.nii.gz", "proposal.nii.gz", "case.json",
    }  # fmt: skip
    for file in [*said["images"].values(), said["segmentation"], said["proposal"]]:
        assert hashlib.sha256((place / file["file"]).read_bytes()).hexdigest() == file["sha256"]
    assert place.name == f"{said['case']}-v1" and said["version"] == 1
    # 3 x 4 x 3 voxels of 24 mm3 by one further along X: 12 voxels
    assert said["changes"]["ED"] == {"added": 12, "removed": 0, "ml_before": 0.864, "ml": 1.152}
    assert said["dice"]["WT"] == pytest.approx(2 * 36 / (36 + 48), abs=1e-6)
    assert said["dice"]["ET"] == 1
    stored = nib.load(place / "t1c.nii.gz")
    source = nib.load(find_case(case)["t1c"].path)
    assert np.array_equal(stored.get_fdata(), source.get_fdata())
    assert np.allclose(stored.affine, source.affine)


def test_hashes_are_those_that_format_md_describes(tmp_path):
    """Written down again from FORMAT.md, as the other side does it: Slicer's arrays are (K, J, I)."""
    import hmac

    case = small_case(tmp_path / "case")
    place = send(tmp_path / "to", case, subject=" MUSTER ")
    salt = bytes.fromhex(json.loads((tmp_path / "to" / "identity" / "identity.json").read_text())["salt"])

    def digits(*parts):
        return hmac.new(salt, b"\0".join(part.encode() for part in parts), "sha256").hexdigest()[:20]

    parts = []
    for modality in ("t1c", "t1n", "t2f", "t2w"):
        kji = np.asarray(nib.load(find_case(case)[modality].path).dataobj).T
        shape = " ".join(str(n) for n in kji.shape[::-1])
        voxels = np.ascontiguousarray(kji, "<f4").tobytes()
        parts += [modality, hashlib.sha256(shape.encode() + voxels).hexdigest()]
    record = read_record(place)
    assert record.case == digits("case", *parts)
    assert record.subject == digits("subject", "MUSTER")


def test_the_schema_names_the_fields_that_are_read():
    known = {field.name for field in fields(CaseRecord)}
    assert set(SCHEMA["properties"]) == known
    optional = {f.name for f in fields(CaseRecord) if f.default is not f.default_factory}  # one of them is given
    assert set(SCHEMA["required"]) == known - optional
    table = (ENGINE / "learning" / "submissions" / "FORMAT.md").read_text()
    assert all(f"`{name}`" in table for name in known)
    assert all(kind in table for kind in {**WRONG, **DOUBTFUL})
    assert SCHEMA["properties"]["role"]["enum"] == ["", *ROLES]


def test_a_submission_fits_the_schema(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    place = send(tmp_path / "to", small_case(tmp_path / "case"))
    jsonschema.validate(json.loads((place / "case.json").read_text()), SCHEMA)


def test_nothing_in_any_file_tells_who_the_patient_is(tmp_path):
    """Names, dates and identifiers are put wherever a NIfTI file can carry them, then every byte is searched."""
    secret = ["MUSTERMANN", "19570312", "1.2.840.113619.2.55.3", "Klinik"]
    case = small_case(tmp_path / "MUSTERMANN^ERIKA_19570312")
    for path in case.glob("*.nii.gz"):
        image = nib.load(path)
        image.header["descrip"], image.header["db_name"] = b"MUSTERMANN 19570312", b"Klinik"
        image.header["aux_file"], image.header["intent_name"] = b"1.2.840.113619.2.55.3", b"MUSTERMANN"
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"MUSTERMANN 1.2.840.113619.2.55.3"))
        nib.save(image, path)
    folder = tmp_path / "to"
    send(folder, case, subject="MUSTERMANN^ERIKA 19570312", about=Provenance(role="radiologist"))
    ingest(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        data = path.read_bytes()
        data += gzip.decompress(data) if path.name.endswith(".gz") else b""
        found = [word for word in secret if word.encode() in data or word in str(path.relative_to(tmp_path))]
        assert not found, path
        if path.name.endswith(".gz"):
            assert data[3] == 0 and data[4:8] == b"\0\0\0\0"


def test_without_consent_nothing_is_written(tmp_path):
    case = small_case(tmp_path / "case")
    with pytest.raises(InputError, match="--consent"):
        write_case(tmp_path / "to", find_case(case), find_label(case), None, subject=None, consent=False)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (Provenance(confirmed_empty=("ET", "WT")), "no label WT to confirm as empty; the labels are NCR, ED, ET"),
        (Provenance(editor_seconds=-1.0), "editor seconds -1.0: expected"),
        (Provenance(editor_seconds=float("nan")), "editor seconds nan: expected"),
    ],
)
def test_what_could_mean_nothing_is_refused(tmp_path, about, said):
    with pytest.raises(InputError, match=said):
        send(tmp_path / "to", small_case(tmp_path / "case"), about=about)
    assert not (tmp_path / "to").exists()


def test_a_proposal_that_was_corrected_in_its_place_is_no_proposal(tmp_path):
    """Else the correction would count as the model's own answer, accepted as it was."""
    proposal = find_label(small_case(tmp_path / "case"))
    settings = {"mirrorings": 0, "remove_small_mm3": {}, "weights_sha256": "0" * 64}
    written = {proposal.name: hash_file(proposal)}
    summary = {"model": "m", "settings": settings, "label_maps_sha256": written}
    (tmp_path / "case" / "x-summary.json").write_text(json.dumps(summary))
    assert proposal_facts(proposal)[0].id == "m"
    edited(proposal, proposal, grown)
    with pytest.raises(InputError, match=r"x-seg\.nii\.gz: was changed since m wrote it"):
        proposal_facts(proposal)
    (tmp_path / "case" / "x-summary.json").write_text(json.dumps({"model": "m", "settings": settings}))
    assert proposal_facts(proposal)[0].id == "m"  # of a version that kept no hashes


@pytest.mark.parametrize("subject", ["", " \t"])
def test_a_blank_subject_is_refused(tmp_path, subject):
    """Else all whose identifier a script lost would be one patient, on one side of the split."""
    with pytest.raises(InputError, match="subject is blank"):
        send(tmp_path / "to", small_case(tmp_path / "case"), subject=subject)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("about", "what"),
    [
        (Provenance(role="Dr. A. on 2021-03-12"), "role: a date"),
        (Provenance(preprocessing=("export of 12.03.2021",)), "preprocessing: a date"),
        (Provenance(settings={"series": "1.2.840.113619.2.55.3"}), "settings.series: a DICOM identifier"),
        (Provenance(settings={"file": "/home/erika/x.nii"}), "settings.file: a path"),
        (Provenance(role="MUSTER^ERIKA"), "role: a DICOM name"),
    ],
)
def test_what_would_tell_is_refused_before_it_is_written(tmp_path, about, what):
    case = small_case(tmp_path / "case")
    with pytest.raises(InputError, match=re.escape(what)):
        send(tmp_path / "to", case, about=about)


def test_labels_on_another_grid_are_refused_before_they_are_written(tmp_path):
    case = small_case(tmp_path / "case")
    other = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((9, 11, 7), np.uint8), np.diag([2.0, 3.0, 4.1, 1])), other)
    with pytest.raises(InputError, match="not on one grid"):
        send(tmp_path / "to", case, labels=other)
