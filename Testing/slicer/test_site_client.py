"""The site folder: its settings, the command lines for here and for a server, and the files of a run."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from SegMambaSlicerLib.errors import InputError
from SegMambaSlicerLib.learning import following, site
from SegMambaSlicerLib.learning.site import Server, Site

NASTY = '/data/it\'s a $(touch hit) `id` "site"; rm -rf ~ & \u00fc'


def server(**changes):
    return Server(**{"host": "anna@gpu1", "python": "'/opt/seg mamba/python' -s", "folder": NASTY, **changes})


def words_in_a_shell(line, home="/home/anna"):
    """What a real shell makes of the line: the words the program would be given."""
    script = f"set -- {line}; for word; do printf '%s\\0' \"$word\"; done"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env={"HOME": home}, check=True)
    return done.stdout.split("\0")[:-1]


def test_commands_for_this_computer_are_those_of_the_engine(tmp_path):
    here = Site(str(tmp_path / "a site"))
    folder = str(tmp_path / "a site")
    assert here.statusCommand() == site.Call(["status", folder, "--json"], None)
    assert here.statusCommand("finetune-0001").arguments == ["status", folder, "--run=finetune-0001", "--json"]
    assert here.improveCommand("retrain", 400).arguments == [
        *("improve", folder, "--way=retrain", "--steps=400", "--detach", "--json")
    ]
    assert here.improveCommand(run="retrain-0002").arguments == [
        *("improve", folder, "--run=retrain-0002", "--detach", "--json")
    ]
    assert here.stopCommand("retrain-0002").arguments == ["improve", folder, "--stop=retrain-0002", "--json"]
    models = str(tmp_path / "a site" / "models")
    assert here.modelsCommand("promote", "m-1").arguments == ["models", models, "promote", "m-1", "--json"]
    assert here.modelsCommand("adopt", "m-1", "-x").arguments == [
        *("models", models, "adopt", "m-1", "--reason=-x", "--json")
    ]
    assert here.modelsCommand("rollback").arguments == ["models", models, "rollback", "--json"]


def test_what_reaches_the_server_is_what_was_meant(tmp_path):
    """A path full of what a shell would take for its own arrives as it is."""
    there = Site(str(tmp_path), "server", server())
    call = there.improveCommand("finetune", 30)
    assert call.program == ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "anna@gpu1"]
    assert len(call.arguments) == 1
    assert words_in_a_shell(call.arguments[0]) == [
        *("/opt/seg mamba/python", "-s", "-m", "segmamba"),
        *("improve", NASTY, "--way=finetune", "--steps=30", "--detach", "--json"),
    ]
    status = there.statusCommand("finetune-0001").arguments[0]
    assert words_in_a_shell(status)[4:] == ["status", NASTY, "--run=finetune-0001", "--json"]
    adopt = there.modelsCommand("adopt", "m-1", 'it\'s "good" $HOME', where="server").arguments[0]
    assert words_in_a_shell(adopt)[4:] == [
        *("models", NASTY + "/models", "adopt", "m-1", '--reason=it\'s "good" $HOME', "--json")
    ]


def test_a_tilde_is_the_home_folder_of_the_server(tmp_path):
    there = Site(str(tmp_path), "server", server(python="~/my env/bin/python", folder="~/the site"))
    assert words_in_a_shell(there.statusCommand().arguments[0], "/home/anna b")[:1] == ["/home/anna b/my"]
    quoted = Site(str(tmp_path), "server", server(python="'~/my env/bin/python'", folder="~/the site"))
    words = words_in_a_shell(quoted.statusCommand().arguments[0], "/home/anna b")
    assert words == [*("/home/anna b/my env/bin/python", "-m", "segmamba", "status", "/home/anna b/the site", "--json")]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"host": ""}, "Enter the name of the server"),
        ({"host": "-oProxyCommand=touch hit"}, "does not begin with a hyphen"),
        ({"host": "gpu1 -oProxyCommand=x"}, "one word"),
        ({"host": "gpu1\nrm"}, "one word"),
        ({"python": "'open"}, "quotation mark"),
        ({"python": " "}, "the command that starts Python"),
        ({"folder": "relative"}, "full path"),
        ({"folder": "/a\nb"}, "full path"),
    ],
)
def test_a_server_that_would_make_another_command_line_is_refused(tmp_path, changes, says):
    there = Site(str(tmp_path), "server", server(**changes))
    assert says in there.workReason
    with pytest.raises(InputError, match=says):
        there.improveCommand()
    there.statusCommand(where="here")  # the models are still there


@pytest.mark.parametrize("name", ["", "-rf", "../elsewhere", "a/b", "a\\b", "a b", ".hidden", "a\nb"])
def test_a_name_that_is_no_name_of_a_run_or_model_is_refused(tmp_path, name):
    here = Site(str(tmp_path))
    for make in (here.stopCommand, here.runFolder, here.modelFolder, lambda n: here.modelsCommand("promote", n)):
        with pytest.raises(InputError):
            make(name)


def test_without_a_site_there_is_a_reason():
    assert "No training folder" in Site().reason
    assert "full path" in Site("relative/folder").reason
    with pytest.raises(InputError, match="No training folder"):
        Site().statusCommand()


def test_the_line_to_run_by_hand_runs(tmp_path, monkeypatch):
    """Typed into a shell here it gets as far as the engine, which is asked only for its help."""
    monkeypatch.setattr(site, "findInterpreter", lambda: type("I", (), {"path": sys.executable}))
    line = Site(str(tmp_path / "my site")).byHand("retrain", 50)
    words = shlex.split(line)
    assert words[-5:] == ["segmamba", "improve", str(tmp_path / "my site"), "--way=retrain", "--steps=50"]
    if os.name != "nt":
        head = line[: line.index(" improve ")]
        done = subprocess.run(["sh", "-c", f"{head} --help"], capture_output=True, text=True, check=True)
        assert "usage: segmamba" in done.stdout
    there = Site(str(tmp_path), "server", server()).byHand()
    assert words_in_a_shell(there)[4:] == ["improve", NASTY, "--way=finetune"]


def test_the_model_in_use_is_what_the_registry_says_at_the_moment(tmp_path):
    here = Site(str(tmp_path / "site"))
    with pytest.raises(InputError, match="cannot be reached"):
        here.championFolder()
    (tmp_path / "site" / "models").mkdir(parents=True)
    assert here.championFolder() is None
    registry = tmp_path / "site" / "models" / "registry.json"
    for name in ("quick-2-aaaa", "finetune-bbbb", "quick-2-aaaa"):
        registry.write_text(json.dumps({"schema": 1, "champion": name}))
        assert here.championFolder() == tmp_path / "site" / "models" / "models" / name
    registry.write_text('{"champion": "../../elsewhere"}')
    with pytest.raises(InputError):
        here.championFolder()
    registry.write_text('{"champion"')
    with pytest.raises(InputError, match="does not say"):
        here.championFolder()


# --- a run's files


def test_a_log_is_read_as_it_grows_and_half_lines_wait(tmp_path):
    path = tmp_path / "log.jsonl"
    reader = following.LogReader(path)
    assert reader.poll() == ([], False)
    whole = b"".join(json.dumps({"kind": "step", "step": n, "text": "\u00fc"}).encode() + b"\n" for n in range(5))
    seen = []
    for end in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:end])
        lines, anew = reader.poll()
        assert not anew
        seen += lines
    path.write_bytes(whole)
    seen += reader.poll()[0]
    assert [line["step"] for line in seen] == [0, 1, 2, 3, 4]
    with path.open("ab") as file:
        file.write(b'\xff\xfe broken\n{"half\n[1]\n{"kind": "event", "text": "after"}\n')
    assert reader.poll()[0] == [[1], {"kind": "event", "text": "after"}]
    path.write_bytes(b'{"step": 9}\n')  # another file of that name
    assert reader.poll() == ([{"step": 9}], True)
    path.unlink()
    assert reader.poll() == ([], True)


def test_a_curve_takes_what_is_sound_and_forgets_what_a_resumed_run_goes_through_again():
    lines = [{"kind": "step", "step": step, "loss": 1 / step} for step in (10, 20, 30, 40)]
    lines += [{"kind": "validation", "step": 40, "mean": {"WT": {"dice": 0.8}, "ET": {"dice": float("nan")}}}]
    lines += [{"kind": "step", "step": 50, "loss": float("inf")}, {"kind": "step", "step": "x", "loss": 1}, None, 3]
    curve = following.Curve.of(lines)
    assert curve.losses == [(10, 0.1), (20, 0.05), (30, 1 / 30), (40, 0.025)]
    assert curve.dice == {"WT": [(40, 0.8)], "ET": []}
    curve.add({"kind": "event", "step": 30, "text": "resumed"})
    assert curve.note == "resumed"
    curve.add({"kind": "step", "step": 30, "loss": 0.5})
    assert curve.losses == [(10, 0.1), (20, 0.05), (30, 0.5)]
    assert curve.dice["WT"] == []
    assert curve.note == ""
    assert following.Curve.of("no list") == following.Curve()


def test_a_run_is_followed_through_its_files(tmp_path):
    run = tmp_path / "finetune-0001"
    follower = following.Follower(run)
    assert not follower.poll()
    assert follower.status is None
    run.mkdir()
    (run / "status.json").write_text('{"schema": 1, "run": "finetune-0001", "state": "preparing"}')
    assert follower.poll()
    assert not follower.poll()
    (run / "status.json").write_text('{"schema": 1, "run"')  # some shares show half a file for a moment
    assert not follower.poll()
    assert follower.status["state"] == "preparing"
    (run / "log.jsonl").write_text('{"kind": "step", "step": 1, "loss": 0.7}\n')
    assert follower.poll()
    assert follower.curve.losses == [(1, 0.7)]
    if os.name != "nt" and os.getuid():
        Path(run).chmod(0)
        with pytest.raises(OSError):
            follower.poll()
        Path(run).chmod(0o755)
