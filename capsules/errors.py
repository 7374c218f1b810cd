"""Refusals: why signed metadata is not believed, in one word for programs and one line for people.

The words are the same in `web/muster/bootstrap`. Those that existing clients of tickets know
(docs/formats.md, Refusals) keep the names they have there.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Everything that can be wrong with what somebody signed or sealed."""

    # tickets, in the order in which existing clients check them
    EXPIRED = "EXPIRED"
    NOT_YET_VALID = "NOT_YET_VALID"
    PEER_ID_MISMATCH = "PEER_ID_MISMATCH"
    USER_ID_MISMATCH = "USER_ID_MISMATCH"
    UNTRUSTED_PUBLIC_KEY = "UNTRUSTED_PUBLIC_KEY"
    UNSUPPORTED_ALGORITHM = "UNSUPPORTED_ALGORITHM"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    # anything
    MALFORMED = "MALFORMED"
    NOT_CANONICAL = "NOT_CANONICAL"
    LIFETIME_TOO_LONG = "LIFETIME_TOO_LONG"
    REVOKED_KEY = "REVOKED_KEY"
    TOO_LARGE = "TOO_LARGE"
    # capsules and manifests
    TOO_MANY_ENTRIES = "TOO_MANY_ENTRIES"
    LENGTH_MISMATCH = "LENGTH_MISMATCH"
    HASH_MISMATCH = "HASH_MISMATCH"
    SIGNATURE_MISMATCH = "SIGNATURE_MISMATCH"
    WRONG_COMMUNITY = "WRONG_COMMUNITY"
    FROZEN = "FROZEN"
    ROLLBACK = "ROLLBACK"
    FAST_FORWARD = "FAST_FORWARD"
    EQUIVOCATION = "EQUIVOCATION"
    CLOCK_WRONG = "CLOCK_WRONG"
    # keys
    ROOT_CHAIN_BROKEN = "ROOT_CHAIN_BROKEN"
    CERTIFICATE_INVALID = "CERTIFICATE_INVALID"
    CERTIFICATE_EXPIRED = "CERTIFICATE_EXPIRED"
    CERTIFICATE_NOT_YET_VALID = "CERTIFICATE_NOT_YET_VALID"
    KEY_MISMATCH = "KEY_MISMATCH"
    REVOCATIONS_INVALID = "REVOCATIONS_INVALID"
    # circles of version 2
    WEAK_KEY = "WEAK_KEY"
    UNREADABLE = "UNREADABLE"
    WRONG_CIRCLE = "WRONG_CIRCLE"
    WRONG_NODE = "WRONG_NODE"
    # whoever fetches
    UNREACHABLE = "UNREACHABLE"
    TIMEOUT = "TIMEOUT"
    # browsers that cannot verify signatures; Python always can
    UNSUPPORTED = "UNSUPPORTED"


class Refused(Exception):
    """A no with a reason."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
