"""Corrections under fire: writers and intakes killed at random moments, two writers at once, on one folder."""

import os
import random
import time
from importlib.util import find_spec

import pytest
from correction_runs import kill_at_work, send, send_for_ever, send_times, small_case
from processes import PRELOADED, SERVER, in_process, kill
from segmamba.errors import InputError
from segmamba.files.digest import hash_file
from segmamba.files.shares import exclusive
from segmamba.learning.submissions.intake import ingest
from segmamba.learning.submissions.record import FOLDER, UNFINISHED, read_record

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")


def check_whole(incoming):
    """Every submission under its final name is whole; returns their versions."""
    versions = []
    for place in incoming.iterdir():
        if UNFINISHED.fullmatch(place.name):
            continue
        assert FOLDER.fullmatch(place.name)
        record = read_record(place)
        assert all(hash_file(place / file.file) == file.sha256 for file in record.files)
        versions.append(record.version)
    return sorted(versions)


def test_a_writer_killed_at_random_moments_leaves_whole_submissions_only(tmp_path):
    case, folder, rng = small_case(tmp_path / "case"), tmp_path / "to", random.Random(3)
    began = time.monotonic()
    send(folder, case)
    needed = time.monotonic() - began
    broken: list = []
    for killed in range(100):
        if killed >= 12 and broken:
            break
        process = in_process(send_for_ever, folder, case, tmp_path / "sign")
        kill_at_work(process, tmp_path / "sign", rng.uniform(0, 2 * needed))
        broken = [place for place in (folder / "incoming").iterdir() if UNFINISHED.fullmatch(place.name)]
    assert broken, "no kill hit a submission that was being written"
    versions = check_whole(folder / "incoming")
    assert len(versions) > 12 and versions == list(range(1, len(versions) + 1))
    result = ingest(folder)  # the images are noise, so nothing is accepted: but nothing broken is looked at
    assert len(result.rows) == len(versions) and len(result.unfinished) == len(broken)


@pytest.fixture
def doubtful(tmp_path):
    """(folder of corrections, the one submission in it, which was examined: its images are noise)."""
    place = send(tmp_path / "to", small_case(tmp_path / "case"))
    assert ingest(tmp_path / "to").names("doubtful") == [place.name]
    return tmp_path / "to", place


def test_a_picture_that_a_viewer_holds_stops_no_intake_and_keeps_no_withdrawn_image(doubtful):
    folder, place = doubtful
    held = folder / "verdicts" / f"{place.name}.png"
    held.unlink()
    held.mkdir()  # stands for a file that another program holds open
    assert not ingest(folder, accept={place.name: "looked at"}).names("doubtful")
    with pytest.raises(InputError, match=rf"{place.name} is withdrawn, but .*: remove {held}, and run the intake"):
        ingest(folder, withdraw=[place.name])
    assert not list((folder / "incoming").iterdir())
    assert list((folder / "verdicts").iterdir()) == [held]
    assert not ingest(folder).rows


def test_images_that_a_withdrawal_left_behind_are_swept_by_a_later_intake(doubtful, monkeypatch):
    folder, place = doubtful

    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path / "t1c.nii.gz"))

    with monkeypatch.context() as patch:
        patch.setattr("segmamba.learning.submissions.doubtful.shutil.rmtree", forbidden)
        with pytest.raises(InputError, match=r"is withdrawn, but .*: remove \S+\.tmp, and"):
            ingest(folder, withdraw=[place.name])
    (left,) = (folder / "incoming").iterdir()
    assert not list((folder / "verdicts").iterdir())
    for path in (left, *left.iterdir()):
        os.utime(path, (1e9, 1e9))
    assert ingest(folder).unfinished == () and not left.exists()


def strange(folder):
    """What an intake says of files and folders that do not belong into the one submission."""
    (row,) = ingest(folder).rows
    return [finding.text for finding in row.findings if finding.kind == "identifying"]


def test_a_folder_that_a_file_server_makes_is_passed_by_and_any_other_is_refused_while_it_is_there(
    doubtful,
):
    folder, place = doubtful
    for name in ("@eaDir", ".@__thumb", ".AppleDouble"):
        (place / name).mkdir()
        (place / name / "t1c.nii.gz@SynoEAStream").write_bytes(b"of a file server")
    os.utime(place / "case.json", (1e9, 1e9))  # so that it is examined again
    assert strange(folder) == []
    (place / "of a person").mkdir()
    assert strange(folder) == [f"{place.name} holds files that do not belong there: of a person"]
    (place / "of a person").rmdir()
    assert strange(folder) == []
    (place / "#recycle").write_bytes(b"a file of such a name is none of a server's")
    assert strange(folder) == [f"{place.name} holds files that do not belong there: #recycle"]


def test_two_writers_of_one_case_make_versions_without_a_gap(tmp_path):
    case, folder = small_case(tmp_path / "case"), tmp_path / "to"
    both = [in_process(send_times, folder, case, 15) for _ in range(2)]  # they make the salt at once, too
    for process in both:
        process.join(120)
        assert process.exitcode == 0
    assert check_whole(folder / "incoming") == list(range(1, 31))
    assert len({place.name.split("-")[0] for place in (folder / "incoming").iterdir()}) == 1


def test_an_intake_killed_again_and_again_ends_where_another_does(tmp_path):
    folder = tmp_path / "to"
    for seed in range(6):
        send(folder, small_case(tmp_path / f"case{seed}", seed), subject=f"s{seed}")
    rng, killed, process = random.Random(5), 0, None
    for _ in range(60):
        process = in_process(ingest, folder)
        process.join(rng.uniform(0.05, 0.3) if killed < 8 else 120)
        if process.exitcode is not None:
            assert process.exitcode == 0
            if killed >= 8:
                break
        else:
            killed += kill(process)
            for verdict in (folder / "verdicts").glob("*.json") if (folder / "verdicts").exists() else []:
                assert verdict.read_text().endswith("}\n")
    one, other = ingest(folder), ingest(folder, tmp_path / "other")
    assert one.new == () and len(other.new) == 6
    assert [(row.name, row.status) for row in one.rows] == [(row.name, row.status) for row in other.rows]


def test_a_lock_is_given_back_by_a_dead_holder_and_kept_by_a_living_one(tmp_path):
    lock, held = tmp_path / "lock", tmp_path / "held"
    process = in_process(_hold, lock, held)
    until = time.monotonic() + 60
    while not held.exists() and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(InputError, match="another program"), exclusive(lock, wait=0.1):
        pass
    kill(process)
    with exclusive(lock, wait=5):
        pass


def _hold(lock, held):
    with exclusive(lock):
        held.touch()
        time.sleep(600)


def test_processes_start_from_a_server():
    """Otherwise a child would hold the parent's locks. What the server imports is there."""
    assert SERVER.get_start_method() in ("forkserver", "spawn")
    assert all(find_spec(name) for name in PRELOADED)
