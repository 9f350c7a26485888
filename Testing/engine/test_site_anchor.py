"""A site's own labelled cases as what its gate judges by: they take the place of phantoms, whole or not at all."""

import shutil

import pytest
from segmamba.cli import main
from segmamba.datasets.manifest import read_dataset
from segmamba.datasets.phantom import make_phantom, save_phantom
from segmamba.files.shares import exclusive
from segmamba.learning.site import Site
from segmamba.learning.site.data import is_of_phantoms, make_phantoms
from site_runs import tree

SPACING = (8, 8, 8)


@pytest.fixture
def own(tmp_path):
    """Two labelled cases, and one without a label map."""
    for name, seed in (("anna", 21), ("bert", 22), ("cleo", 23)):
        folder = tmp_path / "own" / name
        folder.mkdir(parents=True)
        save_phantom(make_phantom(seed, spacing=SPACING, enhancing=True), folder, name)
    (tmp_path / "own" / "cleo" / "cleo-seg.nii.gz").unlink()
    return tmp_path / "own"


@pytest.fixture
def site(tmp_path):
    """A site that has made anchor phantoms already."""
    site = Site(tmp_path / "site")
    make_phantoms(site.anchor, range(3, 5), SPACING)
    return site


def set_anchor(site, cases):
    return main(["anchor", str(site.folder), str(cases), "--labels", "brats2023"])


def test_cases_of_ones_own_take_the_place_of_phantoms(site, own, capsys):
    before = tree(own)
    assert set_anchor(site, own) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 labelled cases judge the new models") and "25 or more" in said
    dataset = read_dataset(site.anchor)
    assert not is_of_phantoms(dataset)
    assert [(case.id, case.label is not None) for case in dataset.cases] == [
        ("anna", True),
        ("bert", True),
        ("cleo", False),
    ]
    assert all(dataset.path(file).is_file() for case in dataset.cases for file in case.images.values())
    assert sorted(path.name for path in site.folder.iterdir()) == ["anchor", "runs"] and tree(own) == before
    make_phantoms(site.anchor, range(3, 5), SPACING)  # as an improvement does: what is there stays
    assert not is_of_phantoms(read_dataset(site.anchor))


def test_cases_of_ones_own_are_not_replaced(site, own, capsys):
    set_anchor(site, own)
    before = tree(site.folder)
    assert set_anchor(site, own) == 1 and "holds 3 cases of your own already" in capsys.readouterr().err
    assert tree(site.folder) == before


@pytest.mark.parametrize("fault", ["no case", "one labelled case"])
def test_what_cannot_judge_leaves_the_phantoms(site, own, capsys, fault):
    shutil.rmtree(own / "anna")
    if fault == "no case":
        for name in ("bert", "cleo"):
            shutil.rmtree(own / name)
    before = tree(site.anchor)
    assert set_anchor(site, own) == 1
    said = capsys.readouterr().err
    assert str(own) in said and (fault == "no case" or "has 1 labelled case(s)" in said)
    assert tree(site.anchor) == before and sorted(p.name for p in site.folder.iterdir()) == ["anchor", "runs"]


def test_while_an_improvement_is_at_work_nothing_changes(site, own, capsys):
    site.runs.mkdir()
    before = tree(site.anchor)
    with exclusive(site.lock):
        assert set_anchor(site, own) == 1
    assert "one improvement at a time" in capsys.readouterr().err and tree(site.anchor) == before
