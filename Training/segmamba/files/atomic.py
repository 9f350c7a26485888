"""Files and folders: what may be opened, how they are written so that nobody ever sees half of one, and whose they are.

A file that is written stands beside its place under a name of `aside` until it is whole. A folder that several accounts
may write to (its group may) hands that on to what is made in it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from segmamba import limits
from segmamba.errors import InputError, explain

# with a process number, a token, or our name in front: other programs have hidden .tmp files too, in /tmp above all
_LEFT = re.compile(r"\.(\d+\..+|[0-9a-f]{16}|segmamba-.+)\.tmp(\.nii(\.gz)?)?")
# what systems leave in every folder that is looked into
_CLUTTER = re.compile(r"\._.*|\.DS_Store|\.directory|\.nfs.*|\.fuse_hidden.*|Thumbs\.db|desktop\.ini", re.IGNORECASE)
_CLUTTER_FOLDER = re.compile(
    r"@eaDir|\.@__thumb|\.AppleDouble|#recycle|\$RECYCLE\.BIN|System Volume Information|lost\+found", re.IGNORECASE
)


def check_regular(path: Path) -> None:
    """Refuses what is no file that ends: missing, a folder, a pipe, a device, or not to be looked at.

    Asked before opening: to open a pipe waits for ever, and a device has no end. Raises InputError.
    """
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        broken = path.is_symlink()
        raise InputError(f"{path}: {'a broken link' if broken else 'no such file'}; check the path") from None
    except OSError as error:
        raise InputError(explain(error)) from None
    except ValueError:  # a null byte
        raise InputError(f"{str(path)!r}: not a valid file name; check the path") from None
    if stat.S_ISDIR(kind):
        raise InputError(f"{path}: a folder; expected a file")
    if not stat.S_ISREG(kind):
        raise InputError(f"{path}: a pipe, a device or a socket; expected a regular file")


def read_bytes(path: Path, most: int = limits.TEXT_BYTES) -> bytes:
    """The whole of a regular file. Raises InputError for what is none, cannot be read, or has more than `most`."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise InputError(explain(error)) from None
    if len(data) > most:
        raise InputError(f"{path}: more than {most // 1024**2} MiB; files of this program are smaller")
    return data


def read_text(path: Path, most: int = limits.TEXT_BYTES) -> str:
    """As `read_bytes`, in UTF-8. Raises InputError."""
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} cannot be read: it is not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None


def aside(path: Path, suffix: str = "") -> Path:
    """A name beside `path` for what is to become it, of a length that does not depend on the name of `path`.

    A token, for two machines that share a folder may have the same process number.
    """
    return path.with_name(f".{os.getpid()}.{secrets.token_hex(8)}.tmp{suffix}")


def write_aside(path: Path, data: bytes, mode: int | None = None) -> None:
    """Writes a file beside its place, flushes it to disk, and renames it: readers see the old file or the new one.

    Args:
        path: of the file; its folder exists.
        data: all of its content.
        mode: permissions of the file, from its first moment on; None: as usual, and as `share`.

    Raises:
        OSError: where it cannot be written; the old file is as it was.
    """
    temporary = aside(path)
    try:
        with naming(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            number = os.open(temporary, flags, mode or 0o666)
            with os.fdopen(number, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if mode is None:
                share(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of what becomes `path` names it: a full disk says no name, others that of what lies aside."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # the system's; what a library says itself is its text alone
            error.filename, error.filename2 = str(path), None
        raise


def make_folder(path: Path) -> Path:
    """A folder and those above it, each shared as the one that it was made in; `path` itself. Raises InputError."""
    missing = []
    try:
        ancestor = path
        while not ancestor.is_dir():
            missing.append(ancestor)
            if ancestor.parent == ancestor:
                break
            ancestor = ancestor.parent
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            share(new)
    except FileExistsError:
        raise InputError(f"{new}: a file; expected a folder, or nothing yet: choose another name") from None
    except OSError as error:
        raise InputError(explain(error)) from None
    except ValueError:
        raise InputError(f"{str(path)!r}: not a valid folder name; choose another one") from None
    return path


def share(path: Path) -> None:
    """What was just made gets the group of its folder, and the group's right to write, where the folder has it."""
    if os.name != "posix":
        return
    folder = path.parent.stat()
    if not folder.st_mode & stat.S_IWGRP:
        return
    own = path.stat()
    if own.st_uid != os.getuid():
        return
    with contextlib.suppress(OSError):  # of a group that we are not in, or on a share that knows no modes
        if own.st_gid != folder.st_gid:
            os.chown(path, -1, folder.st_gid)
        more = stat.S_IRGRP | stat.S_IWGRP
        more |= stat.S_IXGRP | (folder.st_mode & stat.S_ISGID) if path.is_dir() else 0
        path.chmod(stat.S_IMODE(own.st_mode) | more)


def check_output_folder(path: Path) -> None:
    """Checks that files can be made in a folder, there or not: before the work, not after it.

    Nothing is left behind: the folder is not made. Raises InputError where they cannot.
    """
    try:
        ancestor = path
        while not _is_there(ancestor):
            if ancestor.is_symlink() or ancestor.parent == ancestor:
                raise InputError(f"{ancestor}: a broken link, or no such drive; choose another folder")
            ancestor = ancestor.parent
        if not ancestor.is_dir():
            raise InputError(f"{ancestor}: a file; expected a folder, or nothing yet: choose another name")
        trial = aside(ancestor / "trial")
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        error.filename = str(path)
        raise InputError(explain(error)) from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r}: not a valid folder name; choose another one") from None


def _is_there(path: Path) -> bool:
    """Unlike Path.exists in any version, raises OSError for a name that is too long."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def check_output_file(path: Path) -> None:
    """Checks that a file can be written, there or not: before the work, not after it. Raises InputError otherwise."""
    check_output_folder(path.parent)
    try:
        if path.is_dir():
            raise InputError(f"{path}: a folder; expected the name of a file")
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}; create it first")
    except OSError as error:
        raise InputError(explain(error)) from None


def sweep(folder: Path, unused: bool = False) -> None:
    """Takes away what was half-written in `folder` by programs of this account that were killed.

    What changed within the last hour may be in use, and stays.

    unused: nobody is at work in `folder`; then nothing stays, of whatever account and age.
    """
    try:
        leftovers = [path for path in folder.iterdir() if _LEFT.fullmatch(path.name)]
    except OSError:
        return
    for path in leftovers:
        with contextlib.suppress(OSError):
            if not unused and not (is_mine(path) and time.time() - _last_change(path) > limits.LEFTOVER_SECONDS):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def is_clutter(name: str) -> bool:
    """Whether a file's name is one that macOS, Windows, KDE or a file server leaves in folders by itself."""
    return _CLUTTER.fullmatch(name) is not None


def is_clutter_folder(name: str) -> bool:
    """Whether a folder's name is one that Windows, a disk or a file server makes by itself."""
    return _CLUTTER_FOLDER.fullmatch(name) is not None


def is_left_by_system(path: Path) -> bool:
    """Whether it is a file or a folder that is there by no person's will: `is_clutter`, `is_clutter_folder`."""
    return is_clutter(path.name) or (is_clutter_folder(path.name) and path.is_dir() and not path.is_symlink())


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder` by name, but for hidden ones and those that a system makes by itself."""
    return sorted(p for p in folder.iterdir() if p.name[0] != "." and not is_clutter_folder(p.name) and p.is_dir())


def is_mine(path: Path) -> bool:
    """Whether it belongs to the account that asks; on Windows, which has no such number, always."""
    return os.name != "posix" or path.lstat().st_uid == os.getuid()


def _last_change(path: Path) -> float:
    """Seconds since 1970; of a folder, of whatever in it changed last."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    return max(entry.lstat().st_mtime for entry in (path, *inside))
