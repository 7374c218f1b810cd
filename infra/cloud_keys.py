"""Cloud keys: the secrets of a deployment, kept by AWS and made once.

The publishing keys are certified by a root key, which stays with the operator: a file
of `muster keygen root`, or one that the first deployment makes. The edge secret is
shown by CloudFront to the service. Both are secret parameters of Systems Manager,
which no template can make.
"""

from __future__ import annotations

import argparse
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from capsules.keys import KEY_BYTES, SigningKey
from capsules.manifest import Publisher
from chalicelib.aws.publishing import TIER, create_once
from chalicelib.community import key_files, keyring
from chalicelib.community.keyring import DAY_S, RootKey, Unusable
from infra.cloud import Cloud, code_of, connect, explained
from muster import whole_file
from muster.cli import output
from muster.cli.home import Home
from muster.cli.keys import SAFE
from muster.cli.output import Failure, say


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a deployment needs, and what of it is still to be kept."""

    root: str
    edge: str
    new_root: tuple[Path, RootKey] | None = None
    new_keys: Publisher | None = None
    new_edge: bool = False

    @property
    def fresh(self) -> tuple[str, ...]:
        """Name what would be made."""
        made = (
            (self.new_root is not None, "a root key, kept here"),
            (self.new_keys is not None, "publishing keys, kept in Systems Manager"),
            (self.new_edge, "a secret for CloudFront, kept in Systems Manager"),
        )
        return tuple(what for new, what in made if new)


def root_path(named: str | None, stage: str) -> Path:
    """Return the file of the root key: as named, else in the home."""
    return Path(named) if named else Home.from_environment().path / f"root-{stage}.key"


def find(cloud: Cloud, root_file: Path, *, edge: bool = False) -> Secrets:
    """Look for the secrets and make what is missing, in memory: nothing is kept yet.

    What CloudFront shows the service is made where there is an *edge*, and else stays as it is.
    """
    kept = read(cloud)
    shown = _parameter(cloud, cloud.names.edge) or ""
    new_root = new_keys = None
    if kept is None:
        new_root, new_keys = _fresh(root_file)
        kept = new_keys
    return Secrets(
        keyring.root_key(kept).to_base64(),
        shown or (secrets.token_urlsafe(32) if edge else ""),
        new_root,
        new_keys,
        edge and not shown,
    )


def keep(cloud: Cloud, found: Secrets) -> None:
    """Keep what was made; what somebody else kept meanwhile stays, and ours is refused."""
    ssm = cloud.client("ssm")
    if found.new_root is not None:
        path, root = found.new_root
        try:
            key_files.keep_new(path, root.encode())
        except OSError as error:
            raise Failure(
                f"the root key cannot be kept in {path}: {error.strerror or error}",
                "--root FILE names another place",
            ) from None
        say(f"made the root key {path}")
        say(f"  {SAFE}")
    wanted = []
    if found.new_keys is not None:
        wanted.append((cloud.names.keys, keyring.encode(found.new_keys).decode()))
    if found.new_edge:
        wanted.append((cloud.names.edge, found.edge))
    for name, value in wanted:
        with explained(f"keeping {name}"):
            if not create_once(ssm, name, value):
                raise Failure(f"another deployment has made {name} meanwhile", "try again")
        say(f"made {name}")


def read(cloud: Cloud) -> Publisher | None:
    """Return the publishing keys that AWS keeps; None if there are none yet."""
    value = _parameter(cloud, cloud.names.keys)
    if value is None:
        return None
    try:
        return keyring.parse(value.encode())
    except Unusable as error:
        raise Failure(
            f"{cloud.names.keys} holds no usable keys: {error}",
            "put a publishing.key there, or delete the parameter to have new ones made",
        ) from None


def days_left(keys: Publisher) -> int:
    """Return for how many days the keys may still publish."""
    return (keyring.certificate(keys).expires_at - int(time.time())) // DAY_S


def rotate(arguments: argparse.Namespace) -> int:
    """Put a new online key in the place of the one that publishes."""
    cloud = connect(arguments.stage, profile=arguments.profile, region=arguments.region)
    path = root_path(arguments.root, arguments.stage)
    old = read(cloud)
    if old is None:
        raise Failure(f"{cloud.names.keys} is not there", "'muster deploy' makes it")
    now = int(time.time())
    root = _read_root(path)
    if root.verify_key != keyring.root_key(old):
        raise Failure(
            f"{path} is not the root key of this deployment",
            f"it is {keyring.root_key(old).key_id}; name its file with --root FILE",
        )
    before = keyring.certificate(old)
    if arguments.revoke:
        root = root.revoke([before.verify_key], now=now, known=old)
        whole_file.write(path, root.encode())
    new = root.certify(
        SigningKey(secrets.token_bytes(KEY_BYTES)),
        now=now,
        lasting_s=arguments.days * DAY_S,
        communities=before.communities,
        after=old,
    )
    with explained("keeping the new keys"):
        cloud.client("ssm").put_parameter(
            Name=cloud.names.keys,
            Value=keyring.encode(new).decode(),
            Type="SecureString",
            Tier=TIER,
            Overwrite=True,
        )
    told = {
        "parameter": cloud.names.keys,
        "old_key_id": before.verify_key.key_id,
        "key_id": keyring.certificate(new).verify_key.key_id,
        "root": keyring.root_key(new).to_base64(),
        "revoked": arguments.revoke,
        "days": arguments.days,
    }
    if arguments.json:
        output.dump(told)
        return output.OK
    output.show(f"{told['key_id']} publishes in the place of {told['old_key_id']}")
    output.show("The publisher reads it within 20 minutes; clients take it at its next run.")
    if not arguments.revoke:
        output.show("If the old key was stolen, run this again with --revoke.")
    return output.OK


def _fresh(path: Path) -> tuple[tuple[Path, RootKey] | None, Publisher]:
    now = int(time.time())
    made = None
    if path.exists():
        root = _read_root(path)
    else:
        root = RootKey.first(SigningKey(secrets.token_bytes(KEY_BYTES)), now=now)
        made = (path, root)
    return made, root.certify(SigningKey(secrets.token_bytes(KEY_BYTES)), now=now)


def _read_root(path: Path) -> RootKey:
    try:
        return key_files.read_root(path)
    except FileNotFoundError:
        raise Failure(f"the root key is not in {path}", "name its file with --root FILE") from None
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror or error}") from None
    except Unusable as error:
        raise Failure(f"cannot use {path}: {error}") from None


def _parameter(cloud: Cloud, name: str) -> str | None:
    from botocore.exceptions import ClientError

    with explained(f"reading {name}"):
        try:
            found = cloud.client("ssm").get_parameter(Name=name, WithDecryption=True)
        except ClientError as error:
            if code_of(error) == "ParameterNotFound":
                return None
            raise
    return str(found["Parameter"]["Value"])
