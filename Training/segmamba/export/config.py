"""configs/metadata.json and configs/inference.json of a MONAI bundle, made from a model's manifest.

What they must hold: https://docs.monai.io/en/latest/mb_specification.html.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from importlib.metadata import version

from segmamba import __version__
from segmamba.errors import InputError
from segmamba.models.package import Manifest
from segmamba.networks.baselines.config import TRANSFORMERS
from segmamba.networks.segmamba import STRIDE, NetworkConfig

_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_PACKAGES = ("nibabel", "numba", "safetensors", "scipy", "SimpleITK", "pytorch-ignite", "fire")
_AT_LEAST = {"pytorch-ignite": "0.4.11", "fire": "0.4", "einops": "0.7"}  # where they are not installed at export
_MR = ("t1n", "t1c", "t2w", "t2f", "t1", "t2", "flair")
_PARTS = "scripts.export.bundle_parts"

_IMPORTS = [f"$from {_PARTS} import {name}" for name in ("find_cases", "case_namer")]  # MONAI takes one name each
_LEADING = ("$", "@", "%", "_")  # of what MONAI evaluates, looks up, fills in, or takes for a word of its own
_INSIDE = ("#", "::")  # parts the names of a configuration's places
_AXES = [["L", "R"], ["P", "A"], ["I", "S"]]

# the network of a bundle: class or function, and its configuration's class
SEGMAMBA = ("scripts.networks.segmamba.SegMamba", "scripts.networks.segmamba.NetworkConfig")
BASELINE = ("scripts.networks.baselines.build_baseline", "scripts.networks.baselines.BaselineConfig")


def metadata(manifest: Manifest) -> dict:
    """The bundle's metadata.json, as MONAI's schema wants it. Raises InputError for names that MONAI takes for code."""
    _check_texts(manifest)
    spec, network = manifest.preprocess, manifest.network
    labels = {"0": "background"} | {str(value): name for name, value in sorted(manifest.label_map.items(), key=_value)}
    shape = _spatial_shape(manifest)
    modality = "MR" if all(name in _MR for name in spec.modalities) else "n/a"
    return {
        "schema": _SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported by segmamba {__version__} from the model package {manifest.id}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {name: _version(name) for name in _packages(manifest)},
        "supported_apps": {},
        "name": manifest.id,
        "task": f"Segmentation of {', '.join(labels[key] for key in labels if key != '0')} in 3-D images",
        "description": f"{_network_name(manifest)} for co-registered {', '.join(spec.modalities)}, "
        "exported from a SegMambaSlicer model package",
        "authors": "the authors of the model package (docs/README.md)",
        "copyright": f"licence of the weights: {manifest.licence}",
        "data_type": "nifti",
        "intended_use": "Research use only; not a medical device",
        "references": ["Xing et al., SegMamba, arXiv 2401.13560"],
        "eval_metrics": _numbers(manifest.metrics.get("mean")),
        "labels": dict(manifest.label_map),
        "regions": {region: list(names) for region, names in manifest.regions.items()},
        "weights_sha256": manifest.weights_sha256,
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "hounsfield" if spec.normalisation == "window" else "magnitude",
                    "modality": modality,
                    "num_channels": network.in_channels,
                    "spatial_shape": shape,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": {str(i): name for i, name in enumerate(spec.modalities)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "labels",
                    "modality": "n/a",
                    "num_channels": network.out_channels,
                    "spatial_shape": shape,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": _regions_of_channels(manifest) or labels,
                }
            },
        },
    }


def inference(manifest: Manifest) -> dict:
    """The configuration that `python -m monai.bundle run --config_file configs/inference.json` runs.

    Raises InputError for names that MONAI takes for code.
    """
    _check_texts(manifest)
    return {
        "imports": ["$import numpy", "$import torch", *_IMPORTS],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/cases'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "modalities": list(manifest.preprocess.modalities),
        "data": "$find_cases(@dataset_dir, @modalities)",
        "network_def": _network(manifest),
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": _preprocessing(manifest)},
        "dataset": {"_target_": "Dataset", "data": "@data", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {
            "_target_": f"{_PARTS}.ModelInferer",
            "roi_size": list(manifest.inference.window),
            **_scheme(manifest),
            "overlap": manifest.inference.overlap,
            "bf16": manifest.inference.bf16,
            "fixed": manifest.inference.pad_to_window,
            "nested": list(manifest.inference.nested),
            "coarser": list(manifest.inference.coarser),
            "mirrorings": 0,
        },
        "postprocessing": {"_target_": "Compose", "transforms": _postprocessing(manifest)},
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
                "map_location": "cpu",
                "strict": True,
            },
            {"_target_": "StatsHandler", "iteration_log": False},
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def _check_texts(manifest: Manifest) -> None:
    """Whoever wrote a manifest chose these texts; the code of a bundle is ours alone. Raises InputError."""
    texts = {
        "id": [manifest.id],
        "licence": [manifest.licence],
        "modality": manifest.preprocess.modalities,
        "label": manifest.label_map,
        "region": manifest.regions,
        "metric": _numbers(manifest.metrics.get("mean")),
    }
    for what, names in texts.items():
        for name in names:
            if name.startswith(_LEADING) or any(mark in name for mark in _INSIDE):
                raise InputError(
                    f"{what} {name!r} would be code or a reference in a MONAI bundle, where no name may begin with "
                    f"{' '.join(_LEADING)} or contain {' '.join(_INSIDE)}: rename it in model.json"
                )


def is_segmamba(manifest: Manifest) -> bool:
    """Whether the model's network is SegMamba, in any form."""
    return isinstance(manifest.network, NetworkConfig)


def uses_scan(manifest: Manifest) -> bool:
    """Whether the model's network has Mamba layers."""
    network = manifest.network
    return isinstance(network, NetworkConfig) or network.name.startswith("umamba")


def _packages(manifest: Manifest) -> tuple[str, ...]:
    return (*_PACKAGES, "einops") if _network_name(manifest) in TRANSFORMERS else _PACKAGES


def _network(manifest: Manifest) -> dict:
    target, config = SEGMAMBA if is_segmamba(manifest) else BASELINE
    return {"_target_": target, "config": {"_target_": config, **asdict(manifest.network)}}


def _network_name(manifest: Manifest) -> str:
    network = manifest.network
    return f"SegMamba ({network.form})" if isinstance(network, NetworkConfig) else network.name


def _preprocessing(manifest: Manifest) -> list[dict]:
    spec = manifest.preprocess
    steps: list[dict] = [
        {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True, "image_only": True},
        {"_target_": f"{_PARTS}.CleanImaged", "keys": "image", "modalities": "@modalities"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": spec.orientation, "labels": _AXES},
    ]
    if spec.crop == "foreground":
        steps.append({"_target_": f"{_PARTS}.CropHeadd", "keys": "image", "margin_mm": spec.margin_mm})
    if spec.bias_correction == "n4":
        steps.append({"_target_": f"{_PARTS}.CorrectBiasd", "keys": "image"})
    if spec.normalisation == "window":
        assert spec.intensity is not None  # as the spec has checked
        low, high = spec.intensity
        limits = {"a_min": low, "a_max": high, "b_min": 0.0, "b_max": math.sqrt(12), "clip": True}
        steps.append({"_target_": "ScaleIntensityRanged", "keys": "image", **limits})
    else:
        nonzero = spec.normalisation == "zscore_nonzero"
        steps.append({"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": nonzero, "channel_wise": True})
    steps.append({"_target_": f"{_PARTS}.ToModelGridd", "keys": "image", "spacing": list(spec.spacing)})
    return steps


def _postprocessing(manifest: Manifest) -> list[dict]:
    return [
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": False,
            "to_tensor": True,
        },
        {
            "_target_": f"{_PARTS}.ToLabelMapd",
            "keys": "pred",
            **_scheme(manifest),
            "nested": list(manifest.inference.nested),
            **asdict(manifest.postprocess),
        },
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_postfix": "seg",
            "output_ext": ".nii.gz",
            "output_dtype": "$numpy.uint8",
            "resample": False,
            "separate_folder": False,
            "output_name_formatter": "$case_namer(@modalities)",
        },
    ]


def _scheme(manifest: Manifest) -> dict:
    regions = {region: list(names) for region, names in manifest.regions.items()}
    return {"label_map": dict(manifest.label_map), "regions": regions}


def _regions_of_channels(manifest: Manifest) -> dict[str, str]:
    """Channel -> region of a "regions" head, outermost first, or its labels where it has no name; {} for labels."""
    nested, scheme = manifest.inference.nested, manifest.scheme
    regions = {frozenset(scheme.values(region)): region for region in scheme.regions}
    names = {}
    for channel in range(len(nested)):
        inside = frozenset(nested[channel:])
        labels = ", ".join(label for label, value in sorted(scheme.labels.items(), key=_value) if value in inside)
        names[str(channel)] = regions.get(inside, labels)
    return names


def _spatial_shape(manifest: Manifest) -> list[int | str]:
    """One side is 32 or more, so that the smallest input the formulas allow is one that the network takes."""
    if not is_segmamba(manifest):
        return list(manifest.inference.window)
    return [f"{2 * STRIDE}*n", f"{STRIDE}*n", f"{STRIDE}*n"]


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return _AT_LEAST.get(package, "0")


def _value(item: tuple[str, int]) -> int:
    return item[1]


def _numbers(mean: object) -> dict[str, float]:
    """{region: {"dice", "hd95"}} of a manifest -> flat names, as bundles have them."""
    if not isinstance(mean, dict):
        return {}
    return {
        f"{name}_{region}": value
        for region, scores in mean.items()
        if isinstance(scores, dict)
        for name, value in scores.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
