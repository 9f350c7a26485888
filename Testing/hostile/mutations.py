"""Seeded damage to files: to bytes, to the fields of image headers, to JSON and TOML."""

import copy
import gzip
import json
import struct

# offset and form of the fields of a NIfTI-1 header
NIFTI_FIELDS = {
    "sizeof_hdr": (0, "i"), "extents": (32, "i"), "dim_info": (39, "b"),
    **{f"dim{k}": (40 + 2 * k, "h") for k in range(8)}, "datatype": (70, "h"), "bitpix": (72, "h"),
    **{f"pixdim{k}": (76 + 4 * k, "f") for k in range(8)}, "vox_offset": (108, "f"), "scl_slope": (112, "f"),
    "scl_inter": (116, "f"), "xyzt_units": (123, "B"), "qform_code": (252, "h"), "sform_code": (254, "h"),
    **{f"quatern{k}": (256 + 4 * k, "f") for k in range(6)}, **{f"srow{k}": (280 + 4 * k, "f") for k in range(12)},
    "magic": (344, "i"),
}  # fmt: skip
_ODD = {
    "f": [0, -1, 1e-6, 1e-30, 500, 1e10, 3e38, float("inf"), float("-inf"), float("nan"), 72, 1e5, 352.5],
    "h": [0, -1, 1, 2, 4, 7, 8, 16, 72, 128, 256, 512, 1536, 2048, 2304, 9999, 32767, -32768],
    "i": [0, -1, 348, 540, 1543569408, 2**31 - 1, -(2**31), 1852, 0x6E693100, 0],
    "b": [0, -1, 127],
    "B": [0, 1, 3, 4, 5, 7, 10, 72, 255],
}
_VALUES = [
    None, True, False, 0, -1, 2, 1.5, -0.0, 1e308, float("nan"), float("inf"), 10**17, -(10**17), 10**30, "", "x", "\0",
    "\ud800", "a" * 5000, "../../etc/passwd", "/dev/zero", [], {}, [[]], [None], {"": None}, {"x": {"y": []}},
    [1, "2", []], [[[[[[]]]]]], "1e5", "NaN", ["NCR"], {"NCR": "ED"}, "2024-01-01",
]  # fmt: skip


def damage_bytes(rng, data: bytes, first: int | None = None) -> bytes:
    """first: only the first so many bytes are changed, those of a header."""
    data = bytearray(data)
    end = min(len(data), first or len(data))
    what = rng.integers(6)
    if what == 0:
        return bytes(data[: rng.integers(len(data) + 1)])
    if what == 1:
        place = int(rng.integers(end))
        data[place:place] = rng.bytes(int(rng.integers(1, 40)))
    elif what == 2:
        place = int(rng.integers(end))
        del data[place : place + int(rng.integers(1, 40))]
    else:
        for _ in range(int(rng.integers(1, 8))):
            data[int(rng.integers(end))] = int(rng.integers(256))
    return bytes(data)


def damage_nifti(rng, data: bytes) -> bytes:
    """A NIfTI file, not compressed."""
    if rng.random() < 0.3:
        return damage_bytes(rng, data, 352)
    data = bytearray(data)
    for name in rng.choice(list(NIFTI_FIELDS), int(rng.integers(1, 4))):
        offset, form = NIFTI_FIELDS[name]
        odd = _ODD[form]
        struct.pack_into(f"<{form}", data, offset, odd[int(rng.integers(len(odd)))])
    return bytes(data)


def damage_gzip(rng, data: bytes) -> bytes:
    """A compressed NIfTI file from one that is not: its content, its packing, or both."""
    what = rng.integers(6)
    if what == 0:
        return gzip.compress(data + bytes(1 << 26), 1)  # much more than its header says
    if what == 1:
        return gzip.compress(data) + gzip.compress(rng.bytes(100))
    if what == 2:
        return damage_bytes(rng, gzip.compress(data))
    if what == 3:
        return gzip.compress(damage_bytes(rng, data))
    return gzip.compress(damage_nifti(rng, data))


def damage_header(rng, data: bytes, ends: bytes) -> bytes:
    """The header of text of a MetaImage or NRRD file, which ends with `ends`."""
    end = data.index(ends) + len(ends)
    header, rest = data[:end], data[end:]
    what = rng.integers(5)
    if what == 0:
        return damage_bytes(rng, data, end)
    lines = header.split(b"\n")
    line = int(rng.integers(len(lines) - 1))
    odd = [b"100", b"40000", b"-1", b"0", b"1e99", b"nan", b"3 3", b"99999 99999 99999", b"", b"x" * 70000, b"9" * 5000]
    odd += [
        b"LIST",
        b"/dev/zero",
        b"../x.raw",
        b"%d 1 999999999 1",
        b"True",
        b"MET_STRING",
        b"raw",
        b"gzip",
        b"0.001 0 0",
    ]
    split = b"=" if b"=" in lines[line] else b":"
    name, _, value = lines[line].partition(split)
    if what == 1:
        value = b" " + odd[int(rng.integers(len(odd)))]
    elif what == 2:
        words = value.split() or [b""]
        words[int(rng.integers(len(words)))] = odd[int(rng.integers(len(odd)))]
        value = b" " + b" ".join(words)
    elif what == 3:
        lines.pop(line)
    else:
        lines.insert(line, lines[int(rng.integers(len(lines)))])
    if what in (1, 2):
        lines[line] = name + split + value
    return b"\n".join(lines) + rest


def damage_json(rng, values) -> bytes:
    """Plain values -> the text of a JSON file in which something is wrong."""
    what = rng.integers(10)
    if what == 0:
        return damage_bytes(rng, json.dumps(values).encode())
    if what == 1:
        return [b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000, b"", b"null", b"[]", b'"x"', b"\xff\xfe{}", b"{}"][
            int(rng.integers(9))
        ]
    if what == 2:
        text = json.dumps(values).encode()
        places = [k for k, byte in enumerate(text) if byte in b":,["]
        place = places[int(rng.integers(len(places)))] + 1 if places else 0
        return (
            text[:place]
            + [b"9" * 5000 + b",", b"[" * 40 + b"]" * 40 + b",", b"1e999,", b"-"][int(rng.integers(4))]
            + text[place:]
        )
    values = copy.deepcopy(values)
    for _ in range(int(rng.integers(1, 3))):
        spoil_one(rng, values)
    return json.dumps(values).encode()


def spoil_one(rng, values) -> None:
    """One value at a random place, of whatever depth, becomes an odd one, is lost, or gets an odd neighbour."""
    place = values
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = keys[int(rng.integers(len(keys)))]
        if not (isinstance(place[key], dict | list) and place[key] and rng.random() < 0.75):
            break
        place = place[key]
    what = rng.random()
    odd = copy.deepcopy(_VALUES[int(rng.integers(len(_VALUES)))])
    if what < 0.7:
        place[key] = odd
    elif what < 0.85:
        del place[key]
    elif isinstance(place, dict):
        place["odd"] = odd
    else:
        place.append(odd)
