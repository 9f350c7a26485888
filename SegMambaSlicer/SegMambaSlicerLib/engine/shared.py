"""The rules that the engine and the panel share: files of the engine that need nothing but numpy, loaded by path.

The engine itself is never imported into Slicer. What may be loaded so lies in one folder of it, segmamba/shared, and a
test holds that folder to the standard library and numpy.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from ..errors import InputError
from ..i18n import _
from .interpreter import trainingFolder


@cache
def loadShared(name: str) -> ModuleType:
    """The module `name` of segmamba/shared. Raises InputError where the engine's files are missing."""
    path = trainingFolder() / "segmamba" / "shared" / f"{name}.py"
    if not path.is_file():
        raise InputError(_("{path} is missing. Install the extension again.").format(path=path))
    fullName = f"{__name__}.{name}"
    spec = spec_from_file_location(fullName, path)
    module = module_from_spec(spec)
    sys.modules[fullName] = module  # dataclasses look their module up while it is executed
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[fullName]
        raise
    return module
