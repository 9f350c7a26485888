"""What killed programs leave behind, what is private in a folder, a folder of a group, and one program at a time."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from correction_runs import send, small_case
from odd_files import posix
from segmamba import limits
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.files.atomic import aside, sweep, write_aside
from segmamba.files.shares import exclusive, is_held, work_folder
from segmamba.learning.submissions.intake import ingest


@posix
def test_leftovers_go_by_age_and_owner_and_use(tmp_path, monkeypatch):
    old, new = aside(tmp_path / "a.json"), aside(tmp_path / "a.nii.gz", ".nii.gz")
    others = [tmp_path / name for name in ("mine.tmp", ".session.tmp", ".org.editor.AbC123.tmp", ".unsaved.tmp.nii.gz")]
    for path in (old, new, *others):
        path.write_bytes(b"x")
    for path in (old, *others):
        os.utime(path, (time.time() - 2 * limits.LEFTOVER_SECONDS,) * 2)
    sweep(tmp_path)
    assert not old.exists() and new.exists() and all(path.exists() for path in others)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with work_folder("segmamba-dicom-") as first:
        with work_folder("segmamba-dicom-") as second:
            assert first.is_dir() and second.is_dir() and stat.S_IMODE(second.stat().st_mode) == 0o700
        assert not second.exists() and first.is_dir()
    assert not first.exists() and all(path.exists() for path in others)


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
    with alone(tmp_path / "run", world):
        assert is_held(tmp_path / "run" / TRAIN_LOCK)
        with pytest.raises(InputError, match="another program"), alone(tmp_path / "run", world):
            pass
