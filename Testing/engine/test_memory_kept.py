"""Memory that a network frees is kept for it, unless somebody has said how malloc is to work."""

import pytest
from segmamba.prediction import memory


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=0"), ("", "")]
)
def test_settings_of_malloc_in_the_environment_are_left_alone(monkeypatch, name, value):
    called = []
    monkeypatch.setattr(memory, "_glibc", lambda function: lambda *given: called.append(function))
    for known in ("GLIBC_TUNABLES", *memory._VARIABLES):
        monkeypatch.delenv(known, raising=False)
    if name:
        monkeypatch.setenv(name, value)
    with memory.kept():
        assert bool(called) == (not name)
    assert bool(called) == (not name)
