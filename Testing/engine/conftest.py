"""What several test files need, the real images where there are any among it; and which files come first."""

import shutil
import sys
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
# The files that take longest, of all folders: among several processes these come first, so that all end together.
SLOW = (
    "test_training_faults.py",
    "test_loop.py",
    "test_loop_workflow.py",
    "test_training.py",
    "test_raw.py",
    "test_workflow.py",
    "test_site_faults.py",
    "test_followup_section.py",
    "test_gpu_run.py",
    "test_dataset_check.py",
    "test_worker.py",
    "test_followup_dates.py",
    "test_site.py",
    "test_brain.py",
    "test_baselines.py",
    "test_training_start.py",
    "test_training_device.py",
    "test_followup_dicom.py",
    "test_phantom_raw.py",
    "test_corrections_faults.py",
    "test_table1.py",
)


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):  # in a process of pytest-xdist
        place = {name: number for number, name in enumerate(SLOW)}
        items.sort(key=lambda item: place.get(item.path.name, len(SLOW)))


def _need(*parts: str) -> Path:
    folder = SHARED_DATA.joinpath(*parts)
    if not folder.is_dir():
        pytest.skip(f"needs the real images in {folder}, which are not part of the repository")
    return folder


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    """Trainings draw nothing, which would take most of the time of a short one; where a test is marked `pictures`, they
    do."""
    loop = sys.modules.get("segmamba.training.loop")  # loaded already where a file has tests that train
    if loop and not request.node.get_closest_marker("pictures"):
        monkeypatch.setattr(loop, "write_progress", lambda run: None)
        monkeypatch.setattr(loop, "draw_worst", lambda *arguments: None)


@pytest.fixture
def same_weights():
    """Modules of torch start from the same weights in every run: a failure comes again. Its own seed is a new one each
    time, and one in sixty brings a gradcheck so near a kink that finite differences cross it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def brats() -> Path:
    """The folder of the nine BraTS 2021 cases."""
    return _need("brats")


@pytest.fixture(scope="session")
def raw_case() -> Path:
    """One patient's native series: four grids, not registered."""
    return _need("raw", "TCGA-FG-6692")


@pytest.fixture(scope="session")
def real_dicom() -> Path:
    """Four slices each of a GE, a Philips and a Siemens series, with the NIfTI they should become."""
    return _need("dicom", "dicom2nifti")


@pytest.fixture(scope="session")
def phantom_cases(tmp_path_factory) -> Path:
    """A folder of three small synthetic cases, phantom-0, -1 and -2, at 4 mm, with labels."""
    from segmamba.datasets.phantom import make_phantom, save_phantom

    root = tmp_path_factory.mktemp("phantoms")
    for seed in range(3):
        folder = root / f"phantom-{seed}"
        folder.mkdir()
        save_phantom(make_phantom(seed, spacing=(4, 4, 4), enhancing=True), folder, folder.name)
    return root


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A model package with random weights: everything about it is real but what it knows."""
    import torch
    from segmamba.models.package import Manifest, save_package
    from segmamba.models.specs import InferenceSpec, PreprocessSpec
    from segmamba.networks.segmamba import NetworkConfig, SegMamba

    config = NetworkConfig(features=(4, 4, 8, 8), full_features=4, bottleneck=8, depths=(1, 1, 1, 1))
    torch.manual_seed(7)
    manifest = Manifest(
        id="tiny",
        network=config,
        preprocess=PreprocessSpec(modalities=("t2w", "t2f", "t1n", "t1c"), spacing=(5.0, 4.0, 4.0)),
        inference=InferenceSpec(window=(32, 48, 48)),
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_package(folder, SegMamba(config), manifest, "# tiny\n")
    return folder


@pytest.fixture(scope="session")
def make_dataset():
    """A folder of case folders -> its data set, with the manifest written into it."""
    import nibabel as nib
    from segmamba.cases.case import MODALITIES, find_case, find_label
    from segmamba.cases.labels import GLIOMA
    from segmamba.datasets.manifest import CaseEntry, Dataset, FileEntry, write_dataset
    from segmamba.files.digest import hash_file

    def make(root: Path) -> Dataset:
        def entry(path: Path) -> FileEntry:
            return FileEntry(path=path.relative_to(root).as_posix(), sha256=hash_file(path))

        cases = []
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            label = find_label(folder)
            image = nib.load(label)
            case = CaseEntry(
                id=folder.name,
                subject=folder.name,
                images={m: entry(source.path) for m, source in find_case(folder).items()},
                label=entry(label),
                shape=image.shape,
                spacing=tuple(float(size) for size in image.header.get_zooms()),
            )
            cases.append(case)
        dataset = Dataset(
            name=root.name,
            modalities=MODALITIES,
            labels=GLIOMA.labels,
            regions=GLIOMA.regions,
            label_values={"1": "NCR", "2": "ED", "3": "ET"},
            cases=tuple(cases),
            folder=str(root),
        )
        write_dataset(dataset)
        return dataset

    return make


@pytest.fixture(scope="session")
def phantom_dataset(phantom_cases, make_dataset):
    """The phantoms as a data set that all files share: nobody writes into it, nor splits it (`own_phantoms`)."""
    return make_dataset(phantom_cases)


@pytest.fixture(scope="session")
def own_phantoms(phantom_cases, make_dataset, tmp_path_factory):
    """A function that makes a data set of copied phantoms, which a test may split and change."""

    def copy():
        root = tmp_path_factory.mktemp("own") / "cases"
        shutil.copytree(phantom_cases, root)
        return make_dataset(root)

    return copy


@pytest.fixture(scope="session")
def split_dataset(own_phantoms):
    """The three phantoms in three folds."""
    from segmamba.datasets.split import make_split

    dataset = own_phantoms()
    make_split(dataset, folds=3, seed=1)
    return dataset


@pytest.fixture(scope="session")
def training_cache(tmp_path_factory) -> Path:
    """Where trainings put prepared cases: each is prepared once in a test run."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def config(phantom_dataset, training_cache):
    """A training of four small steps on the phantoms (training_runs.small_config)."""
    from training_runs import small_config

    return small_config(phantom_dataset.folder, training_cache)


@pytest.fixture
def narrow():
    """Networks have a hundredth of their channels."""
    from training_runs import narrow_network

    with narrow_network():
        yield


@pytest.fixture
def folders(tmp_path):
    """Two empty folders: of predictions, and of truths."""
    for name in ("predictions", "truths"):
        (tmp_path / name).mkdir()
    return tmp_path / "predictions", tmp_path / "truths"


@pytest.fixture(scope="session")
def site_template(tmp_path_factory, phantom_cases, make_dataset) -> Path:
    """The folder of a site (site_runs.build_site), beside it the model `old`: read, and copied by who writes."""
    from site_runs import build_site

    return build_site(tmp_path_factory.mktemp("site") / "site", phantom_cases, make_dataset)


@pytest.fixture
def site(site_template, tmp_path):
    """A site of one's own."""
    from segmamba.learning.site import Site

    return Site(shutil.copytree(site_template, tmp_path / "the site"))
