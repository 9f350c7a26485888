"""What several test files need: where the real images are, where there are any."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def _need(*parts: str) -> Path:
    folder = SHARED_DATA.joinpath(*parts)
    if not folder.is_dir():
        pytest.skip(f"needs the real images in {folder}, which are not part of the repository")
    return folder


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
