"""Names of T1 series, and what they say of contrast agent: a table of names as they are written."""

import sys
from pathlib import Path

import pytest
from segmamba.images.dicom.words import is_unsure, other_kind, weighting
from segmamba.shared.contrast_words import agent_said

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Testing" / "support"))

from series_names import SAID  # noqa: E402


@pytest.mark.parametrize(("name", "said"), SAID, ids=[name for name, _ in SAID])
def test_what_a_name_says(name, said):
    assert agent_said(name) == said
    assert weighting(name) == "t1" or "T1" not in name.upper()


def test_the_table_is_a_large_one():
    assert len({name for name, _ in SAID}) == len(SAID) >= 150


@pytest.mark.parametrize(
    ("name", "kind", "unsure"),
    [
        ("AX T1 GRE +C", "", False),
        ("T1 FL2D HEMO +C", "", False),
        ("AX T2 GRE", "susceptibility", True),
        ("T1 T2* GRE", "susceptibility", False),
        ("T1 POST PERFUSION", "perfusion", True),
        ("T1 +C DYNAMIC", "perfusion", True),
        ("T1 VESSEL WALL +C", "an angiography", True),
        ("T1 ORBITS +C", "another part of the body", True),
        ("T1 SELLA POST GAD", "another part of the body", True),
        ("T1 C-SPINE +C", "another part of the body", False),
        ("T1 NAVIGATION +C", "", False),
        ("T1 STEALTH POST", "", False),
        ("TOF ANGIO T1", "an angiography", False),
        ("T1 SUB", "a subtraction", False),
        ("T1 +C MIP", "a projection", False),
        ("DWI T2", "diffusion", False),
    ],
)
def test_words_of_other_uses(name, kind, unsure):
    assert other_kind(name) == kind
    assert is_unsure(name) is unsure
