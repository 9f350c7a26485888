"""One odd thing among sound ones: it is refused with its reason, and the others go their way. A table a kind."""

import gzip
import json
import os
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from correction_runs import send, small_case
from image_files import AFFINE, noise, write
from mutations import NIFTI_FIELDS
from segmamba import limits, settings
from segmamba.cases.case import find_case, find_label
from segmamba.cases.case_folder import holds_results_only
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.files.atomic import aside, check_output_file, check_output_folder, sweep, write_aside
from segmamba.files.shares import exclusive, is_held, work_folder
from segmamba.images.image_io import read_image
from segmamba.images.sources import read_source
from segmamba.learning.submissions.headers import find_hidden
from segmamba.learning.submissions.intake import ingest
from segmamba.learning.submissions.record import ROLES, strange_words

posix = pytest.mark.skipif(os.name != "posix", reason="pipes, modes and links as POSIX has them")


# ---------------------------------------------------------------- 9: one odd submission


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


def respoil(place, name, change):
    """A file of a submission with its unpacked bytes changed, and case.json told of it."""
    import hashlib

    packed = change(bytearray(gzip.decompress((place / name).read_bytes())))
    packed = packed if isinstance(packed, bytes) else gzip.compress(bytes(packed), mtime=0)
    (place / name).write_bytes(packed)
    values = json.loads((place / "case.json").read_text())
    files = [*values["images"].values(), values["segmentation"], values["proposal"]]
    next(file for file in files if file["file"] == name)["sha256"] = hashlib.sha256(packed).hexdigest()
    (place / "case.json").write_text(json.dumps(values))


def put(data, field, value):
    offset, form = NIFTI_FIELDS[field]
    struct.pack_into(f"<{form}", data, offset, value)
    return data


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


# ---------------------------------------------------------------- 10, 11, 15, 16: one odd image


def nifti(field, value, name="a.nii"):
    def make(folder):
        data = bytearray(nib.load(write(folder / "sound.nii", noise(0))).to_bytes())
        path = folder / name
        path.write_bytes(bytes(put(data, field, value)))
        return path

    return make


def meta(**fields):
    def make(folder):
        values = {"ObjectType": "Image", "NDims": "3", "DimSize": "4 4 4", "ElementType": "MET_SHORT"}
        values |= {**fields, "ElementDataFile": fields.get("ElementDataFile", "LOCAL")}
        text = "".join(f"{name} = {value}\n" for name, value in values.items())
        path = folder / "a.mha"
        path.write_bytes(text.encode() + bytes(128))
        return path

    return make


def fifo(name):
    def make(folder):
        os.mkfifo(folder / name)
        return folder / name

    return make


def bomb(folder):
    path = folder / "a.nii.gz"
    path.write_bytes(gzip.compress(nib.load(write(folder / "sound.nii", noise(0))).to_bytes() + bytes(1 << 27), 1))
    return path


def spaced(mm):
    return lambda folder: write(folder / "a.nii.gz", noise(0), np.diag([mm, 1, 1, 1]))


def plain(name, data=b"x"):
    def make(folder):
        (folder / name).write_bytes(data)
        return folder / name

    return make


ODD_IMAGES = {
    "unit 72": (nifti("xyzt_units", 72), "unit of no meaning"),
    "dim -1": (nifti("dim1", -1), "damaged|voxels"),
    "vox_offset inf": (nifti("vox_offset", float("inf")), "damaged"),
    "vox_offset nan": (nifti("vox_offset", float("nan")), "damaged"),
    "datatype": (nifti("datatype", 9999), "damaged"),
    "a header of a pair": (nifti("magic", 0x0031696E), "of a pair"),
    "claims": (nifti("dim1", 32767), "damaged|declares"),
    "a bomb": (bomb, "holds more than"),
    "500 mm": (spaced(500), "other units"),
    "1e-6 mm": (spaced(1e-6), "singular|other units"),
    "100 dimensions": (meta(NDims="100", DimSize=" ".join(["2"] * 100)), "NDims"),
    "40000 dimensions": (meta(NDims="40000"), "NDims"),
    "-1 dimensions": (meta(NDims="-1"), "NDims"),
    "claims of MetaImage": (meta(DimSize="99999 99999 99999"), "declares"),
    "data elsewhere": (meta(ElementDataFile="/dev/zero"), "beside it"),
    "few data": (meta(DimSize="400 400 400"), "bytes of data"),
    "a pipe": (fifo("a.nii.gz"), "a pipe, a device or a socket"),
    "a pipe of ITK": (fifo("a.nrrd"), "a pipe, a device or a socket"),
    "img": (plain("a.img"), "a pair"),
    "DICOMDIR": (plain("DICOMDIR", bytes(128) + b"DICM"), "a DICOM file; give the folder"),
    "no gzip": (plain("a.nii.gz", nib.Nifti1Image(noise(0), AFFINE).to_bytes()), "is it .*a.nii"),
    "gzip without its name": (plain("a.nii", gzip.compress(bytes(400))), "rename it"),
}


@posix
@pytest.mark.parametrize("name", ODD_IMAGES)
def test_an_odd_image_is_refused_by_name(tmp_path, name):
    make, text = ODD_IMAGES[name]
    path = make(tmp_path)
    with pytest.raises(InputError, match=text) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


@posix
def test_a_pipe_in_a_folder_of_slices_is_passed_by(tmp_path):
    pytest.importorskip("pydicom")
    from image_files import write_dicom

    folder = write_dicom(tmp_path / "series", noise(1), AFFINE)
    os.mkfifo(folder / "000.dcm")
    assert read_source(folder).array.shape == noise(1).shape


@pytest.mark.parametrize(("noise_mm", "same"), [(5e-6, True), (5e-3, True), (0.05, False)])
def test_what_headers_are_rounded_to_makes_no_other_grid(tmp_path, noise_mm, same):
    from segmamba.cases.case import load_case

    moved = AFFINE.copy()
    moved[0, 3] += noise_mm
    files = {"t1c": write(tmp_path / "a.nii.gz", noise(1)), "t2f": write(tmp_path / "b.nii.gz", noise(2), moved)}
    if same:
        assert load_case(files, modalities=tuple(files)).shape == noise(1).shape
    else:
        with pytest.raises(InputError, match="not on one grid"):
            load_case(files, modalities=tuple(files))


@pytest.mark.parametrize("name", ["meta", "xla", "cuda:x", "", "CPU", "cpu; rm", "cuda:999", "fpga"])
def test_devices_are_those_of_a_list(name):
    from segmamba.prediction.devices import choose_device

    with pytest.raises(InputError, match="device"):
        choose_device(name)


# ---------------------------------------------------------------- 12: own results beside the inputs


def test_own_results_are_no_images_and_no_truth(tmp_path):
    case = small_case(tmp_path / "case")
    before = find_case(case)
    for name in ("case-seg-t2f.nii.gz", "case-uncertainty.nii.gz", "case-probabilities.nii.gz", "case-seg.nii.gz"):
        write(case / name, np.zeros((9, 11, 7), np.uint8))
    files = {"label_map": "case-seg.nii.gz", "uncertainty": "case-uncertainty.nii.gz"}
    (case / "case-summary.json").write_text(json.dumps({"files": files}))
    assert find_case(case) == before and find_label(case).name == "x-seg.nii.gz"
    results = tmp_path / "results"
    results.mkdir()
    write(results / "a-seg.nii.gz", np.zeros((9, 11, 7), np.uint8))
    assert not holds_results_only(results)  # nobody says that it is one
    (results / "a-summary.json").write_text(json.dumps({"files": {"label_map": "a-seg.nii.gz"}}))
    assert holds_results_only(results) and not holds_results_only(case)


# ---------------------------------------------------------------- 13: one line, exit code 1

NOT_A_FOLDER = "{file}/below"
COMMANDS = {
    "predict": ["predict", "{case}", "--output", NOT_A_FOLDER],
    "predict long": ["predict", "{case}", "--output", "{tmp}/" + "x" * 300],
    "predict null": ["predict", "{case}", "--output", "{tmp}/a\0b"],
    "predict null case": ["predict", "a\0b", "--output", "{tmp}/o"],
    "predict a folder as a file": ["predict", "{case}", "--output", "{folder}/x.nii.gz/y.nii.gz"],
    "look null": ["look", "a\0b"],
    "evaluate": ["evaluate", "{case}", "{case}", "--csv", "{tmp}"],
    "export": ["export", "quick", "--output", NOT_A_FOLDER],
    "import": ["import", "{file}", "--output", NOT_A_FOLDER],
    "phantom": ["phantom", "--output", "{file}"],
    "intake": ["intake", "{case}", "--output", NOT_A_FOLDER],
    "intake null": ["intake", "a\0b"],
    "dataset init": ["dataset", "init", "{case}", "--output", NOT_A_FOLDER],
    "dataset summary": ["dataset", "summary", "a\0b"],
    "models": ["models", NOT_A_FOLDER, "start", "quick"],
    "models list": ["models", "a\0b"],
    "status": ["status", "{file}"],
    "improve": ["improve", NOT_A_FOLDER],
    "report": ["report", "a\0b"],
    "train": ["train", "{tmp}/" + "x" * 300],
    "dicom": ["dicom", "{file}"],
    "correct": ["correct", "{case}", "--labels", "{case}/x-seg.nii.gz", "--consent", "--output", NOT_A_FOLDER],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_user_can_cause_is_one_line(tmp_path, capsys, name):
    case, file, folder = small_case(tmp_path / "case"), tmp_path / "file", tmp_path / "folder"
    file.write_text("x")
    (folder / "x.nii.gz").mkdir(parents=True)
    places = {"case": case, "file": file, "tmp": tmp_path, "folder": folder}
    line = [text.format(**{key: str(value) for key, value in places.items()}) for text in COMMANDS[name]]
    assert main(line) == 1
    said = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(said) == 1 and "Traceback" not in said[0] and "unforeseen" not in said[0], said


@pytest.mark.parametrize(
    ("check", "name"), [(check_output_folder, "file/x"), (check_output_file, "x" * 300), (check_output_folder, "a\0b")]
)
def test_outputs_are_looked_at_beforehand(tmp_path, check, name):
    (tmp_path / "file").touch()
    with pytest.raises(InputError):
        check(tmp_path / name)
    check_output_folder(tmp_path / "new" / "er")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]  # nothing is made by looking


# ---------------------------------------------------------------- 14: the reader


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "9" * 5000, '{"a": ' * 40 + "1" + "}" * 40, "1" * 30, '"\\u0000"', '"\\ud800"', "", "{,}", "nul"],
)
def test_json_that_is_none_of_ours(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json"):
        settings.read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="here"):
        settings.parse_toml(f"a = {text}", "here")


# ---------------------------------------------------------------- 17: privacy of submissions


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


# ---------------------------------------------------------------- 18: leftovers


@posix
def test_leftovers_go_by_age_and_owner_and_use(tmp_path, monkeypatch):
    old, new, other = aside(tmp_path / "a.json"), aside(tmp_path / "a.nii.gz", ".nii.gz"), tmp_path / "mine.tmp"
    for path in (old, new, other):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 2 * limits.LEFTOVER_SECONDS,) * 2)
    os.utime(other, (time.time() - 2 * limits.LEFTOVER_SECONDS,) * 2)
    sweep(tmp_path)
    assert not old.exists() and new.exists() and other.exists()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with work_folder("segmamba-dicom-") as first:
        with work_folder("segmamba-dicom-") as second:
            assert first.is_dir() and second.is_dir() and stat.S_IMODE(second.stat().st_mode) == 0o700
        assert not second.exists() and first.is_dir()
    assert not first.exists()


@posix
def test_images_of_a_killed_run_go_with_the_next(tmp_path, monkeypatch):
    code = (
        "import os, signal\nfrom segmamba.files.shares import work_folder\n"
        "with work_folder('segmamba-dicom-') as f:\n"
        "    (f / 't1n.nii').write_bytes(b'patient')\n    print(f, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    left = Path(result.stdout.strip())
    assert (left / "t1n.nii").is_file()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with work_folder("segmamba-dicom-"):
        assert not left.exists()


@posix
def test_the_salt_is_private_and_cells_are_no_formulas(tmp_path):
    from segmamba.evaluation.score_tables import format_csv

    folder = tmp_path / "to"
    folder.mkdir(mode=0o755)
    send(folder, small_case(tmp_path / "case"))
    assert stat.S_IMODE((folder / "identity" / "identity.json").stat().st_mode) == 0o600
    cases = {name: {"dice": {"WT": 1.0}} for name in ("=1+1", "+x", "-x", "@x", "a=b")}
    lines = format_csv({"cases": cases}).splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["'=1+1", "'+x", "'-x", "'@x", "a=b"]


# ---------------------------------------------------------------- 19: folders of a group, and one at a time


@posix
def test_a_group_s_folder_stays_the_group_s(tmp_path):
    folder = tmp_path / "to"
    folder.mkdir()
    folder.chmod(0o2775)
    before = os.umask(0o022)
    try:
        send(folder, small_case(tmp_path / "case"))
        ingest(folder)
        write_aside(folder / "x.json", b"{}")
    finally:
        os.umask(before)
    for path in folder.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & stat.S_IWGRP, path
        if path.name == "identity.json":
            assert not mode & stat.S_IROTH
    private = tmp_path / "own"
    private.mkdir(mode=0o755)
    write_aside(private / "x.json", b"{}")
    assert not (private / "x.json").stat().st_mode & stat.S_IWGRP


def test_a_second_one_in_one_folder_is_refused(tmp_path, capsys):
    from segmamba.commands.phantom import _LOCK
    from segmamba.training.distributed import World
    from segmamba.training.run_folder import LOCK as TRAIN_LOCK
    from segmamba.training.run_folder import alone

    with exclusive(tmp_path / _LOCK):
        assert is_held(tmp_path / _LOCK) and main(["phantom", "--output", str(tmp_path)]) == 1
    assert "another program is at work" in capsys.readouterr().err
    world = World(device="cpu")
    with alone(tmp_path / "run", world, "never"):
        assert is_held(tmp_path / "run" / TRAIN_LOCK)
        with pytest.raises(InputError, match="another program"), alone(tmp_path / "run", world, "auto"):
            pass
