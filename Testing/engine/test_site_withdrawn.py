"""What stays of a patient in a site once the case was withdrawn: no picture, wherever one was drawn."""

import shutil
from contextlib import nullcontext
from dataclasses import replace

import pytest
from correction_runs import send, small_case
from segmamba.cli import main
from segmamba.datasets.manifest import write_dataset
from segmamba.files.shares import exclusive
from segmamba.learning.site import Site
from segmamba.learning.site.withdrawn import drop_pictures
from segmamba.learning.submissions import doubtful

GONE, OTHER = "0" * 20, "f" * 20


@pytest.fixture
def site(tmp_path):
    """A site in which something was improved, with one submission, its pictures and those of others."""
    site = Site(tmp_path / "site")
    site.runs.mkdir(parents=True)
    site.lock.touch()
    send(site.corrections, small_case(tmp_path / "case"), subject="A")
    return site


def names_of(site):
    return {path.name.split("-v")[0] for path in (site.corrections / "incoming").iterdir()}


def draw(site, *cases):
    """As a gate, the evidence of a model that was taken, and a validation leave pictures behind; -> all of them."""
    places = [site.models / "models" / "new-1" / "gate-{}.png", site.models / "models" / "new-2" / "gate-{}.png"]
    places += [site.run("finetune-0001") / "overlays" / "{}.png", site.corrections / "verdicts" / "{}-v1.png"]
    files = [place.with_name(place.name.format(case)) for place in places for case in cases]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"png")
    return files


def test_pictures_of_withdrawn_cases_go_and_all_others_stay(site):
    (own,) = names_of(site)
    kept = draw(site, own, "BraTS-GLI-00001-000", "progress")
    gone = draw(site, GONE)
    drop_pictures(site)
    assert all(file.exists() for file in kept) and not any(file.exists() for file in gone)


def test_cases_that_judge_keep_their_pictures_whatever_they_are_called(site, phantom_dataset):
    site.anchor.mkdir()
    entry = replace(phantom_dataset.cases[0], id=OTHER)
    write_dataset(replace(phantom_dataset, cases=(entry,), folder=str(site.anchor)))
    kept, gone = draw(site, OTHER), draw(site, GONE)
    drop_pictures(site)
    assert all(file.exists() for file in kept) and not any(file.exists() for file in gone)


def test_while_the_corrections_are_away_nothing_goes(site):
    files = draw(site, *names_of(site))
    shutil.move(site.corrections / "incoming", site.folder / "unplugged")
    drop_pictures(site)
    assert all(file.exists() for file in files)


def test_a_case_that_is_withdrawn_takes_its_pictures_along(site, capsys):
    (own,) = names_of(site)
    files = draw(site, own)
    assert main(["intake", str(site.corrections), "--withdraw", f"{own}-v1"]) == 0
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize("at_work", [False, True])
def test_a_case_that_is_withdrawn_takes_its_prepared_images_along(site, at_work):
    """They stay where a run is at work, which needs them; the next one drops what is of no case."""
    (own,) = names_of(site)
    prepared = site.cache / f"{'a' * 32}.safetensors"
    prepared.parent.mkdir()
    prepared.write_bytes(b"tensors")
    with exclusive(site.lock) if at_work else nullcontext():
        assert main(["intake", str(site.corrections), "--withdraw", f"{own}-v1"]) == 0
    assert prepared.exists() == at_work


def test_a_case_that_is_deleted_in_part_only_leaves_no_prepared_images_either(site, monkeypatch, capsys):
    """As where another program holds a file of the submission open."""
    (own,) = names_of(site)
    prepared, picture = site.cache / f"{'a' * 32}.safetensors", draw(site, own)[0]
    prepared.parent.mkdir()
    prepared.write_bytes(b"tensors")

    def held(path):
        raise PermissionError(13, "held", str(path))

    monkeypatch.setattr(doubtful.shutil, "rmtree", held)
    assert main(["intake", str(site.corrections), "--withdraw", f"{own}-v1"]) == 1
    assert "not all deleted" in capsys.readouterr().err
    assert not prepared.exists() and not picture.exists()


def test_old_data_that_cannot_be_read_do_not_stop_a_withdrawal(site, caplog):
    """Which of the pictures are theirs nobody knows then: all stay."""
    (own,) = names_of(site)
    prepared, picture = site.cache / f"{'a' * 32}.safetensors", draw(site, own)[0]
    for path, text in ((prepared, "tensors"), (site.anchor / "dataset.json", "{")):
        path.parent.mkdir()
        path.write_text(text)
    assert main(["intake", str(site.corrections), "--withdraw", f"{own}-v1"]) == 0
    assert not prepared.exists() and picture.exists()
    assert "pictures of withdrawn cases stay" in caplog.text and "anchor" in caplog.text


def test_a_picture_that_cannot_be_deleted_is_named_and_the_others_go(site, caplog):
    held, *others = draw(site, GONE)
    held.unlink()
    held.mkdir()  # stands for a file that another program holds open
    drop_pictures(site)
    assert not any(file.exists() for file in others)
    assert f"{held}, of a withdrawn case, cannot be deleted" in caplog.text
