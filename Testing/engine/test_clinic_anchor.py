"""The benchmark that asks what patients as anchor cases would have told the gate: scores made up, the real rules."""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import clinic_anchor
import measure


def scores(*cases):
    """Of each case one Dice, that of all regions."""
    values = {f"case{number}": [dice] * 3 for number, dice in enumerate(cases)}
    return {"mean": np.mean(list(values.values()), axis=0).tolist(), "cases": values}


def test_what_patients_as_anchor_would_have_said(tiny_model, tmp_path, monkeypatch, capsys):
    """Of 0.6 and 0.8 the standard error is 0.1, of which 0.05 may be lost at most."""
    work, champion = tmp_path / "work", scores(0.6, 0.8)
    (work / "before" / "others-truths").mkdir(parents=True)
    (work / "before" / "row.json").write_text(json.dumps({"unseen": champion, "others": champion}))
    for case in champion["cases"]:
        label = np.zeros((20, 20, 20), np.uint8)
        label[5:15, 5:15, 5:15], label[8:12, 8:12, 8:12] = 2, 4
        nib.save(nib.Nifti1Image(label, np.diag([2, 2, 2, 1])), work / f"before/others-truths/{case}-seg.nii.gz")
    row = {"order": 0, "damage": "sound", "damaged": 0.0, "sent": 3, "share": 0.5, "unseen": scores(0.7, 0.9)}
    shares = {"1": {"unseen": scores(0.8, 0.9), "others": scores(0.4, 0.6)}}
    for name, found in (
        ("order0", {**row, "others": scores(0.59, 0.79), "shares": shares}),
        ("order0-label-mirrored-1", {"order": 0, "damage": "label mirrored", "damaged": 1.0, "sent": 3}),
    ):
        (work / name / "after3").mkdir(parents=True)
        (work / name / "after3" / "row.json").write_text(json.dumps(found))
    monkeypatch.setattr(sys, "argv", ["clinic_anchor.py", str(tiny_model), "--work", str(work)])
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    clinic_anchor.main()
    rows = json.loads((tmp_path / "results" / "clinic_anchor.json").read_text())["rows"]
    assert [(found["candidate"], found["verdict"]) for found in rows] == [
        ("order 0, 3 sent, share 0.5", "no loss"),
        ("order 0, 3 sent, share 1 tried", "worse"),
    ]
    assert rows[0]["changes"] == pytest.approx([0.1, -0.01]) and "anchor Dice WT" in rows[1]["failed"]
    assert "patients as anchor" in capsys.readouterr().out
    volumes = clinic_anchor.read_volumes(work / "before/others-truths/case0-seg.nii.gz")
    assert volumes == pytest.approx({"WT": 8000, "TC": 64 * 8, "ET": 64 * 8})
