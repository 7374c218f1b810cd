"""Refusals: every deliberate no of the service, shared by service and client.

A refusal has a code (for programs), a status (for HTTP) and a message (for
people). The service raises it, one place turns it into the error body, and the
client raises the same class again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class Hinted(Exception):
    """An error that may carry advice: `message` says what is wrong, `hint` what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class BadValue(Hinted, ValueError):
    """A value that a caller gave cannot be used: a URL, a key, a code."""


class Refused(Hinted):
    """A no with a reason; the base of every refusal.

    ``retryable`` says whether the same call may succeed later, and
    ``retry_after_s`` when; the wire form is in docs/protocol.md (Errors).
    ``foreign`` says that these are not Muster's words: something on the way answered.
    """

    code: ClassVar[str] = "REFUSED"
    status: ClassVar[int] = 400
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, hint: str = "", *, retry_after_s: int | None = None) -> None:
        super().__init__(message, hint)
        self.retry_after_s = retry_after_s
        self.foreign = False

    @property
    def passing(self) -> bool:
        """Whether the same call may succeed later, if only because the path is mended."""
        return self.retryable or self.foreign

    def to_json(self) -> dict[str, Any]:
        """Return the error body: message and hint in one; ``detail`` repeats it for old clients."""
        said = str(self)
        return {
            "ok": False,
            "code": self.code,
            "message": said,
            "retryable": self.retryable,
            "detail": said,
        }


class InvalidRequest(Refused):
    """The call is malformed: wrong shape, wrong type or out of bounds."""

    code = "INVALID_REQUEST"


class ExpiredTimestamp(Refused):
    """The signed time is outside the window; correct the clock and sign again."""

    code = "EXPIRED_TIMESTAMP"


class InvalidSignature(Refused):
    """The call is not signed by the circle's request key."""

    code, status = "INVALID_SIGNATURE", 401


class InvalidToken(Refused):
    """The token is missing, forged, or for something else."""

    code, status = "INVALID_TOKEN", 401


class SessionExpired(Refused):
    """The token or the relay session is past its time; open it again."""

    code, status = "SESSION_EXPIRED", 401


class NotAllowed(Refused):
    """The service is closed, and its operator has not let this circle or community in."""

    code, status = "NOT_ALLOWED", 403

    def __init__(
        self,
        message: str = "this service is closed to circles and communities it was not told of",
        hint: str = "",
        *,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message, hint, retry_after_s=retry_after_s)


class NotFound(Refused):
    """There is no such path, registration or session."""

    code, status = "NOT_FOUND", 404


class PeerNotAttached(NotFound):
    """The other seat of the relay session is empty for now."""

    retryable = True


class MethodNotAllowed(Refused):
    """The path exists, the method does not."""

    code, status = "METHOD_NOT_ALLOWED", 405

    def __init__(self, message: str, *, allow: str = "") -> None:
        super().__init__(message)
        self.allow = allow


class NonceReplay(Refused):
    """The call was made before."""

    code, status = "NONCE_REPLAY", 409


class Outdated(Refused):
    """Something that was signed later stands already; sign again with a later time."""

    code, status = "OUTDATED", 409

    def __init__(
        self, message: str, hint: str = "", *, retry_after_s: int | None = None, at_ms: int = 0
    ) -> None:
        super().__init__(message, hint, retry_after_s=retry_after_s)
        self.at_ms = at_ms


class CircleFull(Refused):
    """The circle has as many members as one circle may have."""

    code, status = "CIRCLE_FULL", 409


class PayloadTooLarge(Refused):
    """The body, message, payload or frame is over its limit."""

    code, status = "PAYLOAD_TOO_LARGE", 413


class RateLimited(Refused):
    """Too many calls; wait and repeat."""

    code, status, retryable = "RATE_LIMITED", 429, True


class MailboxFull(Refused):
    """The mailbox holds as much as it may; older items must expire first."""

    code, status, retryable = "MAILBOX_FULL", 429, True


class InternalError(Refused):
    """The service failed; the call may be repeated."""

    code, status, retryable = "INTERNAL", 500, True


class Unavailable(Refused):
    """The store did not answer in time; nothing was acknowledged, repeat the call."""

    code, status, retryable = "UNAVAILABLE", 503, True


class InvalidFrame(Refused):
    """The WebSocket frame cannot be understood here."""

    code = "INVALID_FRAME"


class Idle(Refused):
    """Nothing was heard on the relay session for too long; attach again."""

    code, status, retryable = "IDLE", 408, True


_CLASSES: dict[str, type[Refused]] = {
    refusal.code: refusal
    for refusal in (
        InvalidRequest,
        ExpiredTimestamp,
        InvalidSignature,
        InvalidToken,
        SessionExpired,
        NotAllowed,
        NotFound,
        MethodNotAllowed,
        NonceReplay,
        Outdated,
        CircleFull,
        PayloadTooLarge,
        RateLimited,
        MailboxFull,
        InternalError,
        Unavailable,
        InvalidFrame,
        Idle,
    )
}

CODES = tuple(_CLASSES)
"""Every code an error body or an ERROR frame can carry."""


def from_json(
    body: Mapping[str, Any], *, status: int, hint: str = "", retry_after_s: int | None = None
) -> Refused:
    """Read an error body into the refusal the service raised.

    A body that is not Muster's (a proxy's page) becomes a foreign refusal by its status; a
    code that only a newer service knows becomes one by its status, too. *hint* is the caller's
    advice, as none travels apart from the message.
    """
    message = body.get("message") or body.get("detail")
    text = message if isinstance(message, str) else f"the service answered {status}"
    code = body.get("code")
    found = _CLASSES.get(code) if isinstance(code, str) else None
    foreign = found is None and not (isinstance(code, str) and body.get("ok") is False)
    if found is None:
        found = _by_status(status)
    refusal = found(text)
    refusal.hint = hint
    refusal.retry_after_s = retry_after_s
    refusal.foreign = foreign
    return refusal


def _by_status(status: int) -> type[Refused]:
    if status == RateLimited.status:
        return RateLimited
    if status in (502, 503, 504):
        return Unavailable
    if status >= InternalError.status:
        return InternalError
    for found in (InvalidSignature, NotFound, MethodNotAllowed, PayloadTooLarge):
        if found.status == status:
            return found
    return InvalidRequest
