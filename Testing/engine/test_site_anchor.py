"""A site's own labelled cases as what its gate judges by: they take the place of what ships, whole or not at all."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from correction_runs import edited, send
from segmamba.cases.case import MODALITIES, find_label
from segmamba.cases.labels import PEDIATRIC
from segmamba.cli import main
from segmamba.datasets.manifest import read_dataset
from segmamba.datasets.phantom import make_phantom, save_phantom
from segmamba.files.shares import exclusive, publish_folder
from segmamba.learning.provenance import shipped_cases
from segmamba.learning.registry import change
from segmamba.learning.site import Site
from segmamba.learning.site import anchor as anchor_module
from segmamba.learning.site.data import copy_shipped
from segmamba.learning.submissions.intake import ingest
from segmamba.models.package import Manifest, save_package
from segmamba.models.specs import InferenceSpec, PreprocessSpec
from segmamba.networks.choice import NetworkChoice, build
from site_runs import shrunk, tree
from training_runs import narrow_network

SPACING = (8, 8, 8)


@pytest.fixture(scope="module")
def three_cases(tmp_path_factory):
    """Two labelled cases, and one without a label map: read, and copied by who writes."""
    root = tmp_path_factory.mktemp("three") / "own"
    for name, seed in (("anna", 21), ("bert", 22), ("cleo", 23)):
        save_phantom(make_phantom(seed, spacing=SPACING, enhancing=True), root / name, name)
    (root / "cleo" / "cleo-seg.nii.gz").unlink()
    return root


@pytest.fixture
def own(three_cases, tmp_path):
    return shutil.copytree(three_cases, tmp_path / "own")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The folder of a site that has the anchor cases that ship: read, and copied by who writes."""
    folder = tmp_path_factory.mktemp("shipped") / "site"
    copy_shipped(Site(folder).anchor)
    return folder


@pytest.fixture
def site(shipped, tmp_path):
    return Site(shutil.copytree(shipped, tmp_path / "site"))


def set_anchor(site, cases):
    return main(["anchor", str(site.folder), str(cases), "--labels", "brats2023"])


def test_cases_of_ones_own_take_the_place_of_those_that_ship(site, own, capsys):
    (site.anchor / "@eaDir" / "SYNO").mkdir(parents=True)  # of a file server: nobody's own
    before = tree(own)
    assert set_anchor(site, own) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 labelled cases judge the new models") and "25 or more" in said
    dataset = read_dataset(site.anchor)
    assert not shipped_cases(dataset)
    assert [(case.id, case.label is not None) for case in dataset.cases] == [
        ("anna", True),
        ("bert", True),
        ("cleo", False),
    ]
    assert all(dataset.path(file).is_file() for case in dataset.cases for file in case.images.values())
    assert sorted(path.name for path in site.folder.iterdir()) == ["anchor", "runs"] and tree(own) == before
    copy_shipped(site.anchor)  # as an improvement does: what is there stays
    assert not shipped_cases(read_dataset(site.anchor))


def test_a_misspelt_site_is_named_and_not_made(own, tmp_path, capsys):
    assert main(["anchor", str(tmp_path / "stie"), str(own), "--labels", "brats2023"]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'stie'} is not a folder; choose the folder of the site\n"
    assert not (tmp_path / "stie").exists()


def test_cases_of_ones_own_are_not_replaced(site, own, capsys):
    set_anchor(site, own)
    before = tree(site.folder)
    assert set_anchor(site, own) == 1 and "holds 3 case(s) of your own already" in capsys.readouterr().err
    assert tree(site.folder) == before


@pytest.mark.parametrize("fault", ["no case", "one labelled case"])
def test_what_cannot_judge_leaves_those_that_ship(site, own, capsys, fault):
    shutil.rmtree(own / "anna")
    if fault == "no case":
        for name in ("bert", "cleo"):
            shutil.rmtree(own / name)
    before = tree(site.anchor)
    assert set_anchor(site, own) == 1
    said = capsys.readouterr().err
    assert str(own) in said and (fault == "no case" or "has 1 labelled case(s) with a tumor" in said)
    assert tree(site.anchor) == before and sorted(p.name for p in site.folder.iterdir()) == ["anchor", "runs"]


def test_while_an_improvement_is_at_work_nothing_changes(site, own, capsys):
    site.runs.mkdir()
    before = tree(site.anchor)
    with exclusive(site.lock):
        assert set_anchor(site, own) == 1
    assert "one improvement at a time" in capsys.readouterr().err and tree(site.anchor) == before


def test_an_empty_folder_that_a_system_has_looked_into_gets_the_cases_that_ship(tmp_path):
    for name in ("anchor", "replay"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".DS_Store").write_bytes(b"of macOS")
        (tmp_path / name / "@eaDir" / "SYNO").mkdir(parents=True)
        (tmp_path / name / "#recycle").mkdir()
        (tmp_path / name / "#recycle" / "letter.txt").write_text("of somebody")
        copy_shipped(tmp_path / name)
        assert shipped_cases(read_dataset(tmp_path / name))
        assert (tmp_path / name / "#recycle" / "letter.txt").read_text() == "of somebody"


# --- nobody's own files are removed


@pytest.mark.parametrize("updated", [False, True])
def test_patients_beside_those_that_ship_are_not_removed(site, own, capsys, updated):
    shutil.copytree(own / "anna", site.anchor / "anna")
    if updated:  # the manifest still says that cases came with the program
        assert main(["dataset", "init", str(site.anchor), "--update", "--jobs", "1"]) == 0
        assert shipped_cases(read_dataset(site.anchor))
    before = tree(site.anchor)
    assert set_anchor(site, own) == 1
    said = capsys.readouterr().err
    assert f"{site.anchor} holds anna" in said and "move" in said
    assert tree(site.anchor) == before


def test_a_manifest_that_names_patients_elsewhere_is_not_replaced(site, own, capsys):
    shutil.copytree(own / "anna", site.anchor / "anna")
    assert main(["dataset", "init", str(site.anchor), "--update", "--jobs", "1"]) == 0
    (site.anchor / "anna").rename(site.folder / "anna")
    before = tree(site.anchor)
    assert set_anchor(site, own) == 1
    assert "holds 1 case(s) of your own already" in capsys.readouterr().err and tree(site.anchor) == before


@pytest.mark.parametrize("inside", [".", "mine", "a link to the site"])
def test_a_set_is_not_made_of_files_that_it_would_replace(site, own, capsys, inside):
    source = site.anchor
    if inside == "mine":
        source = site.anchor / "mine"
        shutil.copytree(own, source)
    elif inside == "a link to the site":
        source = own.with_name("site-link")
        source.symlink_to(site.folder)
    before = tree(site.anchor)
    assert set_anchor(site, source) == 1
    assert str(site.anchor) in capsys.readouterr().err and tree(site.anchor) == before


# --- the old set comes back


@pytest.mark.parametrize("moment", ["before the rename", "after it"])
def test_where_publishing_fails_the_old_cases_come_back(site, own, monkeypatch, moment):
    def failing(aside, target):
        if moment == "after it":
            publish_folder(aside, target)
        raise OSError(5, "Input/output error", str(target))

    before = tree(site.anchor)
    monkeypatch.setattr(anchor_module, "publish_folder", failing)
    with pytest.raises(OSError, match="Input/output"):
        anchor_module.set_anchor(site, own, convention="brats2023")
    assert tree(site.anchor) == before and sorted(p.name for p in site.folder.iterdir()) == ["anchor", "runs"]


def test_a_set_that_another_program_makes_meanwhile_stays(site, own, monkeypatch, capsys):
    def late(aside, target):
        shutil.copytree(own, target)
        return publish_folder(aside, target)

    monkeypatch.setattr(anchor_module, "publish_folder", late)
    assert set_anchor(site, own) == 1
    assert "another program made" in capsys.readouterr().err
    assert sorted(path.name for path in site.anchor.iterdir()) == ["anna", "bert", "cleo"]


def test_a_set_that_a_kill_left_aside_comes_back_first(site, own):
    before = tree(site.anchor)
    site.anchor.rename(site.folder / ".anchor.old")
    shutil.rmtree(own / "anna")
    assert set_anchor(site, own) == 1 and tree(site.anchor) == before


@pytest.mark.parametrize("moment", ["after the new set is there", "at the next start"])
def test_a_set_that_a_kill_left_half_removed_does_not_come_back(site, own, monkeypatch, moment):
    """Else it judged with cases whose files are gone, once the folder of the new set was moved away."""

    def killed(folder, ignore_errors=False):
        removed = next(iter(sorted(folder.rglob("*.nii.gz"))), None)
        if removed is None or removed.is_relative_to(site.folder / ".anchor.new"):
            return
        removed.unlink()
        raise SystemExit

    if moment == "at the next start":
        shutil.copytree(site.anchor, site.folder / ".anchor.old")
    with monkeypatch.context() as patch:
        patch.setattr(anchor_module.shutil, "rmtree", killed)
        with pytest.raises(SystemExit):
            set_anchor(site, own)
    if moment == "after the new set is there":
        assert not shipped_cases(read_dataset(site.anchor))
    shutil.rmtree(site.anchor)  # its owner moves it away, and names a set that cannot judge
    shutil.rmtree(own / "anna")
    assert set_anchor(site, own) == 1
    copy_shipped(site.anchor)  # as the next improvement does
    dataset = read_dataset(site.anchor)
    files = [file for case in dataset.cases for file in (*case.images.values(), case.label)]
    assert len(files) == 25 and all(dataset.path(file).is_file() for file in files)


# --- what cannot judge is refused before anything is replaced


def test_label_maps_without_tumor_do_not_count(site, own, capsys):
    label = find_label(own / "anna")
    image = nib.load(label)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), label)
    before = tree(site.anchor)
    assert set_anchor(site, own) == 1
    assert "has 1 labelled case(s) with a tumor" in capsys.readouterr().err and tree(site.anchor) == before


def test_as_many_as_make_a_guard_are_those_with_a_tumor(site, own, capsys, monkeypatch):
    """As the gate counts them."""
    image = nib.load(find_label(own / "anna"))
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), own / "cleo" / "cleo-seg.nii.gz")
    monkeypatch.setattr("segmamba.learning.gate.rules.ENOUGH", 3)
    assert set_anchor(site, own) == 0
    judge, enough = capsys.readouterr().out.splitlines()
    assert judge.startswith("3 labelled cases") and enough.startswith("2 have a tumor; 3 or more")


def start_model(site, folder, modalities=MODALITIES, **labels):
    channels = 1 + len(labels.get("label_map", "123"))
    config = NetworkChoice(preset="quick").resolve(len(modalities), channels, (48, 48, 48))
    manifest = Manifest(
        id="first",
        network=config,
        preprocess=PreprocessSpec(modalities=modalities, spacing=(4.0, 4.0, 4.0)),
        inference=InferenceSpec(window=(48, 64, 64)),
        **labels,
    )
    save_package(folder, build(config), manifest, "# first\n")
    change.start(site.models, folder)


@pytest.mark.parametrize("what", ["fits", "labels", "modalities"])
def test_what_the_model_in_use_cannot_be_judged_by_is_refused(site, own, tmp_path, capsys, what):
    other = {
        "fits": {},
        "labels": {"label_map": PEDIATRIC.labels, "regions": PEDIATRIC.regions},
        "modalities": {"modalities": (*MODALITIES, "dwi")},
    }[what]
    before = tree(site.anchor)
    with narrow_network():
        start_model(site, tmp_path / "model", **other)
        code = set_anchor(site, own)
    if what == "fits":
        assert code == 0
        return
    said = capsys.readouterr().err
    assert code == 1 and str(own) in said
    assert ("other labels or regions" if what == "labels" else "no dwi, which model first needs") in said
    assert tree(site.anchor) == before


@pytest.mark.parametrize("place", ["corrections", "those that wait for a person", "replay"])
def test_what_is_trained_on_does_not_judge(site, own, tmp_path, capsys, place):
    if place != "replay":
        edit = shrunk if place == "corrections" else lambda voxels: voxels[::-1]
        labels = edited(find_label(own / "bert"), tmp_path / "labels.nii.gz", edit)
        send(site.corrections, own / "bert", labels=labels, subject="patient 1")
        assert ingest(site.corrections).names("train" if place == "corrections" else "doubtful")
    else:
        shutil.copytree(own / "bert", site.replay / "other-name")
        assert main(["dataset", "init", str(site.replay), "--labels", "brats2023", "--jobs", "1"]) == 0
    before = tree(site.anchor)
    assert set_anchor(site, own) == 1
    said = capsys.readouterr().err
    reason = "trained on as" if place == "replay" else "was sent as corrected case"
    assert "case bert of data set anchor" in said and reason in said and tree(site.anchor) == before


def test_corrections_that_nobody_examined_are_examined_first(site, own, tmp_path, capsys):
    """Else one of them could be among the anchor cases, and be trained on by the next improvement."""
    labels = edited(find_label(own / "bert"), tmp_path / "labels.nii.gz", shrunk)
    send(site.corrections, own / "bert", labels=labels, subject="patient 1")
    before = tree(site.folder)
    assert set_anchor(site, own) == 1
    said = capsys.readouterr().err
    assert "1 corrected case(s)" in said and f"`segmamba intake {site.corrections}`" in said
    assert {path for path in tree(site.folder)} - set(before) <= {site.runs.relative_to(site.folder)} | {
        site.lock.relative_to(site.folder)
    }
    assert main(["intake", str(site.corrections)]) == 0
    assert set_anchor(site, own) == 1 and "was sent as corrected case" in capsys.readouterr().err
