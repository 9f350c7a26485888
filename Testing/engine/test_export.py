"""A model as a MONAI bundle: it passes MONAI's own checks, runs without segmamba, and gives segmamba's label maps."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from export_packages import GLIOMA_SPEC, SMALL, package
from segmamba.cases.case import Case, find_case, load_case
from segmamba.cli import main
from segmamba.datasets.phantom import make_phantom, save_phantom
from segmamba.errors import InputError
from segmamba.export.bundle import export_model
from segmamba.export.sources import collect
from segmamba.models.package import load_package, shipped_models
from segmamba.networks.baselines import BaselineConfig, build_baseline
from segmamba.networks.segmamba import SegMamba
from segmamba.prediction.preprocess import preprocess
from segmamba.prediction.segment import segment

SCHEMA = Path(__file__).resolve().parents[1] / "support" / "bundle_metadata_schema.json"

# MONAI's command line, in a Python that has no segmamba and no network
RUN = """
import importlib, importlib.util, pathlib, runpy, socket, sys
sys.modules["segmamba"] = None
def refuse(*_): raise OSError("offline")
socket.socket.connect = refuse
for path in sorted(pathlib.Path("scripts").rglob("*.py")):
    if path.stem in ("triton_conv", "triton_kernels") and importlib.util.find_spec("triton") is None:
        continue  # written with Triton's decorators, and asked for only where it is
    importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
sys.argv = ["monai.bundle", *sys.argv[1:]]
runpy.run_module("monai.bundle", run_name="__main__")
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Of a small network that puts voxels of 5 x 4 x 4 mm into several windows: (bundle, package)."""
    root = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(3)
    spec = replace(GLIOMA_SPEC, margin_mm=9.0, orientation="RIA")
    model = package(root / "model", SegMamba(SMALL), spec, (32, 32, 32))
    return export_model(model, root / "bundle"), model


@contextlib.contextmanager
def opened(folder):
    """The bundle's configuration, read in this process with its `scripts` at hand."""
    from monai.bundle import ConfigParser

    def forget():
        for name in [name for name in sys.modules if name == "scripts" or name.startswith("scripts.")]:
            del sys.modules[name]

    forget()
    sys.path.insert(0, str(folder))
    try:
        parser = ConfigParser()
        parser.read_config(folder / "configs" / "inference.json")
        parser["bundle_root"] = str(folder)
        parser["device"] = "$torch.device('cpu')"
        yield parser
    finally:
        sys.path.remove(str(folder))
        forget()


@pytest.fixture
def monai_bundle():
    """MONAI's checks; they need packages that the engine does not."""
    for name in ("fire", "jsonschema", "ignite"):
        pytest.importorskip(name)
    import monai.bundle

    return monai.bundle


# --- what MONAI itself checks


def test_the_metadata_pass_monais_verification(bundle, monai_bundle, tmp_path):
    schema = shutil.copy(SCHEMA, tmp_path / "schema.json")  # where one lies, MONAI downloads none
    monai_bundle.verify_metadata(meta_file=str(bundle[0] / "configs" / "metadata.json"), filepath=str(schema))


@pytest.mark.parametrize("broken", ["version", "authors", "network_data_format#outputs", "channel_def", "num_channels"])
def test_metadata_that_lack_something_do_not_pass(bundle, monai_bundle, tmp_path, broken):
    values = json.loads((bundle[0] / "configs" / "metadata.json").read_text())
    if broken in values:
        del values[broken]
    elif "#" in broken:
        del values["network_data_format"]["outputs"]
    else:
        values["network_data_format"]["inputs"]["image"][broken] = None
    (tmp_path / "metadata.json").write_text(json.dumps(values))
    schema = shutil.copy(SCHEMA, tmp_path / "schema.json")
    with pytest.raises(ValueError, match="Failed validating"):
        monai_bundle.verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(schema))


@pytest.mark.parametrize("n", [1, 2])
def test_the_network_takes_and_gives_what_the_metadata_say(bundle, monai_bundle, n):
    files = {name: str(bundle[0] / "configs" / f"{name}.json") for name in ("metadata", "inference")}
    with opened(bundle[0]):
        monai_bundle.verify_net_in_out(
            "network_def", meta_file=files["metadata"], config_file=files["inference"], device="cpu", n=n
        )
        with pytest.raises(ValueError, match="output channel"):
            monai_bundle.verify_net_in_out(
                "network_def",
                meta_file=files["metadata"],
                config_file=files["inference"],
                device="cpu",
                n=n,
                **{"_meta_#network_data_format#outputs#pred#num_channels": 5},
            )


def test_channels_and_labels_stand_in_the_metadata_by_name(bundle):
    values = json.loads((bundle[0] / "configs" / "metadata.json").read_text())["network_data_format"]
    assert list(values["inputs"]["image"]["channel_def"].values()) == ["t2w", "t2f", "t1n", "t1c"]
    assert values["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "NCR", "2": "ED", "3": "ET"}


def test_a_channel_that_is_no_region_goes_by_its_labels(tmp_path):
    """Of a head of nested regions, for whose middle one the manifest has no name."""
    network = SegMamba(replace(SMALL, out_channels=3))
    whole = {"regions": {"WT": ("NCR", "ED", "ET"), "ET": ("ET",)}, "nested": (2, 1, 3)}
    folder = export_model(package(tmp_path / "m", network, GLIOMA_SPEC, **whole), tmp_path / "b")
    values = json.loads((folder / "configs" / "metadata.json").read_text())["network_data_format"]
    assert values["outputs"]["pred"]["channel_def"] == {"0": "WT", "1": "NCR, ET", "2": "ET"}


# --- it does what segmamba does


def run_offline(folder, cases, results):
    command = [sys.executable, "-c", RUN, "run", "--config_file", "configs/inference.json"]
    command += ["--dataset_dir", str(cases), "--output_dir", str(results), "--device", "cpu"]
    environment = {**os.environ, "SEGMAMBA_SCAN": "torch"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def odd_case(tmp_path_factory):
    """A folder with one synthetic case of awkward voxels, with gaps around the head."""
    root = tmp_path_factory.mktemp("cases")
    folder = root / "case-1"
    folder.mkdir()
    save_phantom(make_phantom(11, spacing=(1.7, 2.3, 3.1), enhancing=True), folder, folder.name)
    (folder / "case-1-seg.nii.gz").rename(root.parent / "case-1-truth.nii.gz")
    return folder


def test_the_shipped_model_runs_alone_and_gives_the_same_label_map(odd_case, tmp_path, monkeypatch, monai_bundle):
    monkeypatch.setenv("SEGMAMBA_SCAN", "torch")
    source = shipped_models()["quick"]
    assert main(["export", str(source), "--output", str(tmp_path / "bundle")]) == 0
    run_offline(tmp_path / "bundle", odd_case.parent, tmp_path / "results")

    model = load_package(source)
    case = load_case(find_case(odd_case), "case-1")
    manifest = model.manifest
    assert manifest.inference.nested and manifest.postprocess.min_component_mm3  # or it would show nothing of them
    expected = segment(
        case,
        model.network,
        manifest.preprocess,
        manifest.inference,
        postprocess_spec=manifest.postprocess,
        scheme=manifest.scheme,
    ).label_map
    image = nib.load(tmp_path / "results" / "case-1_seg.nii.gz")
    np.testing.assert_allclose(image.affine, case.affine, atol=1e-4)
    found = np.asarray(image.dataobj)
    assert found.dtype == np.uint8 and np.count_nonzero(expected) > 1000
    assert np.mean(found != expected) < 1e-4


def test_a_file_of_four_channels_in_several_windows_gives_the_same_label_map(bundle, odd_case, tmp_path, monai_bundle):
    folder, source = bundle
    model = load_package(source)
    case = load_case(find_case(odd_case), "case-1")
    stacked = np.stack([case.images[m] for m in model.manifest.preprocess.modalities], -1)
    nib.save(nib.Nifti1Image(stacked, case.affine), tmp_path / "all in one.nii.gz")
    with opened(folder) as parser:
        parser["dataset_dir"], parser["output_dir"] = str(tmp_path), str(tmp_path / "out")
        parser.get_parsed_content("run")
    found = np.asarray(nib.load(tmp_path / "out" / "all in one_seg.nii.gz").dataobj)
    result = segment(case, model.network, model.manifest.preprocess, model.manifest.inference)
    assert result.passes > 1 and len(np.unique(result.label_map)) > 1
    assert np.mean(found != result.label_map) < 1e-3  # random weights leave many voxels undecided


SPECS = [
    GLIOMA_SPEC,
    replace(GLIOMA_SPEC, modalities=("t1c",), orientation="LAI", spacing=(2.0, 1.3, 3.0), normalisation="zscore_box"),
    replace(GLIOMA_SPEC, modalities=("t1c", "t2f"), crop="none", spacing=(1.0, 6.0, 2.5)),
    replace(GLIOMA_SPEC, modalities=("t2f", "t1c"), margin_mm=5.0, spacing=(2.2, 3.1, 1.4)),
    replace(GLIOMA_SPEC, modalities=("t2w", "t1n"), bias_correction="n4"),
    replace(GLIOMA_SPEC, modalities=("ct",), normalisation="window", intensity=(-20.0, 60.0), crop="none"),
]


@pytest.mark.parametrize(
    "spec", SPECS, ids=lambda spec: f"{spec.orientation}-{spec.normalisation}-{spec.crop}-{spec.bias_correction}"
)
def test_the_preprocessing_is_that_of_the_manifest_there_and_back(spec, tmp_path):
    """On an oblique grid with awkward voxels, against segmamba.prediction.preprocess."""
    rng = np.random.default_rng(5)
    turn = nib.eulerangles.euler2mat(0.2, -0.1, 0.3)
    affine = nib.affines.from_matvec(turn @ np.diag([-2.2, 1.4, 3.1]), [10, -20, 30])
    affine = affine.astype(np.float32).astype(np.float64)  # as files have it: N4 of so small an image feels the rest
    images = {}
    (tmp_path / "cases").mkdir()
    for name in spec.modalities:
        image = np.zeros((19, 26, 14), np.float32)
        image[3:15, 4:20, 2:11] = rng.normal(30, 20, (12, 16, 9))
        if spec.bias_correction == "n4":  # a coil at one end
            image = np.abs(image) * np.linspace(1, 3, 19, dtype=np.float32)[:, None, None]
        images[name] = image
        nib.save(nib.Nifti1Image(image, affine), tmp_path / "cases" / f"a-{name}.nii.gz")
    case = Case("a", images, affine, {}, ())
    config = replace(SMALL, in_channels=len(spec.modalities), directions=("forward",))
    folder = export_model(package(tmp_path / "m", SegMamba(config), spec), tmp_path / "b")
    expected = preprocess(case, spec)
    with opened(folder) as parser:
        parser["dataset_dir"] = str(tmp_path / "cases")
        (data,) = parser.get_parsed_content("data")
        transform = parser.get_parsed_content("preprocessing")
        prepared = transform(data)
        np.testing.assert_allclose(prepared["image"].numpy(), expected.tensor.numpy(), atol=1e-5)
        np.testing.assert_allclose(prepared["image"].affine.numpy(), expected.affine, atol=1e-4)
        back = transform.inverse({"image": prepared["image"]})["image"]
    box = expected.undo(torch.cat([expected.tensor[:1], expected.tensor]))[1:]  # channel 0 is 1 outside of the crop
    np.testing.assert_allclose(back.numpy(), box, atol=1e-4)
    np.testing.assert_allclose(back.affine.numpy(), affine, atol=1e-4)


@pytest.fixture(scope="module")
def two_channels(tmp_path_factory):
    """A bundle for T1c and FLAIR, and what its model wants to see."""
    root = tmp_path_factory.mktemp("two")
    spec = replace(GLIOMA_SPEC, modalities=("t1c", "t2f"))
    return export_model(package(root / "m", SegMamba(replace(SMALL, in_channels=2)), spec), root / "b"), spec


def some_infinite(array):
    array = array.copy()
    array[10:12, 10:15, 10:12] = np.inf
    return array


CHANGES = {  # of FLAIR, in its voxels and its unit of length
    "an outside of -500": (lambda flair, _: np.where(flair == 0, -500, flair), "mm"),
    "an outside of 7": (lambda flair, _: flair + 7, "mm"),
    "infinite voxels": (lambda flair, _: some_infinite(flair), "mm"),
    "metres": (lambda flair, _: flair, "meter"),
    "empty": (lambda flair, _: flair * 0, "mm"),
    "a mask": (lambda flair, _: flair > 0, "mm"),
    "T1c twice": (lambda _, t1c: t1c, "mm"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_odd_images_are_mended_or_refused_as_segmamba_does_it(odd_case, two_channels, tmp_path, name):
    (folder, spec), (change, unit) = two_channels, CHANGES[name]
    paths = {modality: tmp_path / "cases" / f"case-1-{modality}.nii.gz" for modality in spec.modalities}
    paths["t1c"].parent.mkdir()
    images = {modality: nib.load(odd_case / path.name) for modality, path in paths.items()}
    arrays = {modality: np.asarray(image.dataobj, np.float32) for modality, image in images.items()}
    arrays["t2f"] = change(arrays["t2f"], arrays["t1c"]).astype(np.float32)
    scale = np.diag([1e-3, 1e-3, 1e-3, 1]) if unit == "meter" else np.eye(4)
    for modality, path in paths.items():
        image = nib.Nifti1Image(arrays[modality], scale @ images[modality].affine)
        image.header.set_xyzt_units(unit)
        nib.save(image, path)
    with opened(folder) as parser:
        parser["dataset_dir"] = str(tmp_path / "cases")
        (data,) = parser.get_parsed_content("data")
        transform = parser.get_parsed_content("preprocessing")
        try:
            case = load_case(paths, "case-1", spec.modalities)
        except InputError as error:
            reason = str(error).rpartition("t2f) ")[2]
            with pytest.raises(RuntimeError) as refused:
                transform(data)
            assert reason in str(refused.value.__cause__)
        else:
            assert case.notes
            prepared = transform(data)["image"]
            expected = preprocess(case, spec)
            np.testing.assert_allclose(prepared.numpy(), expected.tensor.numpy(), atol=1e-4)
            np.testing.assert_allclose(prepared.affine.numpy(), expected.affine, atol=1e-4)


def test_a_file_with_another_number_of_channels_is_refused(two_channels, tmp_path):
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((9, 9, 9, 3), np.float32), np.eye(4)), tmp_path / "a.nii")
    with opened(two_channels[0]) as parser:
        parser["dataset_dir"] = str(tmp_path)
        (data,) = parser.get_parsed_content("data")
        with pytest.raises(RuntimeError) as refused:
            parser.get_parsed_content("preprocessing")(data)
    assert "a: 3 channels; expected one each of t1c, t2f" in str(refused.value.__cause__)


@pytest.mark.parametrize("name", ["paper", "segresnet", "unetr"])
def test_other_networks_come_along_and_give_the_same_logits(name, tmp_path):
    torch.manual_seed(1)
    if name == "paper":
        network, window = SegMamba(replace(SMALL, form="paper", features=(4, 8, 8, 8))), (32, 48, 48)
    else:
        window = (32, 32, 32)
        network = build_baseline(BaselineConfig(name=name, patch=window, width=8))
    source = package(tmp_path / "m", network, GLIOMA_SPEC, window)
    folder = export_model(source, tmp_path / "b")
    assert (folder / "scripts" / "networks" / "baselines").exists() == (name != "paper")
    needed = json.loads((folder / "configs" / "metadata.json").read_text())["required_packages_version"]
    assert ("einops" in needed) == (name == "unetr")  # MONAI leaves it to who builds this network
    image = torch.randn(1, 4, 32, 32, 32)
    with opened(folder) as parser, torch.no_grad():
        exported = parser.get_parsed_content("network_def").eval()
        assert type(exported).__module__.startswith("scripts.")
        exported.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
        torch.testing.assert_close(exported(image), load_package(source).network(image), rtol=0, atol=1e-5)


def test_the_weights_are_a_plain_state_dict(bundle):
    state = torch.load(bundle[0] / "models" / "model.pt", weights_only=True)
    expected = load_package(bundle[1]).network.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


# --- what lies in it


def test_nothing_in_the_bundle_imports_segmamba(bundle):
    for path in (bundle[0] / "scripts").rglob("*.py"):
        lines = path.read_text().splitlines()
        assert not [line for line in lines if line.split()[:1] in (["from"], ["import"]) and " segmamba" in line], path


def test_the_sources_are_those_that_are_needed_and_no_others():
    files = set(collect(["segmamba.export.bundle_parts", "segmamba.networks.segmamba"]))
    assert {"export/bundle_parts.py", "prediction/windows.py", "errors.py", "networks/scan/kernels.py"} <= files
    assert not {name.partition("/")[0] for name in files} & {"cli.py", "package.py", "baselines", "commands", "case.py"}


@pytest.mark.parametrize("module", ["segmamba.nothing", "segmamba", "numpy.linalg"])
def test_what_is_not_ours_is_not_copied(module):
    with pytest.raises(ValueError, match="no module"):
        collect([module])


def test_the_readme_has_the_card_the_channels_and_why_there_is_no_graph(bundle):
    text = (bundle[0] / "docs" / "README.md").read_text()
    for part in ("Its card.", "t2w, t2f, t1n, t1c", "| ET | 3 |", "TorchScript", "ONNX", "not a medical device"):
        assert part in text
    assert "Apache License" in (bundle[0] / "LICENSE").read_text()


def test_the_readme_says_what_predict_would_do_and_a_bundle_does_not(bundle, tmp_path):
    """Raw images of a head give a label map all the same, a wrong one."""
    text = " ".join((bundle[0] / "docs" / "README.md").read_text().split())
    assert "show the brain alone" in text and "prepare such images before" in text
    spec = replace(GLIOMA_SPEC, modalities=("t1c", "ct"), crop="none")  # `predict` takes these as they are, too
    folder = export_model(package(tmp_path / "m", SegMamba(replace(SMALL, in_channels=2)), spec), tmp_path / "b")
    text = (folder / "docs" / "README.md").read_text()
    assert "co-registered, on one grid" in text and "brain alone" not in text


def test_mirrorings_of_labels_that_name_sides_are_refused_and_not_recommended(bundle, tmp_path):
    """Of a mirror image, left is right."""
    sides = {"left_thalamus": 1, "right_thalamus": 2, "ET": 3}
    regions = {name: (name,) for name in sides}
    source = package(tmp_path / "m", SegMamba(SMALL), GLIOMA_SPEC, label_map=sides, regions=regions)
    folder = export_model(source, tmp_path / "b")
    with opened(folder) as parser:
        parser["inferer#mirrorings"] = 7
        with pytest.raises(RuntimeError, match="Failed to instantiate") as refused:
            parser.get_parsed_content("inferer")
        assert "left_thalamus and right_thalamus name sides" in str(refused.value.__cause__)
        parser["inferer#mirrorings"] = 0
        parser.get_parsed_content("inferer")
    assert "mirrorings" in (bundle[0] / "docs" / "README.md").read_text()
    assert "mirrorings" not in (folder / "docs" / "README.md").read_text()
