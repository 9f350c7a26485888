"""Who may import whom, read from the source: the table of ARCHITECTURE.md; who prints, and how long a file is.

A package that is new, or an import that points upwards, fails here. Where something below needs something above, what
it needs is moved down; the table stays.
"""

import ast
import importlib.util
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "Training" / "segmamba"
SLICER_SIDE = ROOT / "SegMambaSlicer"
LIBRARY = SLICER_SIDE / "SegMambaSlicerLib"

# From the entrances down: each imports only what stands in a line below its own, wherever in a file the import is.
ENGINE_LEVELS = (
    "__main__",
    "cli",
    "commands worker",
    "learning",
    "followup",
    "training",
    "export",
    "prediction",
    "evaluation",
    "models",
    "datasets",
    "preparation",
    "networks",
    "cases",
    "images",
    "settings",
    "files",
    "errors limits shared",
)
LIBRARY_LEVELS = (
    "panel",
    "selftest session",
    "parameters report run sample",
    "learning",
    "followup",
    "results",
    "volumes",
    "engine",
    "errors i18n",
)
TREES = {"segmamba": (ENGINE, ENGINE_LEVELS), "SegMambaSlicerLib": (LIBRARY, LIBRARY_LEVELS)}
# What a machine without torch can import; resampling is for tensors.
WITHOUT_TORCH = "cli commands worker evaluation datasets preparation cases images files settings errors shared"
NEEDS_TORCH = "segmamba.images.resample"
SLICER = {"slicer", "qt", "ctk", "vtk", "mrml", "slicer_core", "MRMLCorePython", "vtkSegmentationCorePython"}
IN_SLICER = {"slicer", "qt", "ctk", "vtk", "numpy", "SegMambaSlicerLib", *sys.stdlib_module_names}


@cache
def sources(folder):
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


@cache  # many tests look at each file
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path):
    """The dotted name by which a file is imported; a package goes by its folder."""
    root = ENGINE.parent if ENGINE in path.parents else SLICER_SIDE
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imported(path, nodes=None):
    """Absolute names of everything that a file imports, anywhere in it, with `from a import b` as a.b."""
    here = module_name(path).split(".") if path.name == "__init__.py" else module_name(path).split(".")[:-1]
    names = set()
    for node in nodes or ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else []
            base = ".".join([*base, node.module] if node.module else base)
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def at_file_scope(path):
    """The names that a file imports when it is itself imported."""
    waiting, nodes = [parsed(path)], []
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                nodes.append(node)
                waiting.append(node)
    return imported(path, nodes)


def top_levels(names):
    return {name.partition(".")[0] for name in names}


def package_of(path):
    return module_name(path).split(".")[1] if module_name(path).count(".") else "__init__"


# --- the table


@pytest.mark.parametrize("tree", TREES)
def test_the_table_names_every_package_once(tree):
    folder, levels = TREES[tree]
    assert sorted(" ".join(levels).split()) == sorted({package_of(path) for path in sources(folder)} - {"__init__"})


@pytest.mark.parametrize("path", [*sources(ENGINE), *sources(LIBRARY)], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_is_below_its_package(path):
    tree, own = module_name(path).split(".")[0], package_of(path)
    level = {name: n for n, names in enumerate(TREES[tree][1]) for name in names.split()}
    found = {name.split(".")[1] for name in imported(path) if name.startswith(f"{tree}.")} & set(level)
    assert not [name for name in found - {own} if level[name] <= level.get(own, len(level))]


@pytest.mark.parametrize("tree", TREES)
def test_no_modules_import_one_another_in_a_circle(tree):
    """Imports inside functions count: a circle that is put off is one all the same."""
    modules = {module_name(path): path for path in sources(TREES[tree][0])}
    below = {}
    for module, path in modules.items():
        names = {name if name in modules else name.rpartition(".")[0] for name in imported(path)}
        below[module] = names & set(modules) - {module}
    while free := [module for module, names in below.items() if not names & set(below)]:
        for module in free:
            del below[module]
    assert not below


@pytest.mark.parametrize("path", sorted(ENGINE.glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_a_package_of_the_engine_says_its_words_and_loads_nothing(path):
    (only,) = parsed(path).body
    assert isinstance(only, ast.Expr)


def test_the_engine_itself_imports_nothing():
    assert imported(ENGINE / "__init__.py") <= {"__future__.annotations"}


# --- ARCHITECTURE.md


def sections():
    """Title -> text of each section of ARCHITECTURE.md."""
    parts = re.split(r"^## (.*)$", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


@pytest.mark.parametrize(
    ("title", "levels"),
    [("The engine: `Training/segmamba/`", ENGINE_LEVELS[1:]), ("The Slicer side: `SegMambaSlicer/`", LIBRARY_LEVELS)],
)
def test_the_tables_for_people_are_the_tables_here(title, levels):
    rows = re.findall(r"^\| (`.*?) \|", sections()[title], flags=re.MULTILINE)
    assert [sorted(re.findall(r"`(\w+)`", row)) for row in rows] == [sorted(level.split()) for level in levels]


def test_what_is_named_for_people_is_there():
    """Every file, and every function, class, table and test in it."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    roots = [ROOT, ENGINE, LIBRARY, SLICER_SIDE, ROOT / "Testing" / "engine", ROOT / "Testing" / "slicer"]
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 80
    for file, name in named:
        paths = [root / file for root in roots if (root / file).is_file()]
        assert len(paths) >= 1, file
        defined = {
            getattr(node, "name", None) or node.targets[0].id
            for path in paths
            for node in parsed(path).body
            if hasattr(node, "name") or (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name))
        }
        assert not name or name in defined, f"{file}::{name}"


# --- the boundary between the engine and Slicer


@pytest.mark.parametrize("path", sources(ENGINE), ids=lambda path: str(path.relative_to(ENGINE)))
def test_the_engine_knows_no_slicer(path):
    assert not top_levels(imported(path)) & SLICER


@pytest.mark.parametrize("path", sources(SLICER_SIDE), ids=lambda path: str(path.relative_to(SLICER_SIDE)))
def test_the_slicer_side_knows_no_engine_and_loads_what_slicer_has(path):
    assert not top_levels(imported(path)) & {"torch", "monai", "nibabel", "segmamba", "SimpleITK", "numba"}
    assert top_levels(at_file_scope(path)) <= IN_SLICER


@pytest.mark.parametrize("path", sources(ENGINE / "shared"), ids=lambda path: path.name)
def test_what_both_sides_load_needs_nothing_but_numpy_and_the_python_of_slicer(path):
    assert top_levels(imported(path)) <= {"numpy", *sys.stdlib_module_names}
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))


@pytest.mark.parametrize("path", sources(SLICER_SIDE), ids=lambda path: str(path.relative_to(SLICER_SIDE)))
def test_the_slicer_side_keeps_to_the_syntax_of_python_3_9(path):
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))


# --- style that a machine can check


@pytest.mark.parametrize("path", sources(ENGINE), ids=lambda path: str(path.relative_to(ENGINE)))
def test_nothing_prints_but_the_command_line(path):
    calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    called = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    assert not called & {"eval", "exec", "compile", "__import__"}
    assert package_of(path) in ("cli", "commands") or "print" not in called


def test_folders_that_several_accounts_may_share_are_made_by_make_folder():
    """Which hands on the group and its right to write; the record of times is the account's own."""
    made = [path.relative_to(ENGINE).as_posix() for path in sources(ENGINE) if "exist_ok=True" in path.read_text()]
    assert made == ["files/atomic.py", "worker/timing.py"]


@pytest.mark.parametrize(
    "path", [*sources(ENGINE), *sources(SLICER_SIDE)], ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_file_fits_in_one_reading_and_says_what_it_is(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert ast.get_docstring(parsed(path)), "no docstring"


def test_no_two_files_of_tests_have_one_name():
    """pytest, which imports each by its name alone, leaves out the second where both are collected."""
    names = [path.name for path in (ROOT / "Testing").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def names_in(path):
    """Every name that a file gives, takes or asks for."""
    nodes = ast.walk(parsed(path))
    return {getattr(node, kind, None) for node in nodes for kind in ("name", "asname", "id", "attr", "arg")} - {None}


def in_parts(name):
    """A name with its words apart, whether written in snake_case or camelCase: _hearAgain -> _hear_again_."""
    return f"_{re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', name).lower().strip('_')}_"


def test_words_that_were_given_up_are_in_no_name():
    words = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", sections()["Glossary"], flags=re.MULTILINE))
    names = {name: path.name for path in [*sources(ENGINE), *sources(SLICER_SIDE)] for name in names_in(path)}
    assert len(words) > 5 and set(words) <= set(names)
    assert not {
        name: file for name, file in names.items() for word in words.values() if in_parts(word) in in_parts(name)
    }


def texts_in(path):
    """The texts of several words in a file, apart from its docstrings; of a .ui file or a page, all of it."""
    if path.suffix != ".py":
        return [path.read_text(encoding="utf-8")]
    nodes = list(ast.walk(parsed(path)))
    documented = [node for node in nodes if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = {node.body[0].value for node in documented if node.body and isinstance(node.body[0], ast.Expr)}
    strings = (node for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return [node.value for node in strings if node not in docstrings and " " in node.value]


def test_words_that_were_given_up_are_in_no_text_that_users_see():
    rows = re.findall(r"^\| ([a-z][\w ]*) \| ([a-z][\w ,]*) \|$", sections()["Glossary"], flags=re.MULTILINE)
    words = [word for _, given_up in rows if given_up != "not" for word in given_up.split(", ")]
    assert len(words) > 5
    form = re.compile(rf"\b(?<!{{)({'|'.join(words)})\b")  # {mend} is a name in a text
    files = [*sources(ENGINE), *sources(SLICER_SIDE), *SLICER_SIDE.rglob("*.ui"), ROOT / "README.md"]
    assert not [(path.name, found[0]) for path in files for text in texts_in(path) if (found := form.search(text))]


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


def test_images_labels_scores_and_requests_need_no_torch():
    modules = [module_name(path) for path in sources(ENGINE) if package_of(path) in WITHOUT_TORCH.split()]
    names = sorted({*modules} - {NEEDS_TORCH, "segmamba.worker.__main__"})
    loaded = set(python(f"import sys, {', '.join(names)}; print(*sys.modules)"))
    assert {"segmamba.images.image_io", "segmamba.worker.server", "nibabel"} <= loaded
    assert not loaded & {"torch", "monai"}


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_every_module_can_be_the_first_to_be_imported():
    """None works only after another. What they import of libraries is imported once, then a child a module."""
    modules = [module_name(path) for path in sources(ENGINE) if path.name != "__main__.py"]
    if importlib.util.find_spec("triton") is None:  # its kernels are written with its decorators
        modules = [name for name in modules if name.rpartition(".")[2] not in ("triton_conv", "triton_kernels")]
    names = {name for path in sources(ENGINE) for name in at_file_scope(path)}
    libraries = sorted(name for name in names if top_levels([name]).isdisjoint({"segmamba", *sys.stdlib_module_names}))
    code = f"""
import os, sys, warnings
from importlib import import_module
warnings.simplefilter("ignore")
for name in {libraries!r}:
    for module in (name, name.rpartition(".")[0]):  # it may be a name in a module
        try:
            import_module(module)
            break
        except (ImportError, ValueError):  # ValueError: the name has no module before it
            pass
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
