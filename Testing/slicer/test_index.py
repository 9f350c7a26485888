"""What the Extensions Index looks at holds here, and each check sees a tree in which it does not."""

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Testing" / "index"))

import dry_run  # noqa: E402

LARGE = 1_000_000  # bytes
LIBRARY = "SegMambaSlicer/SegMambaSlicerLib"


@pytest.mark.parametrize("check", dry_run.CHECKS, ids=lambda check: check.__name__)
def test_the_repository_is_one_that_the_index_takes(check):
    assert list(check(ROOT)) == []


@pytest.fixture
def tree(tmp_path):
    """A copy without its history; of what is large, such as weights, the name alone."""
    for source in dry_run.tracked(ROOT):
        target = tmp_path / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.stat().st_size < LARGE:
            shutil.copyfile(source, target)
        else:
            target.touch()
    return tmp_path


def change(tree, name, before, after):
    path = tree / name
    text = path.read_text(encoding="utf-8")
    assert before in text, f"{name} does not hold {before!r}: the test is out of date"
    path.write_text(text.replace(before, after), encoding="utf-8", newline="")


FAULTS = [
    ("check_entry", "SegMambaSlicer.json", "\n", "\r\n"),
    ("check_entry", "SegMambaSlicer.json", '"tier": 3', '"tier": 9'),
    ("check_entry", "SegMambaSlicer.json", '"category": "Segmentation"', '"category": "Brains"'),
    ("check_entry", "SegMambaSlicer.json", '"tier": 3', '"tier": 3, "wiki": ""'),
    ("check_names", "SegMambaSlicer.json", "/SlicerSegMamba", "/SegMamba"),
    ("check_build", "CMakeLists.txt", "project(SegMambaSlicer)", "project(Segmentation)"),
    ("check_build", "CMakeLists.txt", 'set(EXTENSION_ICONURL "', 'set(EXTENSION_ICONURL\n "'),
    ("check_build", "CMakeLists.txt", "  add_subdirectory(Testing)", ""),
    ("check_build", "Testing/CMakeLists.txt", "slicer_add_python_unittest", "add_python_test"),
    ("check_pictures", "CMakeLists.txt", "Screenshots/panel.png", "Screenshots/none.png"),
    ("check_pictures", "CMakeLists.txt", "/main/Resources", "/master/Resources"),
    ("check_licence", "README.md", "Apache-2.0", "free"),
    ("check_accord", "SegMambaSlicer.s4ext", "tier 3", "tier 4"),
    ("check_accord", "CMakeLists.txt", 'EXTENSION_DEPENDS "PyTorch"', 'EXTENSION_DEPENDS "NA"'),
    ("check_accord", f"{LIBRARY}/panel/help.py", "github.com/SegMambaSlicer/", "github.com/somebody/"),
    ("check_texts", "README.md", "(TUTORIAL.md)", "(README.md)"),
    ("check_texts", "CMakeLists.txt", "github.com/SegMambaSlicer", "github.com/OWNER"),
    ("check_links", "TUTORIAL.md", "Screenshots/slice.png", "Screenshots/gone.png"),
    ("check_loading", f"{LIBRARY}/report.py", "import vtk\n", "import vtk\nimport torch\n"),
    ("check_loading", f"{LIBRARY}/report.py", "import vtk\n", "import vtk\nslicer.util.pip_install('x')\n"),
    ("check_loading", f"{LIBRARY}/report.py", "import vtk\n", "import vtk\nimport urllib.request\n"),
    ("check_versions", f"{LIBRARY}/report.py", "import vtk\n", "import vtk\nimport tomllib\n"),
    ("check_versions", f"{LIBRARY}/report.py", "import vtk\n", "import vtk\nimport imp\n"),
    ("check_versions", f"{LIBRARY}/report.py", "import vtk\n", "import vtk\nlist(zip([], [], strict=True))\n"),
    ("check_versions", f"{LIBRARY}/report.py", "import vtk\n", "import vtk\nisinstance(1, int | str)\n"),
    ("check_versions", f"{LIBRARY}/report.py", "import vtk\n", "import vtk\nmatch 1:\n    case _:\n        pass\n"),
    ("check_versions", f"{LIBRARY}/report.py", "import vtk\n", "import vtk\ndialog.exec_()\n"),
    ("check_versions", f"{LIBRARY}/i18n.py", "(text: str)", "(text: str | None)"),
]


@pytest.mark.parametrize("check, name, before, after", FAULTS)
def test_a_fault_is_seen_and_nothing_else(tree, check, name, before, after):
    function = getattr(dry_run, check)
    assert list(function(tree)) == []
    change(tree, name, before, after)
    assert list(function(tree))


def test_a_picture_of_another_kind_a_library_and_a_large_history_are_seen(tree):
    (tree / "Resources/Screenshots/panel.png").write_bytes(b"GIF89a")
    assert list(dry_run.check_pictures(tree)) == ["Resources/Screenshots/panel.png is no PNG"]
    (tree / "helper.so").write_bytes(b"\x7fELF")
    assert list(dry_run.check_size(tree)) == ["helper.so is a binary, an archive, or has to be compiled"]
    with (tree / "large.bin").open("wb") as file:
        file.truncate(110_000_000)
    assert any("MB, history included" in problem for problem in dry_run.check_size(tree))


def test_one_command_moves_the_address_everywhere(tree, capsys):
    assert dry_run.main(["--root", str(tree), "--address", "https://github.com/somebody/SlicerBrain"]) == 0
    assert "11 of 11 hold for https://github.com/somebody/SlicerBrain" in capsys.readouterr().out
    for name in dry_run.HOLDERS:
        text = (tree / name).read_text(encoding="utf-8")
        assert "somebody/SlicerBrain" in text
        assert "SegMambaSlicer/SlicerSegMamba" not in text
