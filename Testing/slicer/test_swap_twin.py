"""The swap guard of the panel and that of the engine load the same rules, and say the same of the same images."""

import numpy as np
import pytest
import slicer
from SegMambaSlicerLib.engine.shared import loadShared
from SegMambaSlicerLib.errors import InputError
from SegMambaSlicerLib.volumes import swaps as panel
from SegMambaSlicerLib.volumes.modalities import MODALITIES

engine = pytest.importorskip("segmamba.cases.swaps", reason="needs the engine (pip install -e Training)")


@pytest.fixture(scope="module", params=["brain", "head", "no T1c"])
def images(request):
    """(arrays (X, Y, Z), affines, whether it is a head) of a phantom, FLAIR and T1 on grids of their own."""
    from segmamba.datasets.phantom import make_phantom

    phantom = make_phantom(4, spacing=(4.0, 4.5, 5.0), enhancing=True)
    arrays, affines = dict(phantom.images), {m: phantom.affine.copy() for m in MODALITIES}
    if request.param == "head":
        arrays = {m: np.pad(image, 9, constant_values=image.max() / 2) for m, image in arrays.items()}
    arrays["t2f"] = arrays["t2f"][1:, :, ::2].astype(np.int16)
    affines["t2f"][:3, 3] += affines["t2f"][:3, 0]
    affines["t2f"][:3, 2] *= 2
    affines["t1n"][:3, 3] += (3, -2, 4)
    if request.param == "no T1c":
        del arrays["t1c"]
    return arrays, affines, request.param == "head"


def test_both_sides_say_the_same_of_the_same_images(images, scene):
    arrays, affines, isHead = images
    expected = loadShared("swaps").sample_together(arrays, affines)
    nodes = {
        name: slicer.util.addVolumeFromArray(
            np.ascontiguousarray(array.transpose(2, 1, 0)), ijkToRAS=affines[name], name=name
        )
        for name, array in arrays.items()
    }
    found = panel.sampleNodes(nodes)
    assert found.is_head == expected.is_head == isHead
    for name in arrays:
        np.testing.assert_allclose(found.values[name], expected.values[name], rtol=1e-6, atol=1e-9)
    assert panel.swapWarnings(nodes) == engine.swap_warnings(arrays, affines)


@pytest.mark.parametrize("isHead", [False, True])
def test_both_sides_judge_alike(isHead):
    for pair in loadShared("swaps").gains({name: np.arange(9.0) for name in MODALITIES}):
        for gain in (-1.0, -0.4, -0.1, 0.2):
            assert panel.judge({pair: gain}, isHead) == engine.judge({pair: gain}, isHead)


def test_both_sides_load_the_same_file():
    from segmamba.shared import contrast_words, swaps

    for module, name in ((swaps, "swaps"), (contrast_words, "contrast_words")):
        assert loadShared(name).__file__ == module.__file__
        assert loadShared(name) is loadShared(name) is not module  # the engine itself is not in Slicer's process


def test_rules_that_are_missing_are_an_error_that_names_them():
    with pytest.raises(InputError, match=r"no_such_rules\.py is missing"):
        loadShared("no_such_rules")
