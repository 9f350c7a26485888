"""A model's network as a program of torch.export: torch's operators alone, for one window.

    model.pt2       torch.export.load(...).module()(window) gives logits; 1 x channels x the model's window, float32
    model.json      the package's manifest: channels, preprocessing, windows, head, labels
    README.md       what goes in and comes out, and what is not in it

What runs in kernels of our own is recorded in its plain form: the scan of the Mamba layers by the back end `torch`
(networks.scan), norms and convolutions as torch has them. Shapes are those of the window: the scan walks through as
many pieces as it has tokens. ONNX is not written: torch's exporter to it would begin with the same program, and has
not been tried.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any, cast

import torch

from segmamba.errors import InputError
from segmamba.files.atomic import make_folder, write_aside
from segmamba.models.package import MANIFEST, Model

PROGRAM = "model.pt2"
_README = """# {id}, recorded by torch.export ({torch})

```python
import torch

network = torch.export.load("{program}").module()
logits = network(torch.zeros(1, {channels}, {window}))   # -> (1, {classes}, {window})
```
Channels in this order, which the weights do not tell: {modalities}. `{manifest}` says how a case is prepared,
how windows are laid over it, and what the outputs mean ({head}). The program takes this size
alone, a batch of one, in float32, and was recorded on a CPU; for a GPU:
`torch.export.passes.move_to_device_pass(torch.export.load("{program}"), "cuda")`.

Not in it: preprocessing, sliding windows, looks on coarser voxels where `{manifest}` asks for them, and label maps
(`--format monai-bundle` has them), and the fast kernels of segmamba. Numba's and Triton's are no operators of torch:
the scan of Mamba layers stands here in its slower, plain form of torch's own.

Load programs from people you trust alone. Research use only; not a medical device.
"""


def write_program(model: Model, folder: Path) -> None:
    """Records a model's network into a folder. Raises InputError for one that torch.export cannot record."""
    manifest = model.manifest
    network = model.network.eval().cpu().float()
    window = torch.zeros(1, manifest.network.in_channels, *manifest.inference.window)
    try:
        with torch.no_grad():
            program = torch.export.export(network, (window,))
    except Exception as error:  # an operator that it does not know fails in many ways
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"torch {torch.__version__} cannot record the network of {model.folder}: {type(error).__name__}: {reason}; "
            "--format monai-bundle takes every network"
        ) from None
    file = io.BytesIO()
    torch.export.save(program, cast(Any, file))
    make_folder(folder)
    write_aside(folder / PROGRAM, file.getvalue())
    shutil.copyfile(model.folder / MANIFEST, folder / MANIFEST)
    write_aside(folder / "README.md", _readme(model).encode())


def _readme(model: Model) -> str:
    manifest = model.manifest
    nested = manifest.inference.nested
    return _README.format(
        id=manifest.id,
        torch=f"torch {torch.__version__}",
        program=PROGRAM,
        manifest=MANIFEST,
        channels=manifest.network.in_channels,
        classes=manifest.network.out_channels,
        window=", ".join(map(str, manifest.inference.window)),
        modalities=", ".join(manifest.preprocess.modalities),
        head="a sigmoid for each nested region" if nested else "a softmax over background and labels",
    )
