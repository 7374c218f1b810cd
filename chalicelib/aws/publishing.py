"""Publishing on AWS: keys from a secret parameter, capsules into a bucket.

Clients are opened when they are first needed: of all functions only the one that
publishes needs them, and only it may read the keys.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from capsules.manifest import Publisher
from chalicelib.aws.clients import open_client
from chalicelib.aws.told import Told
from chalicelib.community import keyring
from chalicelib.community.keyring import Unusable
from chalicelib.community.press import Press
from chalicelib.community.publisher import PublishOutcome, communities
from chalicelib.community.shelf import S3Shelf
from chalicelib.log import code_of
from chalicelib.service import Service

KEYS_S = 900
"""How long a container uses keys that it has read: so soon a rotation is known."""

COMMUNITIES_A_RUN = 10
"""Strangers can name communities, and each that is published costs three writes to the bucket."""

MAKE = "`muster deploy` makes them"

TIER = "Intelligent-Tiering"
"""A parameter of more than 4 KB costs a little; long chains of root keys take so much."""


class BucketPublishing:
    """What a container keeps between two runs."""

    def __init__(
        self,
        told: Told,
        service: Callable[[], Service],
        *,
        open_client: Callable[[str], Any] = open_client,
    ) -> None:
        self._told = told
        self._service = service
        self._open = open_client
        self._kept: tuple[int, Publisher] | None = None

    def run(self, *, now: int) -> list[PublishOutcome]:
        """Publish what is due, where an operator has chosen a bucket; raises nothing."""
        if not self._told.capsule_bucket:
            return []
        return self._press.run(now=now)

    @property
    def idle(self) -> bool:
        """Whether the last run found no community at all."""
        return not self._told.capsule_bucket or self._press.idle

    def wanted(self, *, now: int) -> bool:
        """Say whether there is a community to publish, for one read."""
        return bool(self._told.capsule_bucket) and bool(communities(self._service(), now=now))

    @cached_property
    def _press(self) -> Press:
        shelf = S3Shelf(lambda: self._s3, self._told.capsule_bucket)
        return Press(self._service(), shelf, self._keys, most=COMMUNITIES_A_RUN)

    @cached_property
    def _s3(self) -> Any:
        return self._open("s3")

    @cached_property
    def _ssm(self) -> Any:
        return self._open("ssm")

    def _keys(self, now: int) -> Publisher:
        """Return the publishing keys; old ones go on if new ones cannot be read just now."""
        if self._kept is not None and now < self._kept[0] + KEYS_S:
            return self._kept[1]
        try:
            self._kept = (now, self._read())
        except Unusable:
            if self._kept is None:
                raise
        return self._kept[1]

    def _read(self) -> Publisher:
        name = self._told.capsule_keys_param
        if not name:
            raise Unusable("MUSTER_CAPSULE_KEYS_PARAM does not name the parameter of the keys")
        try:
            found = self._ssm.get_parameter(Name=name, WithDecryption=True)
        except Exception as error:
            code = code_of(error)
            if code == "ParameterNotFound":
                raise Unusable(f"there are no publishing keys in {name}; {MAKE}") from None
            raise Unusable(f"the publishing keys cannot be read: {code}") from None
        return keyring.parse(found["Parameter"]["Value"].encode())


def create_once(ssm: Any, name: str, value: str) -> bool:
    """Keep a secret under a name that is free; False if there is one, which stays as it is."""
    try:
        ssm.put_parameter(Name=name, Value=value, Type="SecureString", Tier=TIER, Overwrite=False)
    except ssm.exceptions.ParameterAlreadyExists:
        return False
    return True


__all__ = ["COMMUNITIES_A_RUN", "KEYS_S", "BucketPublishing", "create_once"]
