"""The extension as Slicer's build would make it: every file listed, and every list true.

CMake configures, builds and installs the real CMakeLists against a stand-in of Slicer's package, whose macro installs
what it is given and stops at a file that is not there.
"""

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "SegMambaSlicer"
LIB = "lib/Slicer-5.12/qt-scripted-modules"

SLICER_CONFIG = f"""
set(Slicer_USE_FILE ${{CMAKE_CURRENT_LIST_DIR}}/use.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${{CMAKE_CURRENT_LIST_DIR}}/empty.cmake)
set(Slicer_EXTENSION_CPACK ${{CMAKE_CURRENT_LIST_DIR}}/check.cmake)
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR {LIB})
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR {LIB})
"""
USE = """
include(CMakeParseArguments)
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS OR NOT MY_WITH_GENERIC_TESTS)
    message(FATAL_ERROR "unknown: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file IN LISTS MY_SCRIPTS MY_RESOURCES)
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
      message(FATAL_ERROR "listed and not there: ${file}")
    endif()
    get_filename_component(folder ${file} DIRECTORY)
    install(FILES ${file} DESTINATION ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}/${folder})
  endforeach()
endfunction()
function(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "SCRIPT" "" ${ARGN})
  get_filename_component(script ${MY_SCRIPT} ABSOLUTE)
  if(NOT EXISTS ${script})
    message(FATAL_ERROR "no such test: ${script}")
  endif()
  message(STATUS "unit test ${script}")
endfunction()
"""
CHECK = """
foreach(name HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if("${EXTENSION_${name}}" STREQUAL "")
    message(FATAL_ERROR "EXTENSION_${name} is not set")
  endif()
endforeach()
"""


def listed(name):
    text = (MODULE / "CMakeLists.txt").read_text()
    block = re.search(rf"set\({name}\n(.*?)\n\s*\)", text, re.DOTALL)[1]
    return [line.strip().replace("${MODULE_NAME}", "SegMambaSlicer") for line in block.splitlines()]


def files(folder, *patterns):
    found = {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}
    return {path.relative_to(folder).as_posix() for path in found if "__pycache__" not in path.parts}


def test_every_script_is_listed_once():
    assert sorted(listed("MODULE_PYTHON_SCRIPTS")) == sorted(files(MODULE, "*.py"))


def test_every_resource_is_listed_once():
    there = ["Resources/" + name for name in files(MODULE / "Resources", "*")]
    assert sorted(listed("MODULE_PYTHON_RESOURCES")) == sorted(there)


def test_every_resource_bears_the_name_of_the_module():
    """A bundled application installs the resources of all its modules into one folder."""
    names = [Path(name).name for name in listed("MODULE_PYTHON_RESOURCES")]
    assert [name for name in names if not name.startswith("SegMambaSlicer")] == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The extension installed by CMake."""
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake")
    folder = tmp_path_factory.mktemp("with space")
    package, build, prefix = folder / "Slicer", folder / "build", folder / "installed"
    package.mkdir()
    for name, text in (("SlicerConfig", SLICER_CONFIG), ("use", USE), ("check", CHECK), ("empty", "")):
        (package / f"{name}.cmake").write_text(text)
    options = [f"-DSlicer_DIR={package}", f"-DCMAKE_INSTALL_PREFIX={prefix}", "-DBUILD_TESTING=ON"]
    # the languages are Slicer's to choose; a compiler is not needed for what is copied
    options += ["-DCMAKE_C_COMPILER_WORKS=1", "-DCMAKE_CXX_COMPILER_WORKS=1"]
    log = []
    for command in (["-S", ROOT, "-B", build, *options], ["--build", build], ["--install", build]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        log.append(done.stdout)
    return folder, prefix / LIB, log[0]


def test_the_module_and_the_engine_are_installed_side_by_side(installed):
    _folder, where, _log = installed
    assert (where / "SegMambaSlicer.py").is_file()
    assert (where / "SegMambaSlicerLib" / "panel" / "panel.py").is_file()
    engine = where / "SegMambaEngine"
    assert files(engine / "Training" / "segmamba", "*.py") == files(ROOT / "Training" / "segmamba", "*.py")
    assert files(engine / "Training" / "segmamba", "*.md") == files(ROOT / "Training" / "segmamba", "*.md")
    for name in ("cases", "models"):
        assert files(engine / "Resources" / name, "*") == files(ROOT / "Resources" / name, "*")
    assert not files(engine, "*.pyc")
    # nothing of a common name comes onto the path that all scripted modules share
    assert {path.name for path in where.iterdir()} == {
        *("SegMambaSlicer.py", "SegMambaSlicerLib", "SegMambaEngine", "Resources")
    }


def test_the_build_tree_holds_the_engine_too(installed):
    folder, _where, _log = installed
    engine = folder / "build" / LIB / "SegMambaEngine"
    assert (engine / "Training" / "segmamba" / "__init__.py").is_file()


def test_tests_are_registered(installed):
    _folder, _where, log = installed
    assert "SegMambaSlicer.py" in log
    for path in (ROOT / "Testing" / "slicer" / "contract").glob("test_*.py"):
        assert path.name in log


def test_the_installed_engine_is_found_by_the_module_and_runs(installed):
    """The installed files alone: the engine is imported from there, and finds the installed models."""
    _folder, where, _log = installed
    training = where / "SegMambaEngine" / "Training"
    code = "import segmamba; print(segmamba.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=training, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    package = Path(done.stdout.strip()).parent
    assert package == training / "segmamba"
    assert (package.parents[1] / "Resources" / "models" / "quick" / "model.json").is_file()  # as package.py looks
    finder = "SegMambaSlicerLib/engine/interpreter.py"
    assert "SegMambaEngine" in (where / finder).read_text()


def test_the_ui_files_name_only_known_classes_and_no_name_twice():
    """Nor a name in two files: the panel looks its widgets up by name, whatever section they are of."""
    names = []
    for path in sorted((MODULE / "Resources" / "UI").glob("*.ui")):
        tree = ElementTree.parse(path)
        custom = {entry.findtext("class") for entry in tree.iter("customwidget")}
        classes = {widget.get("class") for widget in tree.iter("widget")}
        assert {name for name in classes if name.startswith(("ctk", "qMRML", "qSlicer"))} == custom, path
        names += [element.get("name") for kind in ("widget", "layout", "spacer") for element in tree.iter(kind)]
    assert len(names) == len(set(names))
