"""A text anywhere in the header of a submission's image: found, or the image is not what the record tells of."""

import gzip
import logging

import numpy as np
import pytest
from segmamba.errors import InputError
from segmamba.images.grid import corner_distance
from segmamba.images.image_io import read_image
from segmamba.learning.submissions.headers import find_hidden
from segmamba.learning.submissions.write import _nifti

SHEARED = np.array([[1, 0.2, 0, 5], [0, 1.2, 0.1, 7], [0, 0, 2, 9], [0, 0, 0, 1.0]])
TURNED = np.array([[0, -1.2, 0, 5], [-1, 0, 0, 7], [0, 0, 2, 9], [0, 0, 0, 1.0]])


@pytest.fixture(autouse=True)
def quiet():
    """nibabel logs each header that it mends."""
    logger = logging.getLogger("nibabel.global")
    before, logger.disabled = logger.disabled, True
    yield
    logger.disabled = before


@pytest.mark.parametrize("affine", [np.diag([1, 1.2, 2, 1.0]), TURNED, SHEARED], ids=["upright", "turned", "sheared"])
@pytest.mark.parametrize("qform", [True, False])
def test_a_text_anywhere_in_a_header_is_found(tmp_path, affine, qform):
    """Also in fields of numbers that nothing reads, such as the sides of voxels where the affine says them too."""
    array = np.random.default_rng(0).integers(1, 900, (12, 11, 10)).astype(np.int16)
    sound = bytearray(gzip.decompress(_nifti(array, affine)))
    if not qform:
        sound[252:254], sound[256:280] = bytes(2), bytes(24)
    path, passed = tmp_path / "t1c.nii.gz", []

    def look(data):
        path.write_bytes(gzip.compress(bytes(data), 1, mtime=0))
        return find_hidden(path)

    assert look(sound) == []
    for text in (b"DOE^JANE", b"DOE^", b"DoeJane"):
        for place in range(352 - len(text) + 1):
            data = bytearray(sound)
            data[place : place + len(text)] = text
            if look(data):
                continue
            try:
                image = read_image(path)
            except InputError:
                continue  # intake refuses what it cannot read
            same = image.array.shape == array.shape and corner_distance(array.shape, affine, image.affine) <= 1e-3
            if same:  # else the record tells of another place
                passed.append((text, place))
    assert not passed
