"""Files of somebody else where a follow-up's would go, and what a follow-up that broke off leaves there."""

import json
from pathlib import Path

import pytest
from segmamba.cli import main
from segmamba.commands.follow import RECORD


@pytest.mark.parametrize("name", ["report.pdf", "report.html", "follow-up.csv"])
def test_a_report_of_something_else_is_not_written_over(phantom_cases, tmp_path, capsys, name):
    (tmp_path / name).write_bytes(b"of a hospital")
    case = str(phantom_cases / "phantom-0")
    assert main(["follow", case, case, "--dates", "0", "30", "-o", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert f"{tmp_path / name}: already exists, and is not known to be a follow-up of these images" in told
    assert "registering" not in told  # before the work
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b"of a hospital"}


def test_a_first_run_that_broke_off_while_it_wrote_can_go_on(phantom_cases, tmp_path, monkeypatch, capsys):
    replace = Path.replace

    def interrupted(source, target):
        if Path(target).name == "report.html":
            raise KeyboardInterrupt
        return replace(source, target)

    def run(number):
        case = str(phantom_cases / f"phantom-{number}")
        return main(["follow", case, case, "--dates", "0", "30", "-o", str(tmp_path)])

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        assert run(0) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["follow-up.csv", RECORD]
    assert json.loads((tmp_path / RECORD).read_text())["unfinished"]
    assert run(1) == 1 and "is a follow-up of other images" in capsys.readouterr().err
    assert run(0) == 0
    assert "unfinished" not in json.loads((tmp_path / RECORD).read_text())
