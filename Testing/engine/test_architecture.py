"""The walls of the house, read from the source: who imports whom, who prints, how long a file is.

A room that is new, or an import that is new, fails here until this table says that it is meant.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "Training" / "segmamba"
SLICER_SIDE = ROOT / "SegMambaSlicer"

# Room -> rooms that it may import, each standing above it. A folder (network, phantom) is one room here.
# "segmamba" itself, which holds only the version, is open to all.
ROOMS = {
    "errors": "",
    "devices": "errors",
    "files": "",
    "settings": "errors",
    "labels": "errors",
    "itk_io": "errors",
    "image_io": "errors itk_io",
    "case_folder": "errors image_io",
    "dicom": "errors files image_io itk_io labels",
    "images": "dicom image_io",
    "case": "errors image_io images case_folder labels",
    "label_files": "errors image_io",
    "swaps": "",
    "resample": "",
    "bias": "",
    "brain": "bias errors",
    "prepare": "brain case case_folder errors image_io",
    "look": "image_io prepare swaps",
    "preprocess": "errors bias case resample",
    "network": "errors",
    "baselines": "errors network",
    "networks": "errors network baselines",
    "inference": "errors network",
    "incomplete": "errors",
    "postprocess": "errors labels",
    "segment": "case preprocess inference postprocess",
    "package": "errors files settings labels incomplete network networks inference preprocess",
    "predict": "errors files image_io images incomplete labels case network package postprocess prepare segment swaps",
    "worker": "devices errors files case network package predict",
    "metrics": "errors labels",
    "confidence": "errors",
    "evaluate": "errors confidence label_files labels metrics",
    "compare": "errors confidence evaluate",
    "score_tables": "",
    "phantom": "errors labels",
    "picture": "case files labels",
    "demo": "case evaluate package phantom picture predict",
    "dataset": "errors files settings image_io case_folder case labels",
    "shares": "errors",
    "corrections": "case dataset errors files image_io images labels metrics prepare settings shares",
    "registry": "errors files package settings shares",
    "config": "errors settings networks inference preprocess",
    "augment": "",
    "checkpoint": "errors files",
    "distributed": "errors",
    "optimize": "errors config network",
    "run_folder": "files",
    "samples": "errors files augment case dataset preprocess",
    "experiment": "errors augment config dataset distributed inference labels network networks package samples",
    "gate": "case compare confidence dataset errors files labels metrics package picture samples segment",
    "recipes": "config dataset errors network networks package settings",
    "validation": "case distributed inference labels metrics package picture preprocess samples segment",
    "report": "errors files picture",
    "stop_signals": "",
    "journal": "distributed report run_folder",
    "training": "checkpoint config distributed errors experiment journal optimize package report run_folder samples "
    "stop_signals validation",
    "costs": "case config distributed experiment network optimize segment",
    "table1": "baselines config costs errors files network networks optimize package run_folder training",
    "site": "config corrections dataset errors files gate package phantom recipes registry settings shares "
    "stop_signals training",
    "bundle_parts": "bias inference resample",
    "export": "errors files network package",
    "commands": "case compare config corrections dataset demo devices dicom errors evaluate export files gate "
    "inference look network package phantom predict preprocess recipes registry report score_tables site table1 "
    "training",
    "cli": "errors commands",
    "__main__": "cli",
}
# The same inside the network room. The scan with its back ends is one room, so is the norm.
NETWORK = {
    "scan": "",
    "norm": "scan",
    "conv": "",
    "unet": "conv norm",
    "mamba": "scan",
    "blocks": "conv mamba norm",
    "segmamba": "blocks mamba norm unet",
    "published": "segmamba",
    "__init__": "published segmamba",
}
# Rooms that a machine without torch could use, but for what they are given.
WITHOUT_TORCH = [
    *("errors", "files", "settings", "labels", "itk_io", "image_io", "case_folder", "case"),
    *(
        "images",
        "swaps",
        "look",
        "incomplete",
        "prepare",
        "dicom",
        "postprocess",
        "metrics",
        "evaluate",
        "phantom",
        "picture",
    ),
]
SLICER = {"slicer", "qt", "ctk", "vtk", "mrml", "slicer_core", "MRMLCorePython", "vtkSegmentationCorePython"}


def sources(folder):
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def imports(path, root=ENGINE, package="segmamba"):
    """Absolute names of every module that a file imports, anywhere in it, with `from a import b` as a.b."""
    here = [package, *path.relative_to(root).with_suffix("").parts[:-1]]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else []
            base = ".".join([*base, node.module] if node.module else base)
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def top_levels(path, **where):
    return {name.partition(".")[0] for name in imports(path, **where)}


def room_of(path, folder=ENGINE):
    parts = path.relative_to(folder).with_suffix("").parts
    return parts[0]


def rooms_imported(path, prefix, rooms):
    """Which of `rooms` below the package `prefix` a file imports."""
    below = [name.removeprefix(f"{prefix}.") for name in imports(path) if name.startswith(f"{prefix}.")]
    return {name.partition(".")[0] for name in below} & rooms


# --- inside the engine


def test_the_table_has_every_room_and_no_other():
    assert {room_of(path) for path in sources(ENGINE)} == {*ROOMS, "__init__"}
    assert {room_of(path, ENGINE / "network") for path in sources(ENGINE / "network")} == set(NETWORK)


@pytest.mark.parametrize("table", [ROOMS, NETWORK], ids=["engine", "network"])
def test_the_table_knows_no_circle(table):
    above = set()
    for room, allowed in table.items():
        assert set(allowed.split()) <= above, room
        above.add(room)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_its_table_allows(room):
    """Exactly that: what is no longer imported is to be struck out."""
    found = set()
    for path in sources(ENGINE):
        if room_of(path) == room:
            found |= rooms_imported(path, "segmamba", set(ROOMS)) - {room}
    assert found == set(ROOMS[room].split())


@pytest.mark.parametrize("room", NETWORK)
def test_a_part_of_the_network_imports_only_what_its_table_allows(room):
    found = set()
    for path in sources(ENGINE / "network"):
        if room_of(path, ENGINE / "network") == room:
            found |= rooms_imported(path, "segmamba.networks.choice", set(NETWORK)) - {room}
    assert found == set(NETWORK[room].split())


def test_data_flows_one_way():
    """The order of CONTRIBUTING.md, which no change of the table above may turn round."""
    order = ["case", "preprocess", "network", "inference", "postprocess", "predict", "commands", "cli"]
    assert sorted(order, key=list(ROOMS).index) == order


def test_the_package_itself_imports_nothing():
    assert imports(ENGINE / "__init__.py") <= {"__future__.annotations"}


@pytest.mark.parametrize("path", sources(ENGINE), ids=lambda path: str(path.relative_to(ENGINE)))
def test_the_engine_knows_no_slicer(path):
    assert not top_levels(path) & SLICER


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_rooms_of_images_and_labels_know_no_networks(room):
    for path in sources(ENGINE):
        if room_of(path) == room:
            assert not top_levels(path) & {"torch", "monai"}, path.name


def test_the_network_knows_no_files_of_images():
    for path in sources(ENGINE / "network"):
        assert not top_levels(path) & {"nibabel", "SimpleITK", "json"}, path.name


# --- the other side of the wall


def test_the_slicer_side_knows_no_engine():
    for path in sources(SLICER_SIDE):
        found = top_levels(path, root=SLICER_SIDE, package="SegMambaSlicer")
        assert not found & {"torch", "monai", "nibabel", "segmamba", "SimpleITK", "numba", "safetensors"}, path.name


# --- style that a machine can check


@pytest.mark.parametrize("path", sources(ENGINE), ids=lambda path: str(path.relative_to(ENGINE)))
def test_nothing_prints_but_the_command_line(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    called = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    assert not called & (
        {"eval", "exec", "compile", "__import__"} | (set() if room_of(path) in ("cli", "commands") else {"print"})
    )


@pytest.mark.parametrize(
    "path", [*sources(ENGINE), *sources(SLICER_SIDE)], ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_file_fits_in_one_reading_and_says_what_it_is(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)), "no docstring"


# --- imports as they happen


def python(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_the_command_line_starts_without_the_heavy_libraries():
    code = "import sys, segmamba, segmamba.cli, segmamba.settings; segmamba.cli._parser(); print(*sys.modules)"
    heavy = {"torch", "monai", "numba", "nibabel", "SimpleITK", "scipy", "matplotlib", "numpy", "tqdm"}
    loaded = set(python(code))
    assert "segmamba.cli" in loaded
    assert not loaded & heavy


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_every_room_can_be_the_first_to_be_imported():
    """No circle, nor a room that works only after another. The libraries are imported once, then a child a room."""
    paths = [path.relative_to(ENGINE.parent) for path in sources(ENGINE) if path.name != "__main__.py"]
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    code = f"""
import os, sys, warnings
warnings.simplefilter("ignore")
import torch, monai.inferers, monai.losses, monai.networks.blocks, monai.transforms, nibabel, scipy.ndimage, SimpleITK
assert not any(name.startswith("segmamba") for name in sys.modules)
for module in {modules!r}:
    child = os.fork()
    if not child:
        try:
            __import__(module)
            os._exit(0)
        except BaseException as error:
            print(module, repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        print(module)
"""
    assert python(code) == []
