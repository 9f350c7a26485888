"""What a shell does to a command: streams that are closed, that nobody reads, of another encoding; and Ctrl-C."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="redirections as POSIX has them")


def shell(line, *arguments, **environment):
    """A command in a shell, in which "$@" is `segmamba` with these arguments."""
    words = [sys.executable, "-m", "segmamba", *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(["sh", "-c", line, "sh", *words], capture_output=True, text=True, env=environment)


@pytest.fixture
def batch(phantom_cases, tiny_model, tmp_path):
    """Arguments of a batch of one case, whose name no code page of Western Europe can say."""
    shutil.copytree(phantom_cases / "phantom-0", tmp_path / "cases" / "Łukasz")
    return ["predict", "--batch", tmp_path / "cases", "-o", tmp_path / "out", "--model", tiny_model]


def test_a_batch_goes_on_where_nobody_reads_its_progress(batch):
    done = shell('{ { "$@"; echo "ended with $?" >&4; } 2>&1 >&3 | true; } 3>&1 4>&2', *batch, "--json")
    assert done.stderr == "ended with 0\n" and json.loads(done.stdout)[0]["status"] == "done"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_reason_to_fail(batch, closed):
    done = shell(f'"$@" {closed}', *batch, "--json")
    assert done.returncode == 0 and ("2>&-" not in closed or done.stderr == "")
    assert ">&-" in closed.split() or json.loads(done.stdout)
    failed = shell(f'"$@" {closed}', "measure", "nowhere.nii.gz")
    assert failed.returncode == 1 and "unforeseen" not in failed.stderr


def test_a_name_that_the_code_page_cannot_say_does_not_lose_the_table(batch):
    done = shell('"$@"', *batch, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert "\\u0141ukasz  done" in done.stdout and "1 done, 0 skipped, 0 failed" in done.stdout


def test_ctrl_c_ends_the_loop_of_a_shell_too(batch):
    """A shell goes on with the next case after an exit code, whatever it is; not after one that died of SIGINT."""
    line = [sys.executable, "-m", "segmamba", *map(str, batch)]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline() == "Łukasz read\n"
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGINT
    assert said.endswith("interrupted\n") and "Traceback" not in said
