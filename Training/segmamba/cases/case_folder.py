"""Which file in a folder is which modality, by the names that datasets give their files.

BraTS 2018-2021 `X_t1`, `X_t1ce`, `X_t2`, `X_flair`; BraTS 2023 and later `X-t1n`, `X-t1c`, `X-t2w`, `X-t2f`;
bare `t1c.nii.gz`; BIDS `X_ce-gadolinium_T1w`, `X_T1w`, and other words of contrast agent anywhere in the name; folders
of DICOM slices so named; MSD Task01 with the four as volumes of one 4-D file. Masks and label maps that are named after
the image they were made of are none.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from segmamba.errors import InputError
from segmamba.files.atomic import is_clutter_folder, is_left_by_system
from segmamba.images.image_io import NIFTI, Source, count_volumes, image_suffix, name_without_suffix
from segmamba.images.modalities import MODALITIES
from segmamba.settings import read_json
from segmamba.shared.contrast_words import agent_said

_T1_FLAIR = r"t1w?[-_ ]?flair"  # a T1, in which water is dark as in FLAIR
_SPELLINGS = {
    "t1n": rf"t1(w|n|[-_ ]?pre)?|{_T1_FLAIR}",
    "t1c": r"t1w?[-_ ]?(c|ce|gd|km|post|contrast)",
    "t2w": r"t2w?",
    "t2f": r"t2[-_ ]?f|(t2[-_ ]?)?flair",
}
_T1 = f"{_SPELLINGS['t1n']}|{_SPELLINGS['t1c']}"  # which of the two, the rest of the name says
# "Segm": case 355 of BraTS 2020; "OT": BraTS 2015
_LABEL = r"seg|segm|segmentation|label|labels|labelmap|gt|truth|ot"
_MASK = r"\w*mask|brain([-_ ]parenchyma)?[-_ ]segmentation"  # the second: UCSF-PDGM
# somewhere in the name, as brainMask_0_ID_T1 of FeTS
_MADE_OF_IMAGES = re.compile(rf"(^|[-_. ])({_MASK}|d?seg|segm|segmentation|labels?|labelmap|probseg)(?=[-_. ]|$)", re.I)
# of images and archives that image_io does not read, that were packed twice, or not yet brought over whole
_IMAGES = r"mgz|mgh|mnc|minc|img|hdr|head|brik|par|rec|dcm|ima|npy|npz|mat|v|mif|vtk|vti|h5|hdf5|nii|nrrd|mha|mhd"
_PACKED = r"zip|rar|7z|tar|tgz|gz|bz2|xz|zst|lz4|lzma|z|enc|gpg|part|partial|filepart|crdownload|download|tmp|bak|orig"
_FOREIGN = re.compile(rf"(\.({_IMAGES}|{_PACKED}))+$", re.I)
# what `segmamba predict` makes besides the label map: no image of the case
_RESULT = re.compile(r".*-(seg-(t1n|t1c|t2w|t2f)|uncertainty|left-out|probabilities)\.nii(\.gz)?", re.IGNORECASE)
_MSD_NAME = re.compile(r"BRATS_\d+")
_MSD_ORDER = ("t2f", "t1n", "t1c", "t2w")  # dataset.json of MSD Task01: FLAIR, T1w, t1gd, T2w


def find_case(
    folder: Path | str, modalities: Sequence[str] = MODALITIES, *, incomplete: bool = False
) -> dict[str, Source]:
    """The image of each modality in the folder of one case, or in one 4-D file of an MSD data set.

    A modality outside MODALITIES is found by its own name at the end of a file's name.

    Args:
        folder: of the case, or the 4-D file.
        modalities: which images are wanted.
        incomplete: whether one that is missing is left out, if no other image in the folder could be it under another
            name.

    Returns:
        Modality -> its image, in the order of `modalities`.

    Raises:
        InputError: where a modality is missing or several files could be one, naming what was found.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; check the path")
    if folder.is_file():
        return _find_volumes(folder, modalities)
    entries = _list(folder)
    prefix = _common_prefix(entries)
    found = {m: [e for e in entries if _is_image_of(m, e, prefix)] for m in modalities}
    if not any(found.values()):
        images = [e for e in unnamed_images(folder) if image_suffix(e) in NIFTI]
        if len(images) == 1:
            return _find_volumes(images[0], modalities)
    for modality, paths in found.items():
        if len(paths) > 1:
            raise InputError(
                f"{folder}: several files could be {modality}: {', '.join(p.name for p in paths)}; "
                "leave one, or name the files one by one"
            )
    missing = [m for m, paths in found.items() if not paths]
    _check_unread(folder, missing)
    if incomplete and any(found.values()):
        taken = [path for paths in found.values() for path in paths]
        others = [e for e in entries if e not in taken and not _ends_in(e, rf"{_LABEL}|{_MASK}")]
        others = [e for e in others if not _is_made(e) and not is_aside(e)]
        native = [e for e in found.get("t1n", []) if "t1c" in missing and agent_said(_stem(e)) == "with"]
        missing = missing if others or native else []
    if missing:
        names = ", ".join(f"{m}/{old}" for m, old in zip(MODALITIES, ("t1", "t1ce", "t2", "flair")))
        raise InputError(
            f"{folder}: no file for {', '.join(missing)}; "
            f"found: {', '.join(e.name for e in entries) or 'nothing'}; "
            f"expected names that end in the modality ({names}), or name the files one by one"
        )
    return {m: Source(paths[0]) for m, paths in found.items() if paths}


def holds_image(folder: Path, modalities: Sequence[str]) -> bool:
    """Whether a file in `folder` is, by its name, the image of one of these. Raises InputError as `find_case`."""
    files = [e for e in _list(folder) if e.is_file()]
    prefix = _common_prefix(files)
    return any(_is_image_of(modality, file, prefix) for file in files for modality in modalities)


def unnamed_images(folder: Path) -> list[Path]:
    """The image files in `folder` whose names end in no word for a label map, sorted: each may be a case in 4-D."""
    return [e for e in _list(folder) if e.is_file() and not _ends_in(e, _LABEL)]


def name_before(path: Path, modality: str) -> str:
    """The name of an image without its suffix and the modality at its end: 'x_t1c.nii.gz' -> 'x', 't1c.nii' -> ''."""
    spelling = _T1 if modality in ("t1n", "t1c") else _SPELLINGS.get(modality, re.escape(modality))
    return re.sub(rf"(^|[-_. ])({spelling})(\.\d+)?$", "", name_without_suffix(path), flags=re.IGNORECASE)


def find_label(folder: Path | str) -> Path | None:
    """The label map beside the images of one case, or None. Raises InputError where there are several."""
    folder = Path(folder)
    if folder.is_file():  # MSD: imagesTr/X.nii.gz has its label map in labelsTr/X.nii.gz
        label = folder.parent.with_name(folder.parent.name.replace("images", "labels")) / folder.name
        return label if label != folder and label.is_file() else None
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; check the path")
    found = [e for e in _list(folder) if e.is_file() and _ends_in(e, _LABEL) and not _ends_in(e, _MASK)]
    if len(found) > 1:
        raise InputError(f"{folder}: several label maps: {', '.join(e.name for e in found)}; leave one")
    return found[0] if found else None


def _list(folder: Path) -> list[Path]:
    """Image files and folders, sorted; hidden ones (`._x.nii.gz` of macOS) and results of our own are left out."""
    own = _results(folder)
    return sorted(
        e
        for e in folder.iterdir()
        if not e.name.startswith(".") and (e.is_dir() or image_suffix(e) is not None) and e.name not in own
    )


def _stem(path: Path) -> str:
    return re.sub(r"\.\d+$", "", name_without_suffix(path))  # BraTS 2015 ends in a running number


def _results(folder: Path) -> set[str]:
    """Names of the images in `folder` that `segmamba predict` made: by its summaries, and by their own names."""
    names = {e.name for e in folder.iterdir() if _RESULT.fullmatch(e.name)}
    for summary in folder.glob("*-summary.json"):
        try:
            names |= {name for name in read_json(summary)["files"].values() if isinstance(name, str)}
        except (InputError, KeyError, TypeError, AttributeError):  # another program's
            continue
    return names


def holds_results_only(folder: Path) -> bool:
    """Whether `folder` is one that `segmamba predict` wrote into, and no case."""
    images = {e.name for e in folder.iterdir() if image_suffix(e) and not e.name.startswith(".")}
    return bool(images) and images <= _results(folder)


def may_hold_images(folder: Path, modalities: Sequence[str]) -> bool:
    """Whether something in `folder` may be an image of a case: no result, label map or mask, nor a folder of others."""
    words = "|".join((*_SPELLINGS.values(), *map(re.escape, modalities)))
    return any(_ends_in(e, words) if e.is_dir() else not _is_made(e) for e in _list(folder))


def is_aside(path: Path) -> bool:
    """Whether it is a folder that is none of a case's images: of results, of a file server, or with nothing in it."""
    if not path.is_dir():
        return False
    try:
        return (
            is_clutter_folder(path.name)
            or holds_results_only(path)
            or all(is_left_by_system(entry) for entry in path.iterdir())
        )
    except OSError:  # what may not be looked into may be the image
        return False


def _ends_in(path: Path, spelling: str) -> bool:
    """Whether the name without its suffix is `spelling`, or ends in it after one of "-_. "."""
    return re.fullmatch(rf"(.*[-_. ])?({spelling})", _stem(path), re.IGNORECASE) is not None


def _is_made(path: Path) -> bool:
    return path.is_file() and _MADE_OF_IMAGES.search(_stem(path)) is not None


def _common_prefix(entries: Sequence[Path]) -> str:
    """What the names of the images begin with, all of them: it is of the case, and tells no modality."""
    images = [_stem(e) for e in entries if any(_ends_in(e, s) for s in _SPELLINGS.values()) and not _is_made(e)]
    if len(images) < 2:
        return ""
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*images))
    return re.sub(r"[^-_. ]*$", "", images[0][: len(list(same))])


def _is_image_of(modality: str, path: Path, prefix: str) -> bool:
    """By the end of the name; and of the two T1, by what the name says of contrast agent after `prefix`.

    Raises InputError for a T1 with and without it.
    """
    if modality not in _SPELLINGS:
        return _ends_in(path, re.escape(modality))
    if _is_made(path):
        return False
    if modality not in ("t1n", "t1c"):
        return _ends_in(path, _SPELLINGS[modality]) and not _ends_in(path, _T1_FLAIR)
    if not _ends_in(path, _T1):
        return False
    said = agent_said(_stem(path).removeprefix(prefix))
    if said == "both":
        raise InputError(f"{path}: its name says T1 with and without contrast agent; end it in t1n or t1c")
    return (said == "with") == (modality == "t1c")


def _check_unread(folder: Path, missing: Sequence[str]) -> None:
    """Raises InputError where one of `missing` is there in a format that cannot be read: it is not absent."""
    foreign = [e for e in folder.iterdir() if _FOREIGN.search(e.name) and image_suffix(e) is None and e.name[0] != "."]
    for entry in sorted(foreign):
        named = Path(_FOREIGN.sub("", entry.name))
        for modality in missing:
            if _is_image_of(modality, named, "") and not _MADE_OF_IMAGES.search(named.name):
                raise InputError(
                    f"{entry}: looks like {modality}, and is in a format that cannot be read; convert or unpack it to "
                    "NIfTI (.nii.gz), or take it out of the folder"
                )


def _find_volumes(path: Path, modalities: Sequence[str]) -> dict[str, Source]:
    if image_suffix(path) not in NIFTI:
        raise InputError(f"{path}: expected the folder of a case, or a NIfTI file of an MSD data set")
    count, order = count_volumes(path), volume_order(path)
    if len(order) != count or not set(modalities) <= set(order):
        known = f"described as {', '.join(order)}" if order else "and nothing says which is which"
        raise InputError(
            f"{path}: holds {count} volume(s), {known}; expected a folder with a file for each of "
            f"{', '.join(modalities)}, or a BRATS_nnn.nii.gz of MSD Task01 with four volumes"
        )
    return {m: Source(path, order.index(m)) for m in modalities}


def volume_order(path: Path) -> tuple[str, ...]:
    """Which modality each volume of a 4-D file is, first to last; () where nothing tells.

    From a dataset.json above the file, else as in MSD Task01 for a file so named. Raises InputError for a dataset.json
    without a table of them.
    """
    for folder in path.resolve().parents[:2]:
        description = folder / "dataset.json"
        if description.is_file():
            try:
                channels = read_json(description)["modality"]
                return tuple(_standard_name(channels[str(i)]) for i in range(len(channels)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{description}: no readable table of modalities ({error!r})") from error
    return _MSD_ORDER if _MSD_NAME.fullmatch(name_without_suffix(path)) else ()


def _standard_name(channel: str) -> str:
    """'t1gd' -> 't1c'; what no spelling fits comes back in lower case."""
    found = [m for m in _SPELLINGS if re.fullmatch(_SPELLINGS[m], channel, re.I) and _is_image_of(m, Path(channel), "")]
    return found[0] if found else channel.lower()
