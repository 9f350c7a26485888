"""The CPU's kernels as they are compiled for processors of other vectors than this one's: scan, norm, convolutions."""

import pytest
from scan_inputs import in_process

PROCESSORS = {
    4: "import platform; platform.machine = lambda: 'arm64'",
    8: "import os; os.environ.update(NUMBA_CPU_NAME='haswell', NUMBA_CPU_FEATURES='+avx2,+fma')",
}


@pytest.mark.parametrize("width", PROCESSORS)
def test_kernels_of_other_widths_compute_the_same(width, monkeypatch):
    monkeypatch.delenv("SEGMAMBA_SCAN", raising=False)
    in_process(
        PROCESSORS[width],
        f"""
        import test_norm, test_transposed, test_winograd
        from segmamba.networks.scan import simd
        assert simd.WIDTH == {width}
        check_everything("cpu")
        for dtype, tolerance in test_norm.TOLERANCES.items():
            x, r, weight = test_norm.values((2, 12, 4, 6, 10), "add normed", dtype)
            assert test_norm.cpu.fits(x, r)
            test_norm.check(x, 0.01, r, "add normed", weight, tolerance)
        test_winograd.check((16, 32), 48)
        test_winograd.check(({width},), {width})
        test_transposed.check(24, 16)
        test_transposed.check(16, 3 * {width})
        """,
    )
