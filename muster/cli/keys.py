"""Keys: `muster keygen`, `muster capsule rotate` and `revoke`: what the maintainer signs.

All of them work on files and none on the network. Where the root key was used, the
publishing keys are written again: the server reads them at its next run.
"""

from __future__ import annotations

import argparse
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capsules.errors import Refused
from capsules.keys import KEY_BYTES, SigningKey, VerifyKey
from capsules.manifest import Publisher
from chalicelib.community import key_files, keyring
from chalicelib.community.keyring import DAY_S, RootKey, Unusable
from muster import whole_file
from muster.cli import names, output
from muster.cli.output import Failure

MOST_KEY_BYTES = 4096
SAFE = "Keep it off every server, and a copy of it elsewhere: nothing can replace it."


def make_root(arguments: argparse.Namespace) -> int:
    """Make a root key."""
    path = Path(arguments.out)
    root = RootKey.first(_fresh(), now=_now())
    _keep_new(path, root.encode())
    _tell(arguments, {"root": str(path)} | _named(root.verify_key), SAFE)
    return output.OK


def make_online(arguments: argparse.Namespace) -> int:
    """Make an online key and certify it."""
    root = read_root(arguments.root)
    path = Path(arguments.out)
    if path.is_dir() or arguments.out.endswith("/"):
        path /= key_files.PUBLISHING
    for name in arguments.community or ():
        names.community(name)
    with _usable(arguments.root):
        keys = root.certify(
            _imported(arguments.imported) if arguments.imported else _fresh(),
            now=_now(),
            lasting_s=arguments.days * DAY_S,
            communities=arguments.community,
        )
    _keep_new(path, keyring.encode(keys))
    _tell(arguments, _published(path, keys), "The server needs this file, and no other.")
    return output.OK


def rotate(arguments: argparse.Namespace) -> int:
    """Put a new online key, or a new root key, in the place of the old one."""
    root, keys = _both(arguments)
    path = key_files.publishing_path(Path(arguments.keys))
    lasting_s = arguments.days * DAY_S if arguments.days else None
    if arguments.online:
        with _usable(arguments.root):
            renewed = root.certify(
                _fresh(),
                now=_now(),
                lasting_s=lasting_s or keyring.CERTIFIED_S,
                communities=keyring.certificate(keys).communities,
            )
        told = _published(path, renewed)
        advice = "Clients take the new key at the next run. If the old one was stolen, revoke it."
    else:
        with _usable(arguments.root):
            new = root.succeed(_fresh(), now=_now())
            renewed = new.renew(keys, now=_now(), lasting_s=lasting_s)
        _check(path)
        # First the key, then what it signed: what is certified can be certified again.
        _keep_new(Path(arguments.new_root), new.encode())
        told = {
            "root": arguments.new_root,
            **_named(new.verify_key),
            "root_keys": len(new.documents),
        }
        advice = f"{SAFE} Clients that know an older root key follow; give new ones this key."
    _replace(path, keyring.encode(renewed))
    _tell(arguments, told, advice)
    return output.OK


def revoke(arguments: argparse.Namespace) -> int:
    """Let nobody believe these keys again."""
    root, keys = _both(arguments)
    revoked = [names.verify_key(text) for text in arguments.verify_keys]
    with _usable(arguments.root):
        newer = root.revoke(revoked, now=_now(), known=keys)
        renewed = keys._replace(revocations=newer.revocations)
    path = key_files.publishing_path(Path(arguments.keys))
    _check(path)
    _replace(Path(arguments.root), newer.encode())
    _replace(path, keyring.encode(renewed))
    advice = "Clients learn it from the next manifest they read."
    if keys.key.verify_key.to_base64() in newer.revoked:
        advice = (
            "This is the online key: nothing is published with it any more. "
            "'muster capsule rotate --online' makes another."
        )
    _tell(arguments, {"revoked": list(newer.revoked), "keys": str(path)}, advice)
    return output.OK


# --- reading what people name -----------------------------------------------------


def read_root(name: str) -> RootKey:
    """Read a root key's file."""
    with _usable(name):
        return key_files.read_root(Path(name))


def read_publishing(name: str) -> Publisher:
    """Read a server's publishing keys."""
    with _usable(name):
        return key_files.read_publishing(Path(name))


def _both(arguments: argparse.Namespace) -> tuple[RootKey, Publisher]:
    root, keys = read_root(arguments.root), read_publishing(arguments.keys)
    if root.verify_key != keyring.root_key(keys):
        raise Failure(
            f"{arguments.root} is not the root key of {arguments.keys}",
            f"that one has the verify key {keyring.root_key(keys).to_base64()}",
        )
    return root, keys


def _imported(name: str) -> SigningKey:
    with _usable(name):
        try:
            with Path(name).open("rb") as file:
                return SigningKey.from_base64(file.read(MOST_KEY_BYTES).decode("ascii").strip())
        except ValueError:
            raise Unusable("this is not an Ed25519 signing key in base64") from None


@contextmanager
def _usable(name: str) -> Iterator[None]:
    """Say in one line why a file cannot be used."""
    try:
        yield
    except Unusable as error:
        named = error.message if name in error.message else f"{name}: {error.message}"
        raise Failure(named, error.hint) from None
    except (Refused, ValueError) as error:
        raise Failure(f"{name}: {error}") from None
    except OSError as error:
        raise _unusable(error, Path(name)) from None


def _keep_new(path: Path, raw: bytes) -> None:
    try:
        key_files.keep_new(path, raw)
    except FileExistsError:
        raise Failure(f"there is a file {path} already", "keys are never overwritten") from None
    except OSError as error:
        raise _unusable(error, path) from None


def _check(path: Path) -> None:
    """Refuse what cannot be replaced before anything else is written."""
    try:
        whole_file.check(path)
    except OSError as error:
        raise _unusable(error, path) from None


def _replace(path: Path, raw: bytes) -> None:
    try:
        whole_file.write(path, raw)
    except OSError as error:
        raise _unusable(error, path) from None


def _unusable(error: OSError, path: Path) -> Failure:
    reason = (error.strerror or str(error)).lower()
    hint = "'muster keygen' makes keys" if isinstance(error, FileNotFoundError) else ""
    return Failure(f"cannot use {path}: {reason}", hint)


# --- telling ----------------------------------------------------------------------


def _tell(arguments: argparse.Namespace, told: Mapping[str, Any], advice: str) -> None:
    if arguments.json:
        output.dump(dict(told))
        return
    output.show_facts(told)
    output.say(advice)


def _published(path: Path, keys: Publisher) -> dict[str, Any]:
    found = keyring.certificate(keys)
    return {
        "keys": str(path),
        **_named(keys.key.verify_key),
        "certified_until": found.expires_at,
        "communities": list(found.communities) if found.communities is not None else "all",
        "root_verify_key": keyring.root_key(keys).to_base64(),
    }


def _named(key: VerifyKey) -> dict[str, str]:
    return {"verify_key": key.to_base64(), "key_id": key.key_id}


def _fresh() -> SigningKey:
    return SigningKey(secrets.token_bytes(KEY_BYTES))


def _now() -> int:
    return int(time.time())
