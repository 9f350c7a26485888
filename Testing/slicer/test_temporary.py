"""What a Slicer that was killed left in the temporary folder: images of patients, which the next one removes."""

import os
import subprocess
import sys
import time

import pytest
import slicer
from SegMambaSlicerLib.volumes import temporary


@pytest.fixture
def place(scene, tmp_path, monkeypatch):
    """An empty folder as Slicer's temporary one."""
    folder = tmp_path / "Slicer"
    folder.mkdir()
    monkeypatch.setattr(slicer, "app", type("App", (), {"temporaryPath": str(folder)}), raising=False)
    return folder


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left(place, name, hours=2.0):
    """A folder with an image, of some hours ago."""
    folder = place / name
    folder.mkdir()
    (folder / "t1c.nii").write_bytes(b"a patient")
    then = time.time() - 3600 * hours
    os.utime(folder, (then, then))
    return folder


def test_only_what_is_old_and_of_no_process_goes(place, dead):
    goes = left(place, f"SegMamba-{dead}-abc")
    stays = [
        left(place, f"SegMamba-{dead}-new", hours=0.5),
        left(place, f"SegMamba-{os.getppid()}-abc"),
        left(place, f"Other-{dead}-abc"),
    ]
    made = temporary.temporaryFolder()
    assert not goes.exists() and all(path.exists() for path in stays)
    assert made.is_dir() and made.name.startswith(f"SegMamba-{os.getpid()}-")


TASKLIST = """#!/bin/sh
case "$2" in
"PID eq {alive}") echo '"SlicerApp-real.exe","{alive}","Console","1","1.402.132 K"' ;;
*) echo 'INFORMATION: Es werden keine Aufgaben mit den angegebenen Kriterien ausgef\374hrt.' ;;
esac
"""


@pytest.mark.skipif(os.name == "nt", reason="the imitation of tasklist is a shell script")
@pytest.mark.parametrize("isThere", [True, False])
def test_on_windows_tasklist_is_asked(place, dead, tmp_path, monkeypatch, isThere):
    alive = 4711
    if isThere:
        program = tmp_path / "tasklist"
        program.write_text(TASKLIST.format(alive=alive), encoding="utf-8")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin" if isThere else str(tmp_path))
    monkeypatch.setattr(temporary, "_IS_WINDOWS", True)
    gone, stays = left(place, f"SegMamba-{dead}-abc"), left(place, f"SegMamba-{alive}-abc")
    temporary.temporaryFolder()
    assert stays.exists()
    assert gone.exists() != isThere  # where nobody can be asked it stays
