"""Where model packages are: copied whole or not at all, found by folder or by name."""

import pytest
from export_packages import GLIOMA_SPEC, SMALL, package
from segmamba.errors import InputError
from segmamba.models import package as packages
from segmamba.models.package import copy_package, find_model, load_package, read_manifest, shipped_models
from segmamba.networks.segmamba import SegMamba


@pytest.fixture
def folder(tmp_path):
    return package(tmp_path / "models" / "small", SegMamba(SMALL), GLIOMA_SPEC)


@pytest.mark.parametrize("card", ["missing", "a folder"])
def test_a_package_without_a_card_is_not_copied_by_halves(folder, tmp_path, card):
    """It loads; but a copy that broke off after the weights was no package."""
    (folder / "MODEL_CARD.md").unlink()
    if card == "a folder":
        (folder / "MODEL_CARD.md").mkdir()
    load_package(folder)
    with pytest.raises(InputError, match=r"MODEL_CARD.md: (no such file|a folder; expected a file)"):
        copy_package(folder, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_copy_is_the_same_package(folder, tmp_path):
    copy_package(folder, tmp_path / "copy")
    assert load_package(tmp_path / "copy").manifest == load_package(folder).manifest
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {path.name for path in folder.iterdir()}


def test_a_model_is_found_by_folder_or_by_name(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "__file__", str(tmp_path / "Training" / "segmamba" / "models" / "package.py"))
    shipped = tmp_path / "Resources" / "models"
    for name in ("quick", "best"):
        package(shipped / name, SegMamba(SMALL), GLIOMA_SPEC)
    (shipped / "empty").mkdir()
    assert shipped_models() == {"best": shipped / "best", "quick": shipped / "quick"}
    assert find_model("quick") == shipped / "quick"
    assert find_model(str(folder)) == folder
    with pytest.raises(InputError, match=r"no model 'quik': .* nor one of best, quick"):
        find_model("quik")
    with pytest.raises(InputError, match=r"no model 'empty'"):
        find_model("empty")


@pytest.mark.parametrize("find", [find_model, read_manifest, load_package])
def test_a_name_that_no_file_can_have_is_refused(find):
    with pytest.raises(InputError, match=r"(name is too long|no model)"):
        find("m" * 300)


def test_where_no_model_is_shipped(monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "__file__", str(tmp_path / "Training" / "segmamba" / "models" / "package.py"))
    assert shipped_models() == {}
    with pytest.raises(InputError, match=r"nor one of none"):
        find_model("quick")


def test_every_shipped_model_loads():
    models = shipped_models()
    assert "quick" in models
    for name, place in models.items():
        assert load_package(place).manifest.id, name
