"""A model package as a MONAI bundle: a folder that MONAI runs and verifies without segmamba.

    configs/metadata.json   what goes in and comes out       models/model.pt   the weights, a plain state dict
    configs/inference.json  files to label maps              scripts/          our source files that this takes
    docs/README.md          the model card, and how to run   LICENSE

TorchScript and ONNX versions are not made; the README says why. A recorded network: segmamba.export.program.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import torch

from segmamba.errors import InputError, explain
from segmamba.export.config import inference, is_segmamba, metadata
from segmamba.export.program import write_program
from segmamba.export.readme import readme
from segmamba.export.sources import collect
from segmamba.files.atomic import aside, make_folder, write_aside
from segmamba.models.package import CARD, Manifest, Model, load_package

_PACKAGE_NOTE = (
    '"""Source files of SegMambaSlicer (Apache-2.0) that this bundle needs; copied when it was exported."""\n'
)


def export_model(model: Path | str, output: Path | str, form: str = "monai-bundle") -> Path:
    """A model package in the format of other software. It appears whole or not at all.

    Args:
        model: folder of the package.
        output: a new folder, or one that is empty.
        form: of FORMATS.

    Returns:
        The path of `output`.

    Raises:
        InputError: for an unknown format, a broken package, an `output` that exists and is not empty, is a link or no
            name, names that would be code in a bundle, and a network that torch.export cannot record.
    """
    if form not in FORMATS:
        raise InputError(f"unknown format {form!r}; expected one of {', '.join(FORMATS)}")
    output = Path(output)
    _check_output(output)
    loaded = load_package(model)
    half = aside(output)
    try:
        FORMATS[form](loaded, half)
        if output.is_dir():
            output.rmdir()
        half.rename(output)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return output


def _check_output(output: Path) -> None:
    """Raises InputError for what can be no new folder."""
    if output.name in ("", ".."):  # of "" and ".", and of the root of a disk
        raise InputError(f"{str(output)!r} names no new folder; give a name for it")
    try:
        if output.is_symlink():
            raise InputError(f"{output} is a link; give the name of a new folder")
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise InputError(f"{output} already exists; give the name of a new folder, or take the old one away")
    except OSError as error:
        raise InputError(explain(error)) from None


def _write_bundle(model: Model, folder: Path) -> None:
    manifest = model.manifest
    files = {
        "configs/metadata.json": _json(metadata(manifest)),
        "configs/inference.json": _json(inference(manifest)),
        "models/model.pt": _state_dict(model),
        "docs/README.md": readme(manifest, _read_card(model.folder)).encode(),
        "LICENSE": _licence().encode(),
        "scripts/__init__.py": _PACKAGE_NOTE.encode(),
    }
    files |= {f"scripts/{relative}": text.encode() for relative, text in collect(_modules(manifest)).items()}
    for relative, data in files.items():
        path = folder / relative
        make_folder(path.parent)
        write_aside(path, data)


def _modules(manifest: Manifest) -> tuple[str, str]:
    network = "segmamba.networks.segmamba" if is_segmamba(manifest) else "segmamba.networks.baselines"
    return "segmamba.export.bundle_parts", network


def _state_dict(model: Model) -> bytes:
    file = io.BytesIO()
    torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}, file)
    return file.getvalue()


def _read_card(folder: Path) -> str:
    try:
        return (folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return f"# {folder.name}\n\nThe model package has no card that can be read.\n"


def _licence() -> str:
    """The project's licence, of the source files in `scripts`; its address where the text is not at hand."""
    path = Path(__file__).resolve().parents[3] / "LICENSE"
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return "Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0\n"


def _json(values: dict) -> bytes:
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()


FORMATS = {"monai-bundle": _write_bundle, "torch-export": write_program}
