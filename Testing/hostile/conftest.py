"""Hostile inputs and kills: few in `make test`, many in `make hostile` (SEGMAMBA_HOSTILE: how many of each kind)."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))


@pytest.fixture(scope="session")
def many():
    """How many inputs of a kind: what `make hostile` says, else the number that a test has time for."""
    return lambda few: int(os.environ.get("SEGMAMBA_HOSTILE", few))


@pytest.fixture(scope="session")
def tell(request):
    """Prints a line of counts, past pytest's capturing."""
    plugins = request.config.pluginmanager
    reporter, capture = plugins.getplugin("terminalreporter"), plugins.getplugin("capturemanager")

    def write(text):
        if reporter:
            with capture.global_and_fixture_disabled():
                reporter.write_line(f"\n{text}")

    return write
