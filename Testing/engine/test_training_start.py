"""What a training begins with: a model of another training, data sets of other labels and images."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from segmamba.cases.case import load_case
from segmamba.datasets.manifest import CaseEntry, Dataset, FileEntry, read_dataset, write_dataset
from segmamba.datasets.reading import hash_file
from segmamba.datasets.split import make_split
from segmamba.errors import InputError
from segmamba.evaluation.metrics import dice
from segmamba.models.package import load_package
from segmamba.prediction.segment import segment
from segmamba.training.config import SourceConfig, ValidationConfig, load_config
from segmamba.training.loop import train
from training_runs import lines_of, narrow_network, small_config, without_curves

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def first(phantom_dataset, training_cache, tmp_path_factory):
    """The model of a training of one step; a folder."""
    config = small_config(phantom_dataset.folder, training_cache, steps=1)
    with narrow_network(), without_curves():
        return train(config, tmp_path_factory.mktemp("first") / "run")


def test_a_model_of_another_kind_cannot_be_continued(config, tiny_model, tmp_path):
    with pytest.raises(InputError, match="another preprocessing than the configuration"):
        train(replace(config, initial_model=str(tiny_model)), tmp_path / "run")


def test_a_model_continued_is_named_as_parent_and_scored_before_the_first_step(config, first, split_dataset, tmp_path):
    source = replace(config.sources[0], dataset=str(split_dataset.folder), validate=True, fold=2)
    settings = {"initial_model": str(first), "sources": (source,), "validation": ValidationConfig(), "steps": 1}
    second = replace(config, name="second", **settings)
    manifest = load_package(train(second, tmp_path / "second")).manifest
    assert manifest.parent == "small" and manifest.id == "second"
    assert lines_of(tmp_path / "second", "validation")[0]["step"] == 0


def test_a_model_of_labels_goes_on_as_one_of_regions_and_not_back(config, first, tmp_path):
    second = replace(config, name="second", head="regions", initial_model=str(first), steps=1)
    model = load_package(train(second, tmp_path / "second"))
    assert model.manifest.inference.nested == (2, 1, 3) and model.manifest.network.out_channels == 3
    assert load_package(first).manifest.network.out_channels == 4
    third = replace(config, initial_model=str(tmp_path / "second" / "model"))
    with pytest.raises(InputError, match=r"has the head 'regions'.*set head = 'regions'"):
        train(third, tmp_path / "third")


def test_sources_of_different_labels_are_refused(config, phantom_dataset, tmp_path):
    other = replace(phantom_dataset, regions={"WT": ("NCR", "ED", "ET")}, folder=str(tmp_path))
    write_dataset(other)
    sources = (*config.sources, SourceConfig(dataset=str(tmp_path)))
    with pytest.raises(InputError, match="other labels or regions"):
        train(replace(config, sources=sources), tmp_path / "run")


def test_a_ct_data_set_of_one_channel_and_one_label_needs_a_configuration_alone(tmp_path):
    """As the paper's AIIB2023 and CRC-500: a bright ball in Hounsfield units, labelled 255 in its files."""
    root = tmp_path / "ct"
    cases = []
    for number in range(3):
        rng = np.random.default_rng(number)
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in (36, 40, 44)), indexing="ij"))
        centre = rng.integers(14, 24, 3)
        ball = ((grid - centre[:, None, None, None]) ** 2).sum(0) < 64
        image = np.where(ball, 300.0, -50.0) + rng.normal(0, 20, ball.shape)
        image[:4] = -1000
        folder = root / f"ct-{number}"
        folder.mkdir(parents=True)
        entries = {}
        for name, array in (("ct", image.astype(np.int16)), ("seg", (255 * ball).astype(np.uint8))):
            nib.save(nib.Nifti1Image(array, np.diag([2, 2, 2.5, 1])), folder / f"{name}.nii.gz")
            path = folder / f"{name}.nii.gz"
            entries[name] = FileEntry(path=f"ct-{number}/{name}.nii.gz", sha256=hash_file(path))
        cases.append(
            CaseEntry(
                id=f"ct-{number}",
                subject=f"ct-{number}",
                images={"ct": entries["ct"]},
                label=entries["seg"],
                shape=(36, 40, 44),
                spacing=(2, 2, 2.5),
            )
        )
    write_dataset(
        Dataset(
            name="ct",
            modalities=("ct",),
            labels={"lesion": 1},
            regions={"lesion": ("lesion",)},
            label_values={"255": "lesion"},
            cases=tuple(cases),
            folder=str(root),
        )
    )
    (tmp_path / "ct.toml").write_text(
        """
        name = "ct"
        steps = 110
        batch = 1
        patch = [32, 32, 32]
        precision = "fp32"
        cache = "cache"
        [augment]
        set = "none"
        [preprocess]
        modalities = ["ct"]
        spacing = [2.5, 2.0, 2.0]
        normalisation = "window"
        intensity = [-200, 400]
        crop = "none"
        [optimizer]
        learning_rate = 1e-2
        warmup = 5
        ema = 0.9
        [inference]
        window = [64, 64, 64]
        [[sources]]
        dataset = "ct"
        validate = true
        fold = 0
        """
    )
    make_split(read_dataset(root), folds=3, seed=1)
    model = load_package(train(load_config(tmp_path / "ct.toml"), tmp_path / "run"))
    assert model.manifest.label_map == {"lesion": 1} and model.manifest.network.in_channels == 1
    assert model.manifest.metrics["mean"]["lesion"]["dice"] > 0.8
    case = load_case({"ct": root / "ct-1" / "ct.nii.gz"}, modalities=("ct",))
    truth = np.asarray(nib.load(root / "ct-1" / "seg.nii.gz").dataobj) == 255
    answer = segment(case, model.network, model.manifest.preprocess, model.manifest.inference).label_map
    assert dice(answer == 1, truth) > 0.8
