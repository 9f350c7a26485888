"""What the tests of the Slicer side share: Slicer's scene, and the real images where there are any.

They run on Slicer's own libraries (slicer-core); without them the folder is left out, with a reason.
"""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED_DATA = ROOT.parent / "shared" / "data"
# Not Testing itself: slicer-core takes any folder called "slicer" on the path for a part of its own.
sys.path[:0] = [str(ROOT / "SegMambaSlicer"), str(ROOT / "Testing" / "support")]

try:
    import slicer  # noqa: F401
    import vtk
except ImportError:
    collect_ignore_glob = ["test_*.py", "*/test_*.py"]

    def pytest_terminal_summary(terminalreporter):
        terminalreporter.write_line("Testing/slicer is left out: it needs slicer-core (pip install -e Training[dev])")


@pytest.fixture
def scene():
    """Slicer's scene, empty but for what Slicer itself keeps there."""
    from mrml import CoreApplication

    core = CoreApplication.shared()
    core.clear()
    yield core.scene
    core.clear()


@pytest.fixture(autouse=True)
def vtk_errors():
    """The errors that VTK and MRML print and nobody reads; a test fails on them unless it takes them off this list."""
    errors = []

    @vtk.calldata_type(vtk.VTK_STRING)
    def note(_window, _event, text):
        errors.append(text)

    window = vtk.vtkOutputWindow.GetInstance()
    tag = window.AddObserver(vtk.vtkCommand.ErrorEvent, note)
    yield errors
    window.RemoveObserver(tag)
    assert not errors


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
    """Four slices each of a GE, a Philips and a Siemens series."""
    return _need("dicom", "dicom2nifti")
