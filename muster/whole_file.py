"""Whole files: written completely or not at all, whatever ends the program or the machine.

The content goes into a new file beside the old one, reaches the disk, and takes the name in
one step. What stands at the name is replaced only if it is a regular file: never a link,
which may lead into somebody else's place, nor a device.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PRIVATE, PUBLIC = 0o600, 0o644
"""Modes: for the owner alone, or for everybody to read."""

_NO_HARD_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def write(path: Path, content: bytes | str, *, mode: int = PRIVATE, new: bool = False) -> None:
    """Write a file; a *new* one raises `FileExistsError` where something has its name.

    Raises `OSError`, and then has changed nothing.
    """
    with writing(path, mode=mode, new=new) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def writing(path: Path, *, mode: int = PRIVATE, new: bool = False) -> Iterator[IO[bytes]]:
    """Yield a file to fill, which takes its name when the block ends without an error."""
    check(path, new=new)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # its mode is PRIVATE
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode != PRIVATE:
            fresh.chmod(mode)
        _take_name(fresh, path) if new else fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextlib.contextmanager
def delivering(path: Path, *, mode: int = PRIVATE) -> Iterator[IO[bytes]]:
    """Yield what a person's output goes to: a whole file, where a link leads too, or a stream.

    A pipe, a terminal or another device of characters is written to and stays what it is, as
    does whatever standard output is when the path names it. Raises `OSError` for the rest.
    """
    try:
        there = path.stat()
    except FileNotFoundError:
        there = None
    if there is not None and _is_stdout(there):
        with os.fdopen(os.dup(1), "wb") as stream:
            yield stream
    elif there is None or stat.S_ISREG(there.st_mode):
        with writing(path.resolve() if there else path, mode=mode) as file:
            yield file
    elif stat.S_ISFIFO(there.st_mode) or stat.S_ISCHR(there.st_mode):
        with path.open("wb") as stream:
            yield stream
    else:
        raise OSError(errno.EINVAL, "it is neither a file nor a stream", str(path))


def read(path: Path, *, most: int) -> bytes:
    """Return what is in a regular file, or one byte more than *most*; raises `OSError`.

    A pipe, which would keep whoever reads it waiting, is refused.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return file.read(most + 1)


def check(path: Path, *, new: bool = False) -> None:
    """Raise `OSError` if no file may be written there."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return
    if new:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    if not stat.S_ISREG(there.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def _is_stdout(there: os.stat_result) -> bool:
    try:
        return os.path.samestat(there, os.fstat(1))
    except OSError:
        return False


def sync_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk, where folders can be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _take_name(fresh: Path, path: Path) -> None:
    """Give a file a name that nothing has; raises `FileExistsError` if something does."""
    try:
        os.link(fresh, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        path.touch(PRIVATE, exist_ok=False)  # claims the name, and is whole a moment later
        fresh.replace(path)
