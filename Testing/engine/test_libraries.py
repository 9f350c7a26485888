"""What the sources name of other libraries is there. A name that only a GPU's path reaches is found missing by nothing
else here."""

import ast
import importlib
import types
from pathlib import Path

import pytest
from segmamba.errors import is_out_of_memory

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for folder in ("Training", "Testing/benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if not {"__pycache__", "build"} & set(path.parts)
)
LIBRARIES = {"torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK", "safetensors"}
OF_SOME_BUILDS = ("torch.ops.",)  # operators that a build of torch registers or not


def aliases(tree):
    """Name in the file -> the module or thing of a library that it stands for."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                if top in LIBRARIES:
                    module = importlib.import_module(alias.name)
                    found[alias.asname or top] = module if alias.asname else importlib.import_module(top)
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in LIBRARIES:
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                found[alias.asname or alias.name] = getattr(module, alias.name)
    return found


def dotted(node):
    """["torch", "cuda", "is_available"] of an attribute; [] where it is not one of a name."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


def missing_names(source):
    """What a file names of a library, by modules and classes, that is not there."""
    tree = ast.parse(source)
    known, missing = aliases(tree), []
    for node in ast.walk(tree):
        names = dotted(node)
        if len(names) < 2 or names[0] not in known or ".".join(names).startswith(OF_SOME_BUILDS):
            continue
        thing = known[names[0]]
        for name in names[1:]:
            if not isinstance(thing, types.ModuleType | type):
                break
            if not hasattr(thing, name):
                missing.append(f"line {node.lineno}: {'.'.join(names)}")
                break
            thing = getattr(thing, name)
    return missing


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_of_a_library_is_there(path):
    assert missing_names(path.read_text(encoding="utf-8")) == []


def test_a_name_that_is_not_there_is_found():
    source = (
        "import torch\nfrom torch import nn\nprint(torch.cuda.getdevice_name(), nn.Linear, torch.cuda.is_available())"
    )
    assert missing_names(source) == ["line 3: torch.cuda.getdevice_name"]
    assert missing_names("import numpy as np\ndef f(np_):\n    return np.float64.nope, np_.nope") == [
        "line 3: np.float64.nope"
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_want_of_memory_is_known_in_whatever_words(error, expected):
    assert is_out_of_memory(error) == expected


def test_torchs_own_error_for_want_of_memory_needs_no_words():
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError()) and is_out_of_memory(torch.cuda.OutOfMemoryError("full"))
