"""docs/README.md of a bundle."""

from __future__ import annotations

from segmamba.export.config import metadata, uses_scan
from segmamba.images.modalities import MODALITIES
from segmamba.models.package import Manifest

_NOTE = """
---

# This bundle

It was made from the model package `{id}` (sha256 of its weights: `{digest}`)
and needs nothing of the software it comes from: `scripts/` holds copies of the source files. MONAI executes what stands
in a bundle's `configs` and `scripts`: use bundles from people you trust. The package itself, which `segmamba predict`
reads, has no such files.

## Input
{channels} channels in this order, which the weights do not tell: {modalities}. One file a channel, or one NIfTI file
with them as its last axis. Images of a case are co-registered, on one grid.{brain}

| label | value |
|---|---|
{labels}

## Run
```
pip install "monai>={monai}" {packages}
cd BUNDLE
python -m monai.bundle run --config_file configs/inference.json --dataset_dir CASES --output_dir RESULTS
```
`CASES` holds a folder a case, with files that end in the names of the channels (`CASE/CASE-{first}.nii.gz`), or files
with one channel a modality; `RESULTS/CASE_seg.nii.gz` is the label map on the case's own grid.{mirrorings}

To check the bundle (`verify_metadata` loads MONAI's schema from the internet):
```
python -m monai.bundle verify_metadata --meta_file configs/metadata.json --filepath schema.json
python -m monai.bundle verify_net_in_out network_def --meta_file configs/metadata.json \\
    --config_file configs/inference.json --device cpu --n 2
```
From another folder, put the bundle on PYTHONPATH and set `--bundle_root`.

The preprocessing is the one the model was trained with: NaN, infinite voxels, and an outside of T1, T1c, T2 or FLAIR
that is not 0 brought to 0 (images that are empty, equal, or masks are refused), axes to {orientation}, {crop},{bias}
{normalisation}, then voxels of {spacing} mm (averaged towards coarser voxels, which MONAI's `Spacing` does
not do). The probabilities, not the labels, are brought back to the case's grid.

## TorchScript and ONNX
There is no `model.ts` and no `model.onnx`.
{reason}

Research use only; not a medical device.
"""

# of the models whose images `segmamba predict` prepares by itself: preparation.plan
_BRAIN = """

They show the brain alone, and 0 around it. `segmamba predict` registers raw images of a head and cuts the brain out by
itself; this bundle does neither, and what it makes of a head with its skull is wrong: prepare such images before."""
_SCAN = """The selective scan of its Mamba layers runs in kernels outside of torch's operators (compiled by
numba on the CPU, those of mamba-ssm on a GPU), which a recorded graph does not contain. Its form in plain torch walks
through the tokens in pieces, as many as the image asks for: a recorded graph holds good for one size of window alone.
`segmamba export --format torch-export` records it so; ONNX has no operator for such a scan."""
_OTHER = """It was not tried for this network: a bundle's `model.pt` and `network_def` are what MONAI runs."""


def readme(manifest: Manifest, card: str) -> str:
    """The bundle's README: what the model is, and its card."""
    values, spec = metadata(manifest), manifest.preprocess
    bias = " freed of its bias field (N4)," if spec.bias_correction == "n4" else ""
    labels = sorted(manifest.label_map.items(), key=lambda item: item[1])
    crop = "cut to the voxels that are not 0" if spec.crop == "foreground" else "not cut"
    normalisation = {
        "zscore_nonzero": "each channel's nonzero voxels to mean 0 and deviation 1",
        "zscore_box": "each channel to mean 0 and deviation 1",
        "window": f"intensities clipped to {spec.intensity} and scaled",
    }[spec.normalisation]
    sided = manifest.scheme.sides() is not None
    note = _NOTE.format(
        id=manifest.id,
        digest=manifest.weights_sha256,
        channels=manifest.network.in_channels,
        modalities=", ".join(spec.modalities),
        labels="\n".join(f"| {name} | {value} |" for name, value in labels),
        monai=values["monai_version"],
        packages=" ".join(values["required_packages_version"]),
        brain=_BRAIN if set(spec.modalities) <= set(MODALITIES) else "",
        first=spec.modalities[0],
        mirrorings="" if sided else "\nSeven mirrorings: `--inferer#mirrorings 7`.",
        orientation=spec.orientation,
        crop=crop,
        bias=bias,
        normalisation=normalisation,
        spacing=" x ".join(f"{size:g}" for size in spec.spacing),
        reason=_SCAN if uses_scan(manifest) else _OTHER,
    )
    return card.rstrip() + "\n" + note
