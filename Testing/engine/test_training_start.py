"""What a training begins with: a model of another training, data sets of other labels and images."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from segmamba.cases.case import load_case
from segmamba.datasets.manifest import CaseEntry, Dataset, FileEntry, read_dataset, write_dataset
from segmamba.datasets.split import make_split
from segmamba.errors import InputError
from segmamba.evaluation.metrics import dice
from segmamba.files.digest import hash_file
from segmamba.models.package import load_package, save_package
from segmamba.models.specs import PostprocessSpec, PreprocessSpec
from segmamba.prediction.segment import segment
from segmamba.training import loop
from segmamba.training.config import AugmentConfig, SourceConfig, ValidationConfig, load_config
from segmamba.training.distributed import World, standing
from segmamba.training.experiment import begin
from segmamba.training.loop import train
from segmamba.training.plan import make_plan
from test_patches import write_patches
from training_runs import MODALITIES, lines_of, narrow_network, small_config, without_curves

pytestmark = pytest.mark.usefixtures("narrow")

ZSCORE_BOX = PreprocessSpec(modalities=MODALITIES, spacing=(4.0, 4.0, 4.0), normalisation="zscore_box")


@pytest.fixture(scope="module")
def first(phantom_dataset, training_cache, tmp_path_factory):
    """The model of a training of one step; a folder."""
    config = small_config(phantom_dataset.folder, training_cache, steps=1)
    with narrow_network(), without_curves():
        return train(config, tmp_path_factory.mktemp("first") / "run")


def test_what_can_be_known_to_be_wrong_is_refused_before_a_case_is_prepared(
    config, first, phantom_dataset, split_dataset, tiny_model, tmp_path, monkeypatch
):
    """Which takes minutes to hours; nor is a run folder left behind."""
    monkeypatch.setattr(loop, "prepare_ahead", lambda *_: pytest.fail("cases are prepared"))
    whole, split = config.sources[0], replace(config.sources[0], dataset=str(split_dataset.folder))
    bare = write_patches(tmp_path / "bare.npz", axes=None)
    other = write_patches(tmp_path / "other.npz", modalities=["t1n", "t1c", "t2w", "pd"])
    named = write_patches(tmp_path / "named.npz", ids=[f"{split_dataset.cases[0].id}_1", "more", "others"])
    own, limits = load_package(first).manifest, PostprocessSpec(min_total_mm3={"RC": 10.0})
    parent = replace(own, regions={**own.regions, "RC": ("NCR",)}, postprocess=limits)
    limited = tmp_path / "limited"
    save_package(limited, load_package(first).network, parent, "")
    bare_set = tmp_path / "unlabelled"
    bare_set.mkdir()
    cases = tuple(replace(case, label=None) for case in phantom_dataset.cases)
    write_dataset(replace(phantom_dataset, cases=cases, folder=str(bare_set)))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "last.pt").touch()
    for settings, message in (
        ({"sources": (whole, SourceConfig(patches=str(bare)))}, "bare.npz has no axes"),
        ({"sources": (whole, SourceConfig(patches=str(other)))}, "other.npz has no t2f"),
        ({"sources": (replace(split, held_out=True), SourceConfig(patches=str(named)))}, "which is validated on"),
        ({"sources": (whole, *2 * (replace(split, held_out=True),))}, "trained on as"),
        ({"sources": (whole, SourceConfig(dataset=str(bare_set), held_out=True))}, "no labelled case to validate on"),
        ({"sources": (SourceConfig(packed=str(tmp_path)),)}, "there are no packed cases"),
        ({"initial_model": str(tiny_model)}, "another preprocessing than the configuration"),
        ({"initial_model": str(tmp_path)}, "there is no model"),
        ({"initial_model": str(limited)}, "RC"),
        ({"accumulation": 4}, "batch 2 cannot be shared"),
        ({"precision": "bf16"}, "depth of 48 or more for bf16"),
        ({"augment": AugmentConfig(carve=0.5), "preprocess": ZSCORE_BOX}, "augment.carve"),
    ):
        with pytest.raises(InputError, match=message):
            loop.train(replace(config, **settings), tmp_path / "run")
    for run, resume, message in (("begun", "never", "holds a training already"), ("run", "must", "has no checkpoint")):
        with pytest.raises(InputError, match=message):
            loop.train(config, tmp_path / run, resume=resume)
    assert not (tmp_path / "run").exists()


def test_labels_of_two_sides_are_not_trained_on_with_mirrors(config, phantom_dataset, tmp_path):
    """The mirror image of a left kidney is a right one, and would be taught as a left one."""
    labels = {"left_kidney": 1, "right_kidney": 2, "liver": 3}
    write_dataset(
        replace(
            phantom_dataset,
            labels=labels,
            regions={name: (name,) for name in labels},
            label_values={str(value): name for name, value in labels.items()},
            folder=str(tmp_path),
        )
    )
    config = replace(config, sources=(SourceConfig(dataset=str(tmp_path)),))
    remedy = r"left_kidney and right_kidney .*augment.mirror = false and augment.carve = 0"
    for refused in (AugmentConfig(), AugmentConfig(mirror=False, carve=0.1), AugmentConfig(set="none", carve=0.1)):
        with pytest.raises(InputError, match=remedy):
            begin(replace(config, augment=refused), World())
    for taken in (AugmentConfig(mirror=False), AugmentConfig(set="none")):
        assert begin(replace(config, augment=taken), World()).plan.scheme.labels == labels


def test_a_gpu_of_a_number_is_not_shared_by_all_processes(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"'cuda:1' has a number.*--device cuda"):
        standing("cuda:1")


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


def test_validating_on_what_the_initial_model_has_learnt_is_said(config, first, split_dataset, tmp_path):
    """Of a parent, and of its parents: `first` has learnt all cases, a model continued from it only those of a fold."""
    parents = {"second": first, "third": tmp_path / "second" / "model"}
    source = replace(config.sources[0], dataset=str(split_dataset.folder), validate=True, fold=2)
    for name, parent in (*parents.items(), ("fresh", ""), ("on from fresh", tmp_path / "fresh" / "model")):
        settings = {"name": name, "initial_model": str(parent), "sources": (source,), "steps": 1}
        record = load_package(train(replace(config, **settings), tmp_path / name)).manifest.training
        notes = [line["text"] for line in lines_of(tmp_path / name, "event") if "trained on by" in line["text"]]
        if name in parents:
            assert record["held_out_learnt_before"] == list(record["held_out"]) != []
            assert notes == [
                "1 of the 1 cases that are validated on were trained on by the initial model or one before it: "
                "their scores say too much"
            ]
        else:
            assert "held_out_learnt_before" not in record and not notes


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


@pytest.mark.parametrize(("name", "refused"), [("BraTS-GLI-00001", True), ("Patient-1", False)])
def test_a_patient_of_a_public_cohort_is_not_on_both_sides(config, phantom_dataset, tmp_path, name, refused):
    """At another date, in another data set; a number of a hospital's own may be anybody's."""
    sources = []
    for number, held_out in enumerate((False, True)):
        (case, *_), digest = phantom_dataset.cases, str(number) * 64
        images = {modality: replace(file, sha256=digest) for modality, file in case.images.items()}
        case = replace(case, id=f"{name}-00{number}", subject=name, images=images, statistics={})
        folder = tmp_path / str(number)
        folder.mkdir()
        write_dataset(replace(phantom_dataset, cases=(case,), folder=str(folder)))
        sources.append(SourceConfig(dataset=str(folder), held_out=held_out))
    config = replace(config, sources=tuple(sources))
    if refused:
        with pytest.raises(
            InputError, match=f"case {name}-001 .* validated on, and its patient trained on as {name}-000"
        ):
            make_plan(config)
    else:
        assert [case.id for case in make_plan(config).validated] == [f"{name}-001"]


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
