"""The text at the head of a MetaImage or NRRD file, looked at before ITK is: it believes whatever stands there."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from segmamba import limits
from segmamba.errors import InputError
from segmamba.files.atomic import check_regular
from segmamba.images.packed import unpacked_size

_MOST_DIMENSIONS = 4  # ITK's own arrays have room for 10; one more axis than an image has is told by its number
_ELEMENTS = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG", "MET_ULONG", "MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}
# how many numbers each has, by the number of dimensions
_NUMBERS = {
    **dict.fromkeys(("DimSize", "ElementSpacing", "ElementSize"), lambda n: n),
    **dict.fromkeys(("Offset", "Origin", "Position", "CenterOfRotation"), lambda n: n),
    **dict.fromkeys(("TransformMatrix", "Rotation", "Orientation"), lambda n: n * n),
}
_META_FIELD = re.compile(r"([^=]{1,255}?)\s*=\s*(.*)")  # ITK writes whatever it knows of an image as a field
_NRRD_FIELD = re.compile(r"([A-Za-z][A-Za-z ]{0,31}): (.*)")
_BODY = "right-anterior-superior|ras|left-anterior-superior|las|left-posterior-superior|lps"
_NRRD_SPACE = re.compile(rf"({_BODY})(-time|t)?", re.IGNORECASE)  # others, as scanner-xyz, ITK takes for LPS
_LONGEST_LINE = 4096
NO_ORIENTATION = "the file says nothing about orientation: left and right may be swapped"
NO_SIZE = "the file says nothing about the size of its voxels: 1 mm is assumed"


def check_header(path: Path) -> tuple[str, ...]:
    """Refuses a header that is none, claims more than segmamba.limits allow, or more data than there are.

    A file of data that it names has to be a regular file beside it, and lengths are in mm. Returns what the header
    leaves out of the geometry, where ITK takes axes to the left, back and top, and 1 mm. Raises InputError.
    """
    return _check_meta(path) if _is_meta(path) else _check_nrrd(path)


def find_data(path: Path) -> Path:
    """The file that holds the voxels: `path` itself, or the one beside it that its header names.

    Raises InputError where the header is none, or names what is no regular file beside it.
    """
    fields, start = _meta_fields(path) if _is_meta(path) else _nrrd_fields(path)
    return (_meta_data if _is_meta(path) else _nrrd_data)(path, fields, start)[0]


def _is_meta(path: Path) -> bool:
    return path.name.lower().endswith((".mha", ".mhd"))


def _meta_fields(path: Path) -> tuple[dict[str, str], int]:
    """-> the fields of a header, and where what follows it begins."""
    fields, start = {}, 0
    for line, end in _lines(path):
        match = _META_FIELD.fullmatch(line.strip())
        if not match:
            raise InputError(_damaged(path, f"{line[:40]!r} is no line of a header"))
        name, value = match[1], match[2].strip()
        if name in fields:
            raise InputError(_damaged(path, f"{name[:40]} stands twice"))
        fields[name], start = value, end
        if name == "ElementDataFile":
            return fields, start
    raise InputError(_damaged(path, "its header has no end"))


def _meta_data(path: Path, fields: dict[str, str], start: int) -> tuple[Path, int]:
    """-> the file with the voxels, and where in it they begin."""
    named = fields["ElementDataFile"]
    return (path, start) if named.upper() == "LOCAL" else (_beside(path, named), 0)


def _check_meta(path: Path) -> tuple[str, ...]:
    fields, start = _meta_fields(path)
    dimensions = _whole(path, fields, "NDims", range(1, _MOST_DIMENSIONS + 1))
    channels = (
        _whole(path, fields, "ElementNumberOfChannels", range(1, 65)) if "ElementNumberOfChannels" in fields else 1
    )
    numbers = {}
    for name, count in _NUMBERS.items():
        if name in fields:
            numbers[name] = _numbers(path, name, fields[name], count(dimensions))
    sizes = numbers.get("DimSize", ())
    if not sizes or any(n < 1 or n != int(n) for n in sizes):
        raise InputError(_damaged(path, f"DimSize is {fields.get('DimSize', 'missing')[:40]!r}"))
    kind = fields.get("ElementType", "").removesuffix("_ARRAY")
    if kind not in _ELEMENTS:
        raise InputError(_damaged(path, f"ElementType is {kind[:40]!r}; known are {', '.join(_ELEMENTS)}"))
    for name in ("CompressedDataSize", "HeaderSize"):
        if name in fields and not re.fullmatch(r"-1|\d{1,12}", fields[name]):
            raise InputError(_damaged(path, f"{name} is {fields[name][:40]!r}"))
    size = _check_claim(path, [int(n) for n in sizes], _ELEMENTS[kind] * channels)
    data, begins = _meta_data(path, fields, start)
    if fields.get("CompressedData", "False").lower() in ("true", "1", "yes"):
        length = int(fields.get("CompressedDataSize", 0))  # 0: MetaIO takes all that is there
        _check_packed(path, data, begins, (size, size), length=length if length > 0 else None)
    elif fields.get("BinaryData", "True").lower() in ("true", "1", "yes"):
        _check_there(path, data, begins, size)
    _check_unit(path, fields.get("DistanceUnits", ""))
    oriented = any(name in fields for name in ("TransformMatrix", "Rotation", "Orientation"))
    sized = any(name in fields for name in ("ElementSpacing", "ElementSize"))
    return _left_out(oriented, sized)


def _nrrd_fields(path: Path) -> tuple[dict[str, str], int]:
    """-> the fields of a header by their names in lower case, and where what follows it begins."""
    fields, start = {}, 0
    lines = _lines(path)
    magic, _ = next(lines, ("", 0))
    if not re.fullmatch(r"NRRD000\d", magic.strip()):
        raise InputError(_damaged(path, "it does not begin as one"))
    for line, end in lines:
        start = end
        if not line.strip():
            break
        if match := _NRRD_FIELD.fullmatch(line.strip()):
            fields[match[1].strip().lower()] = match[2].strip()
        elif not line.startswith("#") and ":=" not in line:
            raise InputError(_damaged(path, f"{line[:40]!r} is no line of a header"))
    return fields, start


def _nrrd_data(path: Path, fields: dict[str, str], start: int) -> tuple[Path, int]:
    """-> the file with the voxels, and where in it they begin."""
    named = fields.get("data file") or fields.get("datafile")
    return (path, start) if named is None else (_beside(path, named), 0)


def _check_nrrd(path: Path) -> tuple[str, ...]:
    fields, start = _nrrd_fields(path)
    dimensions = _whole(path, fields, "dimension", range(1, _MOST_DIMENSIONS + 1))
    sizes = _numbers(path, "sizes", fields.get("sizes", ""), dimensions)
    if any(n < 1 or n != int(n) for n in sizes):
        raise InputError(_damaged(path, f"sizes are {fields['sizes'][:40]!r}"))
    # of one byte at least: the names of types are many, and ITK checks them
    size = _check_claim(path, [int(n) for n in sizes], 1)
    for name in ("line skip", "lineskip", "byte skip", "byteskip"):
        if name in fields and not re.fullmatch(r"-1|\d{1,9}", fields[name]):
            raise InputError(_damaged(path, f"{name} is {fields[name][:40]!r}"))
    data, begins = _nrrd_data(path, fields, start)
    encoding = fields.get("encoding", "").lower()
    if encoding == "raw":
        _check_there(path, data, begins, size)
    elif encoding in ("gz", "gzip"):
        lines = int(fields.get("line skip") or fields.get("lineskip") or 0)
        _check_packed(path, data, begins, (size, limits.FILE_BYTES), lines=lines)
    for name in ("space units", "units"):
        for unit in re.findall(r'"(.*?)"', fields.get(name, "")):
            _check_unit(path, unit)
    directions = fields.get("space directions", "none")
    if "nan" in directions.lower():
        raise InputError(_damaged(path, f"space directions are {directions[:80]}"))
    oriented = directions != "none"
    spacings = fields.get("spacings", "nan").lower()
    known = _NRRD_SPACE.fullmatch(fields.get("space", "")) is not None
    return _left_out(oriented and known, oriented or "nan" not in spacings)


def _left_out(oriented: bool, sized: bool) -> tuple[str, ...]:
    return (() if oriented else (NO_ORIENTATION,)) + (() if sized else (NO_SIZE,))


def _check_unit(path: Path, unit: str) -> None:
    if unit.strip().lower() not in ("", "?", "none", "mm", "millimeter", "millimeters", "millimetre", "millimetres"):
        raise InputError(f"{path}: lengths are in {unit[:40]!r}; expected mm: export the image in mm")


def _lines(path: Path) -> Iterator[tuple[str, int]]:
    """(line, where the next one begins) of the text at the head of a file."""
    with path.open("rb") as file:
        while True:
            line = file.readline(_LONGEST_LINE)
            if not line:
                return
            if (not line.endswith(b"\n") and len(line) == _LONGEST_LINE) or file.tell() > limits.HEADER_BYTES:
                raise InputError(_damaged(path, "its header has no end"))
            yield line.decode("latin-1").rstrip("\r\n"), file.tell()


def _whole(path: Path, fields: dict[str, str], name: str, allowed: range) -> int:
    text = fields.get(name, "")
    if not re.fullmatch(r"\d{1,4}", text) or int(text) not in allowed:
        raise InputError(_damaged(path, f"{name} is {text[:40]!r}; expected {allowed[0]} to {allowed[-1]}"))
    return int(text)


def _numbers(path: Path, name: str, text: str, count: int) -> list[float]:
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise InputError(_damaged(path, f"{name} is {text[:40]!r}; expected {count} numbers"))
    return numbers


def _check_claim(path: Path, sizes: list[int], each: int) -> int:
    """Bytes of data that the header declares."""
    size = math.prod(sizes) * each
    if size > limits.FILE_BYTES or math.prod(sizes) > limits.VOXELS * _MOST_DIMENSIONS:
        text = " x ".join(map(str, sizes))
        raise InputError(
            f"{path}: its header declares {text} voxels; expected at most {limits.VOXELS} and "
            f"{limits.FILE_BYTES >> 20} MiB: is it damaged?"
        )
    return size


def _beside(path: Path, name: str) -> Path:
    relative = Path(name)
    if (
        relative.is_absolute()
        or ".." in relative.parts
        or "\0" in name
        or "%" in name
        or name.upper().startswith("LIST")
    ):
        raise InputError(f"{path}: its data are in {name[:80]!r}; expected one file beside it: export it as one file")
    try:
        check_regular(path.parent / relative)
    except InputError as error:
        raise InputError(f"{path}: of its data, {error}") from None
    return path.parent / relative


def _check_there(path: Path, data: Path, begins: int, size: int) -> None:
    there = data.stat().st_size - begins
    if there < size:
        raise InputError(_damaged(path, f"it has {max(there, 0)} bytes of data, and its header declares {size}"))


def _check_packed(
    path: Path, data: Path, begins: int, sizes: tuple[int, int], *, lines: int = 0, length: int | None = None
) -> None:
    """Raises InputError unless the data are whole, and within `sizes` once unpacked; lines: to skip before them."""
    least, most = sizes
    with data.open("rb") as file:
        file.seek(begins)
        while lines > 0 and file.readline(_LONGEST_LINE):
            lines -= 1
        try:
            size = unpacked_size(file, most, length)
        except (EOFError, zlib.error) as error:
            raise InputError(_damaged(path, str(error))) from error
    if not least <= size <= most:
        what = f"{size} bytes of data" if size < least else f"more than {most} bytes of data"
        raise InputError(_damaged(path, f"it has {what}, and its header declares {least}"))


def _damaged(path: Path, reason: str) -> str:
    return f"{path}: the file is cut off, damaged or no image ({reason}); copy or export it again"
