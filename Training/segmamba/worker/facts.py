"""What `hello` tells: versions, models, devices. Works while torch is still being loaded, and without it."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from segmamba import __version__, limits
from segmamba.errors import InputError
from segmamba.settings import read_json
from segmamba.worker.requests import VERSION
from segmamba.worker.timing import Record

_MODELS = Path(__file__).resolve().parents[3] / "Resources" / "models"
_MANIFEST = "model.json"
_PACKAGES = ("torch", "monai", "numpy", "numba", "nibabel", "scipy", "SimpleITK", "safetensors", "mamba-ssm")
_MOST_FEATURES = 65536  # of a network at full resolution
_MIRRORINGS = ("0", "1", "3", "7")


def versions() -> dict:
    """Versions of the libraries that matter; None for one that is not installed."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = None
    return {"protocol": VERSION, "version": __version__, "python": platform.python_version(), "packages": packages}


def read_facts(folder: Path) -> dict:
    """The manifest of a model as it stands, without torch and without checking the weights.

    Raises InputError, also for sizes of which nothing can be computed; loading the model says in plain words what is
    wrong with it.
    """
    manifest = read_json(folder / _MANIFEST)
    if not isinstance(manifest, dict):
        raise InputError("no JSON object")
    if not _has_sizes(manifest):
        raise InputError("no sizes of voxels, windows or the network")
    return manifest


def _has_sizes(manifest: dict) -> bool:
    low, high = limits.SPACING_MM
    try:
        run, width = manifest["inference"], manifest["network"].get("full_features", 1)
        spacing, window = manifest["preprocess"].get("spacing", (1, 1, 1)), run.get("window", (1, 1, 1))
        return (
            len(spacing) == len(window) == 3
            and all(low <= mm <= high for mm in spacing)
            and all(1 <= side <= limits.WINDOW_VOXELS for side in window)
            and 0 <= run.get("overlap", 0) < 1
            and 1 <= width <= _MOST_FEATURES
        )
    except (KeyError, TypeError, AttributeError):
        return False


def find_facts(name_or_folder: str) -> dict:
    """The manifest of a model, or {} where there is none; loading says why."""
    for folder in (Path(name_or_folder), _MODELS / name_or_folder):
        try:
            return read_facts(folder)
        except (OSError, ValueError):
            continue
    return {}


def models(record: Record, devices: list[str]) -> list[dict]:
    """The shipped models, usable ones first."""
    good, bad = [], []
    for file in sorted(_MODELS.glob(f"*/{_MANIFEST}")):
        entry = {"name": file.parent.name, "folder": str(file.parent)}
        try:
            manifest = read_facts(file.parent)
            entry |= {
                "id": manifest["id"],
                "title": _title(file.parent, manifest["id"]),
                "modalities": list(manifest["preprocess"]["modalities"]),
                "regions": manifest.get("regions") or {"WT": ["NCR", "ED", "ET"], "TC": ["NCR", "ET"], "ET": ["ET"]},
                "labels": manifest.get("label_map", {}),
                "incomplete": manifest.get("incomplete"),
                "licence": manifest.get("licence", ""),
                "expected_seconds": {device: _seconds(record, manifest, device)[0] for device in devices},
            }
            good.append(entry)
        except (OSError, ValueError, KeyError, TypeError) as error:
            bad.append({**entry, "problem": f"{_MANIFEST} cannot be read ({type(error).__name__}): fetch it again"})
    return good + bad


def cpu(record: Record) -> dict:
    """The CPU as a device; needs no library."""
    free, total = _main_memory()
    return _device(record, "cpu", f"CPU, {os.cpu_count()} logical cores", free, total)


def all_devices(record: Record) -> tuple[list[dict], dict[str, str]]:
    """The devices, with the CPU last, and the scan back end of each. Loads torch."""
    import torch

    from segmamba.networks.scan import choose_backend

    devices = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        title = torch.cuda.get_device_name(index)
        devices.append(_device(record, f"cuda:{index}", title, free, total))
    if torch.backends.mps.is_available():
        devices.append(_device(record, "mps", "Apple GPU (not tested)", None, None))
    devices.append(cpu(record))
    return devices, {device["name"]: choose_backend(device["name"]) for device in devices}


def _device(record: Record, name: str, title: str, free: int | None, total: int | None) -> dict:
    first = next(iter(sorted(_MODELS.glob(f"*/{_MANIFEST}"))), None)
    try:
        manifest = read_facts(first.parent) if first else {}
    except (OSError, ValueError):
        manifest = {}
    seconds, measured = _seconds(record, manifest, name)
    sizes = {"free_bytes": free, "total_bytes": total}
    return {"name": name, "title": title, **sizes, "expected_seconds": seconds, "measured": measured}


def _seconds(record: Record, manifest: dict, device: str) -> tuple[dict[str, float], bool]:
    """-> seconds by number of mirrorings, for a typical case with the model loaded; whether they were measured."""
    result, measured = {}, False
    for mirrorings in _MIRRORINGS:
        stages, measured = record.expect(manifest, device, int(mirrorings))
        result[mirrorings] = round(sum(stages.values()) - stages["load"], 1)
    return result, measured


def _title(folder: Path, fallback: str) -> str:
    """The first heading of the model's card."""
    try:
        lines = (folder / "MODEL_CARD.md").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return fallback
    return next((line.lstrip("# ").strip() for line in lines if line.startswith("# ")), fallback)


def _main_memory() -> tuple[int | None, int | None]:
    """-> bytes free and in total, None where the system does not say."""
    if sys.platform == "win32":

        class Status(ctypes.Structure):
            _fields_ = (
                ("length", ctypes.c_ulong),
                ("load", ctypes.c_ulong),
                *((name, ctypes.c_ulonglong) for name in ("total", "free", "a", "b", "c", "d", "e")),
            )

        status = Status(length=ctypes.sizeof(Status))
        ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return status.free, status.total
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None, None
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), total
    except (OSError, StopIteration, ValueError):  # macOS
        return None, total
