"""Where a demonstration writes: over one that was there, and over nothing of anybody else."""

import pytest
from segmamba.cli import main


@pytest.mark.parametrize("foreign", ["case/anna-t1n.nii.gz", "case/notes/a.txt", "demo.png"])
def test_what_no_demonstration_made_is_neither_joined_nor_written_over(tiny_model, tmp_path, capsys, foreign):
    (tmp_path / foreign).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / foreign).write_bytes(b"of somebody else")
    before = sorted(tmp_path.rglob("*"))
    assert main(["demo", "-o", str(tmp_path), "--model", str(tiny_model)]) == 1
    assert "already exists, and no demonstration made it; choose another folder" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / foreign).read_bytes() == b"of somebody else"
