"""What a training will work on is known before it is prepared: the record of it, without an image read."""

import shutil
from dataclasses import replace

import pytest
from segmamba.cases.labels import GLIOMA
from segmamba.datasets.manifest import write_dataset
from segmamba.errors import InputError
from segmamba.training.config import SourceConfig
from segmamba.training.data_check import planned_data
from segmamba.training.distributed import World
from segmamba.training.experiment import load_experiment
from segmamba.training.packed import write_packed
from segmamba.training.samples import prepare
from test_patches import write_patches
from training_runs import small_config

pytestmark = pytest.mark.usefixtures("narrow")


def test_the_record_is_known_before_anything_is_prepared(phantom_dataset, split_dataset, tmp_path):
    config = small_config(split_dataset.folder, tmp_path / "cache")
    cases = [prepare(phantom_dataset, entry, config.preprocess, tmp_path / "other") for entry in phantom_dataset.cases]
    write_packed(tmp_path / "packed", config.preprocess, GLIOMA, [replace(case, id=f"p{case.id}") for case in cases])
    patches = write_patches(tmp_path / "patches.npz", count=3, side=8, spacing=(4.0, 4.0, 4.0))
    blocks = write_patches(tmp_path / "blocks.npz", count=300, side=8, ids=[f"block-{n}" for n in range(300)])
    sources = (
        SourceConfig(dataset=split_dataset.folder, validate=True, fold=1),
        SourceConfig(packed=str(tmp_path / "packed"), at_most=2),
        SourceConfig(patches=str(patches)),
        SourceConfig(patches=str(blocks), at_most=1),
    )
    config = replace(config, sources=sources)
    record = planned_data(config)
    assert record == load_experiment(config, World()).data_record()
    assert len(record["held_out"]) == 1 and len(record["cases"]) == 2 + 2 + 3 + 1


def test_a_data_set_without_a_modality_is_named(split_dataset, tmp_path):
    """One that was made anew with fewer."""
    cases = tuple(
        replace(case, images={name: file for name, file in case.images.items() if name != "t2f"})
        for case in split_dataset.cases
    )
    folder = shutil.copytree(split_dataset.folder, tmp_path / "fewer")
    write_dataset(replace(split_dataset, modalities=("t1n", "t1c", "t2w"), cases=cases, folder=str(folder)))
    config = small_config(folder, tmp_path / "cache")
    with pytest.raises(InputError, match="has no t2f; it has t1n, t1c, t2w"):
        planned_data(config)
