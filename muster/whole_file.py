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
