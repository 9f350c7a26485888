"""What is refused although it might be read: sizes, counts and lengths, all in this one place.

They stand well above anything that is examined of a head, and low enough that four images, each at its limit, and
what is made of them leave a machine of ordinary size alive.
"""

from __future__ import annotations

VOXELS = 512**3  # of one image: as stored, of a series, and of its field of view cut into 1 mm voxels
VOLUMES = 4096  # of one 4-D file
FILE_BYTES = 2 * 1024**3  # of one image, unpacked
SPACING_MM = (0.01, 50.0)  # of a voxel, along each axis
EXTENT_MM = 2000.0  # of an image, along each axis
FRAMES = 65536  # of one DICOM file
WINDOW_VOXELS = 320**3  # that go through a network at once
CHANNELS = 1536  # of a network anywhere: twice what the largest published one has
LAYERS = 16  # Mamba layers of one stage; published networks have two
OVERLAP = 0.9  # of neighbouring windows: at 0.9 each voxel is computed a thousand times

TEXT_BYTES = 64 * 1024**2  # of a JSON, TOML or CSV file, or of a log
RECORD_BYTES = 1024**2  # of the case.json of one submission
HEADER_BYTES = 1024**2  # of the header of a MetaImage or NRRD file
NESTING = 32  # of tables and lists in one another
DIGITS = 19  # of a whole number in a JSON or TOML file, which has to fit into 64 bits besides

LEFTOVER_SECONDS = 3600.0  # since its last change, after which a half-written file is nobody's any more
