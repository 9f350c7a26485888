"""Small model packages with random weights, to be exported."""

from segmamba.models.package import Manifest, save_package
from segmamba.models.specs import InferenceSpec, PreprocessSpec
from segmamba.networks.segmamba import NetworkConfig

SMALL = NetworkConfig(features=(4, 4, 8, 8), full_features=4, bottleneck=8, depths=(1, 1, 1, 1))
GLIOMA_SPEC = PreprocessSpec(modalities=("t2w", "t2f", "t1n", "t1c"), spacing=(5.0, 4.0, 4.0))


def package(folder, network, spec, window=(32, 48, 48), nested=(), **more):
    """Writes a model package with random weights; returns its folder."""
    manifest = Manifest(
        id=folder.name,
        network=network.config,
        preprocess=spec,
        inference=InferenceSpec(window=window, nested=nested),
        **more,
    )
    save_package(folder, network, manifest, f"# {folder.name}\n\nIts card.\n")
    return folder
