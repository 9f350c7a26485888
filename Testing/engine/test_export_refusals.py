"""What cannot be exported is refused by name, and nothing is left where it would have been."""

import re
import shutil
from dataclasses import replace

import pytest
from export_packages import GLIOMA_SPEC, SMALL, package
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.export.bundle import export_model
from segmamba.models.package import load_package, save_package
from segmamba.networks.segmamba import SegMamba


@pytest.mark.parametrize(
    "text", ["$__import__('os').system('touch sprung')", "@device", "%config", "_target_", "tumour#1", "tumour::1"]
)
@pytest.mark.parametrize("where", ["id", "licence", "modality", "label", "region", "metric"])
def test_a_name_that_would_be_code_or_a_reference_in_a_bundle_is_refused(tmp_path, where, text):
    """MONAI evaluates, looks up or parts such texts wherever they stand in a configuration."""
    changes = {
        "id": {"id": text},
        "licence": {"licence": text},
        "modality": {"preprocess": replace(GLIOMA_SPEC, modalities=("t2w", "t2f", "t1n", text))},
        "label": {"label_map": {text: 1, "ED": 2, "ET": 3}, "regions": {"WT": (text, "ED", "ET")}},
        "region": {"regions": {text: ("NCR", "ED", "ET")}},
        "metric": {"metrics": {"mean": {"WT": {text: 0.5}}}},
    }
    network = SegMamba(SMALL)
    plain = load_package(package(tmp_path / "plain", network, GLIOMA_SPEC)).manifest
    save_package(tmp_path / "m", network, replace(plain, **changes[where]), "")
    with pytest.raises(InputError, match=f"{where} {re.escape(repr(text)[:-1])}.*rename it in model.json"):
        export_model(tmp_path / "m", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, tiny_model, capsys):
    (tmp_path / "keep.txt").write_text("mine")
    assert main(["export", str(tiny_model), "--output", str(tmp_path)]) == 1
    assert "already exists" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]


@pytest.mark.parametrize("output", ["", ".", "..", "new/..", "link", "dangling", "m" * 300])
def test_an_output_that_can_be_no_new_folder_is_refused_by_name(tmp_path, tiny_model, monkeypatch, capsys, output):
    work = tmp_path / "work"
    for folder in (work, tmp_path / "empty"):
        folder.mkdir()
    monkeypatch.chdir(work)
    if output == "link":
        (work / output).symlink_to(tmp_path / "empty", target_is_directory=True)
    elif output == "dangling":
        (work / output).symlink_to(tmp_path / "nowhere", target_is_directory=True)
    before = sorted(tmp_path.rglob("*"))
    message = {"l": "is a link", "d": "is a link", "m": "too long"}.get(output[:1], "names no new folder")
    with pytest.raises(InputError, match=message):
        export_model(tiny_model, output)
    if output:  # an empty text no command takes
        assert main(["export", str(tiny_model), "--output", output]) == 1
        assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_filled(tmp_path, tiny_model):
    (tmp_path / "new").mkdir()
    assert (export_model(tiny_model, tmp_path / "new") / "configs" / "inference.json").is_file()


def test_a_broken_package_leaves_nothing_behind(tmp_path, tiny_model):
    broken = shutil.copytree(tiny_model, tmp_path / "in" / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="sha256"):
        export_model(broken, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_unknown_format_is_refused_by_name(tmp_path, tiny_model):
    with pytest.raises(InputError, match=r"onnx.*monai-bundle"):
        export_model(tiny_model, tmp_path / "out", "onnx")
