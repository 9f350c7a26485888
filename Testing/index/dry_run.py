"""What the Extensions Index of 3D Slicer looks at, tried without it: python Testing/index/dry_run.py

Its automatic checks (scripts/check_description_files.py of the index), what its reviewers ask for (its checklist for
pull requests), and what Slicer's versions from Python 3.9 on demand of a module. Needs no network: an address is
followed to the file in this repository that it will lead to. What only a person can do is printed at the end.

The repository's address is said once, as `scm_url` in SegMambaSlicer.json; the build, the panel and the legacy
description repeat it. `--address URL` moves all of them.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "SegMambaSlicer"
MODULE = "SegMambaSlicer"
HOLDERS = (
    "SegMambaSlicer.json",
    "SegMambaSlicer.s4ext",
    "CMakeLists.txt",
    "SegMambaSlicer/SegMambaSlicerLib/panel/help.py",
)
REQUIRED = {"$schema", "category", "scm_url"}
KEYS = REQUIRED | {"build_dependencies", "build_subdirectory", "scm_revision", "scm_type", "dicom_support_rule"}
KEYS |= {"enabled", "tier"}
SCHEMA = (
    "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.2.json#"
)
CATEGORIES = {"Segmentation", "Neuroimaging", "Active Learning"}  # of those that the index takes, what fits
DEPENDENCIES = {"PyTorch"}  # of the extensions there are, what is asked for
LICENCES = {"LICENSE", "LICENCE", "License.txt", "license.txt", "LICENSE.txt", "COPYING", "COPYING.txt"}
MOST_BYTES = 100e6  # of the repository with its history
BINARIES = {".exe", ".dll", ".so", ".dylib", ".whl", ".jar", ".pyc", ".zip", ".gz", ".cxx", ".h", ".cpp"}
PLACEHOLDERS = re.compile(r"example\.(?:com|org)|\bOWNER\b|\bTODO\b|\bFIXME\b|your-?name|lorem ipsum|John Doe", re.I)
AT_FILE_SCOPE = {"slicer", "qt", "ctk", "vtk", "numpy", "scipy", "SimpleITK", "SegMambaSlicerLib"}
NEWER_MODULES = {"tomllib"}  # than Python 3.9
GONE_MODULES = {"imp", "distutils", "asyncore", "asynchat", "smtpd"}  # from Python 3.12
NOT_IN_QT6 = re.compile(
    r"\.exec_\(|QRegExp\b|QRegExpValidator|QDesktopWidget|QTextCodec|QSignalMapper|QMatrix\b|\.setMargin\(|QStringRef"
    r"|\.toTime_t\(|QFontMetrics[^\n]*\.width\("
)
NETWORK = re.compile(r"^\s*(?:import|from) (?:urllib|requests|http|socket|ftplib|smtplib|webbrowser)\b", re.M)
BY_HAND = (
    "the repository is public under the address above, with the topic 3d-slicer-extension",
    "unused tabs of the repository (Wiki, Projects, Discussions) are hidden",
    "the pictures open in a browser from the addresses in CMakeLists.txt",
    "the entry SegMambaSlicer.json is sent to the index, once for each branch",
)


def entry(root: Path) -> dict:
    return json.loads((root / f"{NAME}.json").read_text(encoding="utf-8"))


def variable(root: Path, name: str) -> str:
    """What CMakeLists.txt says in one line, in quotes: the index reads it by such a pattern, and runs no CMake."""
    found = re.search(rf'^\s*set\({name} "([^"\n]*)"\)', (root / "CMakeLists.txt").read_text("utf-8"), re.M)
    return found[1] if found else ""


def legacy(root: Path) -> dict[str, str]:
    lines = (root / f"{NAME}.s4ext").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return {key: value for key, _, value in pairs}


def tracked(root: Path) -> list[Path]:
    """The repository's files; of a folder that is none, all of them."""
    if (root / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout.decode()
        return [root / name for name in listed.split("\0") if name and (root / name).is_file()]
    return [path for path in sorted(root.rglob("*")) if path.is_file()]


def slicer_side(root: Path) -> Iterator[tuple[Path, str]]:
    """What runs inside Slicer."""
    for folder in (root / MODULE, root / "Testing" / "slicer" / "contract"):
        for path in sorted(folder.rglob("*.py")):
            if path.name == "conftest.py":  # of pytest, outside Slicer
                continue
            yield path, path.read_text(encoding="utf-8")


# --- the automatic checks of the index


def check_entry(root: Path) -> Iterator[str]:
    """The entry is JSON of its schema, with LF, sorted, of two spaces"""
    raw = (root / f"{NAME}.json").read_bytes()
    if b"\r" in raw or b"\t" in raw or not raw.endswith(b"\n"):
        yield "lines end in LF alone, the file too, and no tabs"
    values = entry(root)
    if set(values) - KEYS or REQUIRED - set(values):
        yield f"keys {sorted(set(values) - KEYS)} too many, {sorted(REQUIRED - set(values))} missing"
    if list(values) != sorted(values):
        yield "keys are sorted"
    if values.get("$schema") != SCHEMA:
        yield f"$schema is {SCHEMA}"
    if values.get("category") not in CATEGORIES:
        yield f"category {values.get('category')} is none of {sorted(CATEGORIES)}"
    if values.get("tier") not in range(1, 6):
        yield f"tier {values.get('tier')} is none of 1 to 5"
    for name in set(values.get("build_dependencies", ())) - DEPENDENCIES:
        yield f"build_dependencies: {name} is in no list of ours; see whether the index has it"


def check_names(root: Path) -> Iterator[str]:
    """The extension's name does not begin with Slicer, and the repository's does"""
    if NAME.lower().startswith("slicer"):
        yield f"{NAME} begins with slicer"
    url = entry(root)["scm_url"]
    if not re.fullmatch(r"https://github\.com/[\w.-]+/Slicer(?:Extension)?[-_]?\w[\w.-]*(?<!\.git)", url):
        yield f"scm_url {url}: expected https://github.com/SOMEBODY/SlicerSOMETHING"


def check_size(root: Path) -> Iterator[str]:
    """Repository and history are at most 100 MB; no binaries but images, nothing that has to be compiled"""
    total = sum(path.stat().st_size for path in tracked(root))
    if (root / ".git").exists():
        # what a clone gets: other branches, and what is left of rewritten ones, stay here
        command = ["git", "rev-list", "--objects", "--disk-usage", "HEAD"]
        total += int(subprocess.run(command, cwd=root, capture_output=True, check=True, text=True).stdout)
    if total > MOST_BYTES:
        yield f"{total / 1e6:.0f} MB, history included"
    for path in tracked(root):
        isImage = path.name.endswith(".nii.gz")
        if (path.suffix in BINARIES and not isImage) or "__pycache__" in path.parts:
            yield f"{path.relative_to(root)} is a binary, an archive, or has to be compiled"


def check_build(root: Path) -> Iterator[str]:
    """CMakeLists.txt: the project's name, its variables in one line each, the tests registered"""
    text = (root / "CMakeLists.txt").read_text(encoding="utf-8")
    project = re.search(r"project\(\s*(\w+)", text)
    if not project or project[1] != NAME:
        yield f"the first project( is {NAME}"
    for name in ("HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "CATEGORY", "DEPENDS"):
        if not variable(root, f"EXTENSION_{name}"):
            yield f"EXTENSION_{name} is set in one line, in quotes"
    if not re.search(r"if\(BUILD_TESTING\)\s*add_subdirectory\(Testing\)", text):
        yield "Testing is added where BUILD_TESTING is on"
    for folder in ("Testing", MODULE):
        if "slicer_add_python_unittest" not in (root / folder / "CMakeLists.txt").read_text(encoding="utf-8"):
            yield f"{folder}/CMakeLists.txt registers no test"


def check_pictures(root: Path) -> Iterator[str]:
    """Icon and screenshots are pictures in this repository, on the branch that the index builds"""
    values = entry(root)
    raw = values["scm_url"].replace("github.com", "raw.githubusercontent.com") + f"/{values.get('scm_revision')}/"
    names = {path.relative_to(root).as_posix() for path in tracked(root)}
    icon, shots = variable(root, "EXTENSION_ICONURL"), variable(root, "EXTENSION_SCREENSHOTURLS").split()
    for url in (icon, *shots):
        name = url.removeprefix(raw)
        if name == url or name not in names:
            yield f"{url} is no file of this repository ({raw}...)"
            continue
        data = (root / name).read_bytes()
        if not data.startswith(b"\x89PNG\r\n"):
            yield f"{name} is no PNG"
        elif url == icon and struct.unpack(">II", data[16:24]) != (128, 128):
            yield f"{name}: an icon has 128 x 128 pixels"


def check_licence(root: Path) -> Iterator[str]:
    """A licence lies in the root, and the homepage names it"""
    if not any((root / name).is_file() for name in LICENCES):
        yield f"none of {sorted(LICENCES)}"
    if "Apache-2.0" not in (root / "README.md").read_text(encoding="utf-8"):
        yield "README.md names the licence"


def check_accord(root: Path) -> Iterator[str]:
    """The entry, the build, the legacy description and the panel say the same, and one address"""
    values, old = entry(root), legacy(root)
    address = values["scm_url"]
    for what, one, other in (
        ("dependencies", " ".join(values.get("build_dependencies", ())), variable(root, "EXTENSION_DEPENDS")),
        ("dependencies", old.get("depends"), variable(root, "EXTENSION_DEPENDS")),
        ("category", values["category"], variable(root, "EXTENSION_CATEGORY")),
        ("category", old.get("category"), values["category"]),
        ("address", address, variable(root, "EXTENSION_HOMEPAGE")),
        ("address", address, old.get("scmurl")),
        ("address", address, old.get("homepage")),
        ("revision", values.get("scm_revision"), old.get("scmrevision")),
        ("tier", str(values.get("tier")), old.get("tier")),
        *((n, old.get(n), variable(root, f"EXTENSION_{n.upper()}")) for n in ("iconurl", "screenshoturls")),
        *((n, old.get(n), variable(root, f"EXTENSION_{n.upper()}")) for n in ("description", "contributors")),
    ):
        if one != other:
            yield f"{what}: {one!r} and {other!r}"
    owner = address.removeprefix("https://github.com/")
    for name in HOLDERS:
        text = (root / name).read_text(encoding="utf-8")
        for found in re.findall(r"github(?:usercontent)?\.com/([\w.-]+/[\w.-]+)", text):
            if found not in (owner, "Slicer/Slicer"):
                yield f"{name} names {found}, not {owner}"
    if address not in (root / HOLDERS[-1]).read_text(encoding="utf-8"):
        yield f"{HOLDERS[-1]} does not hold {address}"


# --- what its reviewers look at


def check_texts(root: Path) -> Iterator[str]:
    """README: what it is, a picture, the module, a tutorial, data to try, how to cite; no placeholders anywhere"""
    description = variable(root, "EXTENSION_DESCRIPTION")
    if not 60 <= len(description) <= 400 or not description.endswith("."):
        yield f"the description has {len(description)} characters; expected one to three sentences"
    readme = (root / "README.md").read_text(encoding="utf-8")
    title = re.search(r'parent\.title = _\("([^"]+)"\)', (root / MODULE / f"{MODULE}.py").read_text(encoding="utf-8"))
    for what, pattern in (
        ("a picture near the top", r"\A.{0,1500}!\["),
        ("the module by its title", re.escape(title[1]) if title else r"\Z\A"),
        ("a tutorial", r"\]\(TUTORIAL\.md"),
        ("sample data", r"[Ss]ample (?:case|data)"),
        ("how to cite", r"CITATION\.cff"),
        ("that it is for research", r"[Rr]esearch use only"),
    ):
        if not re.search(pattern, readme, re.S):
            yield f"README.md lacks {what}"
    for path in (root / "README.md", root / "TUTORIAL.md", *(root / name for name in HOLDERS)):
        if found := PLACEHOLDERS.search(path.read_text(encoding="utf-8")):
            yield f"{path.name} holds {found[0]!r}"


def check_links(root: Path) -> Iterator[str]:
    """Links and pictures in README and tutorial lead to files that are there"""
    for name in ("README.md", "TUTORIAL.md"):
        text = (root / name).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", text):
            target = (link[0] or link[1]).partition("#")[0]
            if target and not target.startswith(("http", "mailto")) and not (root / target).exists():
                yield f"{name} leads to {target}, which is not there"


def check_loading(root: Path) -> Iterator[str]:
    """Loading the module imports what Slicer has, runs nothing, installs nothing, and asks no network"""
    for path, text in slicer_side(root):
        name = path.relative_to(root)
        for node in ast.parse(text).body:
            modules = {a.name for a in node.names} if isinstance(node, ast.Import) else set()
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = {str(node.module)}
            for module in {module.partition(".")[0] for module in modules} - AT_FILE_SCOPE:
                if module not in sys.stdlib_module_names and name.parts[0] == MODULE:
                    yield f"{name}: imports {module} at file scope"
            # a script may end in what it does when it is run by itself
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                yield f"{name}:{node.lineno}: runs something on import"
        if name.parts[0] == MODULE and NETWORK.search(text):
            yield f"{name}: uses the network"
        if re.search(r"pip_install\(\s*[\"']torch", text):
            yield f"{name}: installs torch itself; the extension PyTorch does"


def check_versions(root: Path) -> Iterator[str]:
    """Syntax and modules of Python 3.9 to 3.12; Qt 5 and Qt 6"""
    for path, text in slicer_side(root):
        name = path.relative_to(root)
        try:
            tree = ast.parse(text, feature_version=(3, 9))
        except SyntaxError as error:
            yield f"{name}:{error.lineno}: no Python 3.9 ({error.msg})"
            continue
        lazy = any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body)
        yield from (f"{name}:{line}: {what}" for line, what in _newer(tree, lazy))
        if found := NOT_IN_QT6.search(text):
            yield f"{name}: {found[0]!r} is gone in Qt 6"
    for path in sorted((root / MODULE).rglob("*.ui")):
        if found := NOT_IN_QT6.search(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(root)}: {found[0]!r} is gone in Qt 6"


def _newer(tree: ast.Module, lazy: bool) -> Iterator[tuple[int, str]]:
    """What parses under 3.9 and fails there when it runs, or under 3.12."""
    tried = {id(n) for block in ast.walk(tree) if isinstance(block, ast.Try) for n in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in tried:
            named = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for module in {name.partition(".")[0] for name in named}:
                if module in NEWER_MODULES:
                    yield node.lineno, f"{module} came after Python 3.9"
                if module in GONE_MODULES:
                    yield node.lineno, f"{module} is gone in Python 3.12"
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            keys = {keyword.arg for keyword in node.keywords}
            if (called == "zip" and "strict" in keys) or (called == "dataclass" and keys & {"slots", "kw_only"}):
                yield node.lineno, f"{called}({', '.join(sorted(str(key) for key in keys))}) came after Python 3.9"
            if called == "isinstance" and any(isinstance(n, ast.BinOp) for n in ast.walk(node.args[-1])):
                yield node.lineno, "isinstance with | came after Python 3.9"
            if called in ("pairwise", "bit_count", "add_note", "aiter", "anext"):
                yield node.lineno, f"{called} came after Python 3.9"
        annotation = getattr(node, "annotation", None) or getattr(node, "returns", None)
        if annotation is not None and not lazy and any(isinstance(n, ast.BitOr) for n in ast.walk(annotation)):
            yield node.lineno, "X | Y is evaluated here: from __future__ import annotations"


CHECKS = tuple(function for name, function in list(globals().items()) if name.startswith("check_"))


def move(root: Path, address: str) -> None:
    """Another address in all files that hold it."""
    before = entry(root)["scm_url"].removeprefix("https://github.com/")
    after = address.rstrip("/").removeprefix("https://github.com/")
    for name in HOLDERS:
        text = (root / name).read_text(encoding="utf-8")
        (root / name).write_text(text.replace(f".com/{before}", f".com/{after}"), encoding="utf-8", newline="\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What the Extensions Index looks at, tried without it.")
    parser.add_argument("--address", metavar="URL", help="move the repository's address in all files that hold it")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.address:
        move(options.root, options.address)
    failed = 0
    for check in CHECKS:
        problems = list(check(options.root))
        failed += bool(problems)
        print(f"{'FAILED' if problems else 'ok':8}{check.__doc__}")
        for problem in problems:
            print(f"        - {problem}")
    print(f"\n{len(CHECKS) - failed} of {len(CHECKS)} hold for {entry(options.root)['scm_url']}. By hand:")
    for text in BY_HAND:
        print(f"  - {text}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
