"""The picture of a follow-up report, of one synthetic patient at two dates: follow_up_picture.py [FILE]

Both dates are segmented by the model that ships. Needs the engine with its phantom extra; takes some minutes.
"""

from __future__ import annotations

import base64
import io
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SEED, SHRUNK_MM = 20_401, 8.0


def drawFollowUp(file: Path) -> None:
    """Writes `file`: the report's pictures, one below the other."""
    import matplotlib.image
    from segmamba.cli import main
    from segmamba.datasets.phantom import make_phantom, save_phantom

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, shrunk in (("first", 0.0), ("later", SHRUNK_MM)):
            phantom = make_phantom(SEED, enhancing=True, shrunk_mm=shrunk)
            for path in save_phantom(phantom, folder / name, name).values():
                if path.name.endswith("seg.nii.gz"):
                    path.unlink()  # the model is to find it
        places = [str(folder / name) for name in ("first", "later")]
        if main(["follow", *places, "--dates", "0", "84", "--output", str(folder / "out")]):
            raise SystemExit("the follow-up failed; see above")
        page = (folder / "out" / "report.html").read_text()
    pictures = [base64.b64decode(data) for data in re.findall(r'base64,([^"]+)"', page)]
    images = [matplotlib.image.imread(io.BytesIO(data))[:, :, :3] for data in pictures]
    width = max(image.shape[1] for image in images)
    rows = []
    for image in images:
        left = (width - image.shape[1]) // 2
        edges = ((0, 0), (left, width - image.shape[1] - left), (0, 0))
        rows.append(np.pad(image, edges, constant_values=float(image[0, 0].mean())))
    matplotlib.image.imsave(file, np.vstack(rows))


if __name__ == "__main__":
    drawFollowUp(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "Resources" / "Screenshots" / "follow-up.png")
