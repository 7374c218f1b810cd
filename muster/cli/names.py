"""Names and keys as people give them on the command line."""

from __future__ import annotations

from capsules import fields
from capsules.errors import Refused
from capsules.keys import VerifyKey
from muster.bootstrap import sources
from muster.cli.output import Misuse
from muster.errors import BadValue


def verify_key(text: str) -> VerifyKey:
    """Read a verify key in base64."""
    try:
        return VerifyKey.from_base64(text)
    except ValueError:
        raise Misuse(
            f"'{text[:60]}' is not a verify key", "it is 44 characters of base64, ending in ="
        ) from None


def community(name: str) -> str:
    """Return a community's name if it can be one."""
    try:
        return fields.community({"community": name})
    except Refused:
        raise Misuse(
            f"'{name[:80]}' cannot name a community",
            "use up to 64 letters, digits, dots, dashes and underscores",
        ) from None


def beacon(url: str) -> str:
    """Return the base URL of a beacon, or of a place that files are published to."""
    try:
        return sources.beacon(url).url
    except BadValue as error:
        raise Misuse(error.message, error.hint) from None
