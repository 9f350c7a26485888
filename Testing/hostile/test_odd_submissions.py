"""One odd submission among sound ones, and what images and words may hide: refused or not sent."""

import gzip
import json
import os
import struct

import pytest
from correction_runs import send, small_case
from odd_files import posix, put, respoil
from segmamba import limits
from segmamba.cases.case import find_case
from segmamba.errors import InputError
from segmamba.learning.submissions.headers import find_hidden
from segmamba.learning.submissions.intake import ingest
from segmamba.learning.submissions.record import ROLES, strange_words

# --- one odd submission


def nested(place):
    (place / "case.json").write_text("[" * 100_000)


def endless_number(place):
    (place / "case.json").write_text('{"schema": ' + "9" * 5000 + "}")


def huge_record(place):
    (place / "case.json").write_bytes(b'{"schema": 1, "x": "' + b"x" * (limits.RECORD_BYTES + 1) + b'"}')


def endless_place(place):
    text = (place / "case.json").read_text()
    values = json.loads(text)
    values["geometry"]["affine"][0][3] = float("inf")
    (place / "case.json").write_text(json.dumps(values))


def broken_link(place):
    (place / "case.json").unlink()
    (place / "case.json").symlink_to(place / "nothing")


def pipe(place):
    (place / "t1n.nii.gz").unlink()
    os.mkfifo(place / "t1n.nii.gz")


def odd_unit(place):
    respoil(place, "t1n.nii.gz", lambda data: put(data, "xyzt_units", 72))


ODD_SUBMISSIONS = [nested, endless_number, huge_record, endless_place, broken_link, pipe, odd_unit]


@posix
def test_one_odd_submission_is_refused_and_the_others_are_looked_at(tmp_path):
    folder = tmp_path / "to"
    places = [send(folder, small_case(tmp_path / f"case{k}", k)) for k in range(len(ODD_SUBMISSIONS) + 2)]
    for odd, place in zip(ODD_SUBMISSIONS, places):
        odd(place)
    (folder / "incoming" / f"{'0' * 20}-v1").symlink_to(tmp_path / "nowhere")
    (places[-1] / ".DS_Store").write_bytes(b"x")
    (places[-1] / "._case.json").write_bytes(b"x")
    (places[-1] / "Thumbs.db").write_bytes(b"x")
    for _ in range(2):  # the second time by its verdicts
        rows = {row.name: row for row in ingest(folder).rows}
        assert len(rows) == len(places) + 1
        for odd, place in zip(ODD_SUBMISSIONS, places):
            found = {finding.kind for finding in rows[place.name].findings}
            assert rows[place.name].status == "refused" and found & {"record", "file"}, odd.__name__
        assert rows[f"{'0' * 20}-v1"].status == "refused"
        kinds = [{finding.kind for finding in rows[place.name].findings} for place in places[-2:]]
        assert kinds[0] == kinds[1] and not kinds[0] & {"record", "file", "identifying"}  # noise, and no worse


# --- privacy of submissions


def text_in_data_type(data):
    data[4:14] = b"MUSTERMANN"
    return data


def text_between(data):
    put(data, "vox_offset", 352 + 32)
    data[352:352] = b"MUSTERMANN".ljust(32, b"\0")
    return data


def second_member(data):
    return gzip.compress(bytes(data), mtime=0) + gzip.compress(b"MUSTERMANN", mtime=0)


def extra_field(data):
    packed = bytearray(gzip.compress(bytes(data), mtime=0))
    packed[3] |= 4
    packed[10:10] = struct.pack("<H", 10) + b"MUSTERMANN"
    return bytes(packed)


HIDDEN = {
    "data_type": text_in_data_type,
    "between": text_between,
    "behind": lambda data: data + b"MUSTERMANN",
    "a second member": second_member,
    "behind the compressed": lambda data: gzip.compress(bytes(data), mtime=0) + b"MUSTERMANN",
    "an extra field": extra_field,
    "pixdim": lambda data: put(data, "pixdim6", 1.5e30),
    "dim": lambda data: put(data, "dim6", 19785),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_an_image_hides_is_not_sent(tmp_path, name):
    """It is written anew from its voxels and affine, never copied."""
    case = small_case(tmp_path / "case")
    path = find_case(case)["t1n"].path
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    data = HIDDEN[name](bytearray(data))
    packed = data if bytes(data[:2]) == b"\x1f\x8b" else gzip.compress(bytes(data), mtime=0)
    path.with_name("x-t1n.nii.gz").write_bytes(packed)
    if path.name != "x-t1n.nii.gz":
        path.unlink()
    try:
        place = send(tmp_path / "to", case)
    except InputError as error:  # such a file cannot be read at all
        assert name in ("dim", "pixdim", "behind the compressed") and "t1n" in str(error)
        return
    for file in place.iterdir():
        assert b"MUSTERMANN" not in file.read_bytes()
        if file.name.endswith(".gz"):
            assert find_hidden(file) == [] and b"MUSTERMANN" not in gzip.decompress(file.read_bytes())


@pytest.mark.parametrize("name", HIDDEN)
def test_what_a_file_can_hide_is_refused(tmp_path, name):
    place = send(tmp_path / "to", small_case(tmp_path / "case"))
    assert "identifying" not in {f.kind for f in ingest(tmp_path / "to").rows[0].findings}
    respoil(place, "t1n.nii.gz", HIDDEN[name])
    (row,) = ingest(tmp_path / "to").rows
    assert row.status == "refused" and "identifying" in {finding.kind for finding in row.findings}


@pytest.mark.parametrize(
    "text",
    [
        "Erika Mustermann",
        "registered by Dr Huber",
        "exam of March 3rd",
        "4711308",
        "scanned in Ulm",
        "01/02/88",
        "12 03 57",
        "Room 12b",
    ],
)
def test_words_that_may_be_a_name_a_number_or_a_place(text):
    assert strange_words(text)


@pytest.mark.parametrize(
    "text",
    ["registered to t1c", "skull-stripped", "T2 registered: 17.6 mm away before, aligned after",
     "brain of T1c found, 1432 mL (atlas)",
     "FLAIR is aligned already (within 0.4 mm): left as it is", "the brain mask that was given, 1500 mL",
     "looked at on 182 x 218 x 182 voxels of 1 x 1 x 1 mm, orientation LPS, kept on the grid of T1c"],
)  # fmt: skip
def test_the_words_of_the_trade(text):
    assert not strange_words(text)


def test_roles_are_those_of_a_list():
    assert "radiologist" in ROLES and "radiation oncologist" in ROLES and "huber" not in ROLES
