"""How much packed data hold, told of whole ones only: ITK looks at no checksum, and takes what it could unpack."""

from __future__ import annotations

import zlib
from typing import BinaryIO

_READ, _UNPACK = 1 << 18, 1 << 22  # bytes at a time
_ZLIB_OR_GZIP = 47  # zlib's windowBits: whichever of the two it is
_GZIP = b"\x1f\x8b"


def unpacked_size(file: BinaryIO, most: int, length: int | None = None) -> int:
    """Unpacks a file from where it stands, and keeps nothing.

    Args:
        file: stands where the packed data begin.
        most: bytes after which it stops, somewhere beyond them.
        length: of the packed data; None: to the end of the file.

    Returns:
        Bytes unpacked, of all gzip streams in a row; what follows them does not count, as for ITK.

    Raises:
        EOFError: where the data are cut off.
        zlib.error: where they are damaged, or no packed data.
    """
    left = float("inf") if length is None else length
    size, packed = 0, b""

    def more() -> bytes:
        nonlocal left
        block = file.read(int(min(_READ, left)))
        left -= len(block)
        return block

    while True:
        stream = zlib.decompressobj(_ZLIB_OR_GZIP)
        while not stream.eof:
            packed = packed or more()
            if not packed:
                raise EOFError("its packed data are cut off")
            size += len(stream.decompress(packed, _UNPACK))
            packed = stream.unconsumed_tail
            if size > most:
                return size
        packed = stream.unused_data + more()
        if not packed.startswith(_GZIP):
            return size
