"""Hints: what to do about a failure, whether on the way to a service or with a capsule."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from capsules.errors import Reason
from muster import errors, network
from muster.answers import NOT_OURS
from muster.cli.output import Failure, Misuse
from muster.felund.exchange import BadReply
from muster.felund.sockets import Closed, Unreachable

START_ONE = "is it running? 'muster serve' starts one"

_REFUSED: dict[type[errors.Refused], str] = {
    errors.ExpiredTimestamp: "set this machine's clock, or the service's",
    errors.InvalidToken: "the service did not accept its own token; do several services share "
    "this address without sharing their store?",
    errors.SessionExpired: "try again; the session ran out on the way",
    errors.NonceReplay: "something on the way repeats calls; look for a proxy that retries",
    errors.CircleFull: "somebody has to leave first, or the operator raises circle_members",
    errors.PayloadTooLarge: "send less at a time; 'muster info' lists the limits",
    errors.MailboxFull: "older messages must expire first",
    errors.InternalError: "the service's log says why",
    errors.Unavailable: "the service or its store is overloaded or being restarted; try again",
    errors.MethodNotAllowed: "something on the way changes calls; is this the service's URL?",
}


CLOCK = "does this machine's clock tell the right time?"
_WRONG_KEY = "is this the root key of this publisher? compare the key with its maintainer's"
_NOT_TOGETHER = "the files do not belong together; fetch them once more"
_ELSEWHERE = "something else lives at this URL, or in this file"

REASONS: dict[str, str] = {
    Reason.UNREACHABLE: "is the URL right, and this machine online?",
    Reason.TIMEOUT: "the source is slow; --deadline gives it more time",
    Reason.CLOCK_WRONG: CLOCK,
    Reason.EXPIRED: f"it was not published for a day, or it is an old copy; {CLOCK}",
    Reason.FROZEN: f"it was not published for a day, or it is an old copy; {CLOCK}",
    Reason.NOT_YET_VALID: CLOCK,
    Reason.CERTIFICATE_EXPIRED: f"the publisher must 'muster capsule rotate --online'; {CLOCK}",
    Reason.CERTIFICATE_NOT_YET_VALID: CLOCK,
    Reason.CERTIFICATE_INVALID: _WRONG_KEY,
    Reason.ROOT_CHAIN_BROKEN: _WRONG_KEY,
    Reason.SIGNATURE_INVALID: f"it was changed, or another key signed it; {_WRONG_KEY}",
    Reason.REVOKED_KEY: "the maintainer has revoked this key; ask for the new one",
    Reason.WRONG_COMMUNITY: "--community says which one is meant",
    Reason.ROLLBACK: "this is an older list than one seen before; try another source",
    Reason.EQUIVOCATION: "the publisher's key signed two different lists; tell its maintainer",
    Reason.HASH_MISMATCH: _NOT_TOGETHER,
    Reason.LENGTH_MISMATCH: _NOT_TOGETHER,
    Reason.MALFORMED: _ELSEWHERE,
    Reason.TOO_LARGE: _ELSEWHERE,
}
"""What to do about a capsule, ticket or source that is not believed, by its `Reason`."""


def let_in(circle_hint: str) -> str:
    """Return what to do so that a closed service serves a circle."""
    return f"where it runs, this lets the circle in: muster access allow {circle_hint}"


def explain(error: BaseException, base_url: str, circle_hint: str = "") -> Failure:
    """Turn what was raised on the way to a service into a failure with a hint.

    *circle_hint* is the circle that was spoken for.
    """
    match error:
        case Failure():
            return error
        case errors.NotAllowed():
            return Failure(f"refused: {error.message}", let_in(circle_hint or "INVITE-OR-HINT"))
        case errors.BadValue():
            return Misuse(error.message, error.hint)
        case errors.Refused():
            return _doubt_proxy(_explain_refusal(error), base_url)
        case BadReply():
            return _doubt_proxy(Failure(_first_line(error), error.hint or NOT_OURS), base_url)
        case Closed():
            return Failure(
                "the WebSocket was closed", "a proxy may close long connections; try again"
            )
        case TimeoutError():
            return Failure(
                f"{base_url} took too long", "is the network slow, or the service overloaded?"
            )
        case Unreachable():
            return _unreachable(error, base_url)
    return Failure(
        f"{type(error).__name__}: {error}", "this is a mistake in muster; please report it"
    )


def _explain_refusal(refusal: errors.Refused) -> Failure:
    if refusal.hint:
        return Failure(refusal.message, refusal.hint)
    message = f"refused: {refusal.message}"
    if isinstance(refusal, errors.RateLimited):
        wait_s = refusal.retry_after_s
        again = f"wait {wait_s} s" if wait_s else "wait a little"
        return Failure(message, f"{again} and try again; 'muster info' lists the limits")
    if isinstance(refusal, errors.InvalidSignature):
        return Failure(message, _signature_hint(refusal.message))
    if isinstance(refusal, errors.NotFound) and "such path" in refusal.message:
        return Failure(
            "there is a Muster service, but not at this path",
            "check the path of the URL; or the service is older than this command",
        )
    for kind, hint in _REFUSED.items():
        if isinstance(refusal, kind):
            return Failure(message, hint)
    return Failure(message)


def _signature_hint(message: str) -> str:
    if "no request key" in message:
        return "nobody of the circle has registered here yet; 'muster listen' does"
    return (
        "either another secret came first for this circle, or a proxy on the way drops the "
        "X-Felund headers or changes the path after /v1"
    )


def _unreachable(error: Unreachable, base_url: str) -> Failure:
    parts = urlsplit(base_url)
    place, https = parts.netloc, parts.scheme == "https"
    causes = list(_causes(error))
    proxy = _proxy(base_url)
    if proxy and not any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return Failure(
            f"the proxy that {proxy} names does not lead to {place}: {_first_line(error)}",
            f"no_proxy={parts.hostname} goes without it",
        )
    for cause in causes:
        match cause:
            case errors.BadValue():
                return Misuse(cause.message, cause.hint)
            case socket.gaierror():
                return Failure(
                    f"there is no host '{parts.hostname}'", "check the spelling, or the DNS"
                )
            case ssl.SSLCertVerificationError():
                reason = cause.verify_message
                return Failure(
                    f"{place} shows a certificate that cannot be trusted: {reason}",
                    "use the name the certificate is for, renew it if it has expired, or name "
                    "your own authority: SSL_CERT_FILE=FILE",
                )
            case ssl.SSLError():
                return Failure(
                    f"{place} does not speak TLS as expected", "try http:// in place of https://"
                )
            case ConnectionRefusedError():
                return Failure(f"nothing listens at {place}", START_ONE)
            case ConnectionResetError():
                return Failure(
                    f"{place} broke off",
                    "it may have been stopped just now" if https else "does it want https://?",
                )
            case OSError(errno=errno.ENETUNREACH | errno.EHOSTUNREACH):
                return Failure(f"there is no way to {place}", "is this machine online?")
            case TimeoutError():
                return Failure(
                    f"{place} did not answer in time",
                    "is the address right, and no firewall between?",
                )
    return Failure(_first_line(error), f"is {place} a Muster service?")


def websocket(error: Exception, base_url: str) -> Failure:
    """Explain why a WebSocket did not open where HTTP did."""
    failure = explain(error, base_url)
    if isinstance(error, errors.Refused) and not error.message.startswith("the service answered"):
        return failure  # the service has said why
    return Failure(
        failure.message,
        "HTTP works and the WebSocket does not: a proxy on the way must pass 'Upgrade: websocket' "
        "for /v1/relay/ws, and MUSTER_WEBSOCKET_URL must lead there if the service is behind one",
    )


def _proxy(base_url: str) -> str:
    """Return the variable that names the proxy for a URL, if one does."""
    try:
        return network.route(base_url).variable
    except errors.BadValue:
        return ""


def _doubt_proxy(failure: Failure, base_url: str) -> Failure:
    """Say that a proxy may have answered, where the answer was not Muster's."""
    if failure.hint == NOT_OURS and (proxy := _proxy(base_url)):
        failure.hint += f" or does the proxy answer that {proxy} names?"
    return failure


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                yield from _causes(inner)
        else:
            yield error
        error = error.__cause__ or error.__context__


def _first_line(error: errors.Hinted) -> str:
    return error.message.partition("\n")[0] or type(error).__name__
