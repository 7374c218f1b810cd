"""Key files: private keys on a disk, readable by their owner and never lost by overwriting."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from capsules.manifest import Publisher
from chalicelib.community import keyring
from chalicelib.community.keyring import RootKey, Unusable
from muster import whole_file

ROOT, PUBLISHING = "root.key", "publishing.key"


def read_root(path: Path) -> RootKey:
    """Read a root key; raises `OSError` and `Unusable`."""
    return RootKey.parse(_read(path))


def read_publishing(path: Path) -> Publisher:
    """Read publishing keys from a file, or from the folder that holds it."""
    return keyring.parse(_read(publishing_path(path)))


def publishing_path(path: Path) -> Path:
    """Return the file of publishing keys for a file or a folder."""
    return path / PUBLISHING if path.is_dir() else path


def keep_new(path: Path, raw: bytes) -> None:
    """Write a file that must not be there; raises `FileExistsError` if it is."""
    if not path.parent.is_dir():
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # a file, or somebody else's folder
            path.parent.mkdir(mode=0o700)
    whole_file.write(path, raw, new=True)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise Unusable(f"others can read {path}", f"'chmod go= {path}' keeps them out")
        return file.read(keyring.MAX_FILE_BYTES)
