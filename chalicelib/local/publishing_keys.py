"""The publishing keys in the data directory, and what their operator is told about them."""

from __future__ import annotations

import contextlib
import secrets
import shlex
from pathlib import Path

from capsules.keys import KEY_BYTES, SigningKey
from capsules.manifest import Publisher
from chalicelib import http
from chalicelib.community import key_files, keyring
from chalicelib.community.keyring import RootKey, Unusable
from chalicelib.community.publisher import FILES
from muster import whole_file

RENEW_S = 30 * keyring.DAY_S
"""So long before its end a certificate is renewed, where the root key is at hand."""


class KeyFolder:
    """The publishing keys in a folder, made when there are none, and read again when changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / key_files.PUBLISHING
        self._read: tuple[tuple[int, int], Publisher] | None = None

    @property
    def root_path(self) -> Path:
        """Where the root key is, until somebody takes it to a safe place."""
        return self._folder / key_files.ROOT

    def prepare(self, *, now: int) -> bool:
        """Make sure that there are keys; say whether they were made now.

        Raises `OSError` and `Unusable`.
        """
        if self._path.exists():
            self.load(now)
            return False
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.root_path.exists():
            made = RootKey.first(_fresh(), now=now)
            key_files.keep_new(self.root_path, made.encode())
        root = key_files.read_root(self.root_path)
        key_files.keep_new(self._path, keyring.encode(root.certify(_fresh(), now=now)))
        return True

    def load(self, now: int) -> Publisher:
        """Return the publishing keys; a certificate that ends soon is renewed if that is possible.

        Raises `OSError` and `Unusable`.
        """
        found = self._path.stat()
        stamp = (found.st_mtime_ns, found.st_ino)
        if self._read is None or self._read[0] != stamp:
            self._read = (stamp, key_files.read_publishing(self._path))
        keys = self._read[1]
        if keyring.certificate(keys).expires_at - now < RENEW_S and self.root_path.exists():
            with contextlib.suppress(Unusable, OSError):
                root = key_files.read_root(self.root_path)
                if root.verify_key == keyring.root_key(keys):
                    keys = root.renew(keys, now=now, lasting_s=keyring.CERTIFIED_S)
                    whole_file.write(self._path, keyring.encode(keys))
        return keys


def notice(keys: KeyFolder, base: str, *, made: bool, now: int) -> str:
    """Say with which keys is published, and what the operator should do about them."""
    publisher = keys.load(now)
    lines = [
        f"  capsules  {base}{http.CAPSULES}COMMUNITY/{FILES[0]}",
        f"  root key  {keyring.root_key(publisher).to_base64()}",
    ]
    left_s = keyring.certificate(publisher).expires_at - now
    if keys.root_path.exists():
        what = "Keys to publish with were made." if made else "The root key is still here."
        lines += ["", f"{what} Move the root key to a safe place off this machine:"]
        lines += [f"  {keys.root_path}"]
    elif left_s < keyring.WARN_S:
        days = max(left_s, 0) // keyring.DAY_S
        lines += ["", f"The online key may publish for {days} more days; with the root key,"]
        folder = shlex.quote(str(keys.root_path.parent))
        lines += [f"'muster capsule rotate --online --root FILE --keys {folder}' makes another."]
    return "".join(line + "\n" for line in lines)


def _fresh() -> SigningKey:
    return SigningKey(secrets.token_bytes(KEY_BYTES))
