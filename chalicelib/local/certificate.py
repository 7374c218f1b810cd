"""The certificate that one machine shows: read from two files, and read again when they change."""

from __future__ import annotations

import logging
import os
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.x509 import Certificate as X509

LOOK_S = 2.0
"""How often the files are looked at; a change counts once it was seen twice alike."""

MOST_BYTES = 1024 * 1024

CERTIFICATE, KEY = "MUSTER_TLS_CERT", "MUSTER_TLS_KEY"

_Stamp = tuple[tuple[int, int, int], ...]

_log = logging.getLogger("muster")


class Unfit(ValueError):
    """A certificate or a key that cannot be used; the message is a sentence that names it."""


class Certificate:
    """A certificate with its key, as connections are shown it that begin now."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read the files; raises `Unfit`."""
        self._files = (certificate, key)
        self._used = self._seen = _stamp(self._files)
        self.context, self._ends_at = _read(certificate, key)
        self._told = ""
        self._look_at_dates(time.time())

    def look(self) -> None:
        """Take over what has changed in the files; what is broken is said once, and not taken.

        The two files are replaced one after the other, so a change is let settle first.
        """
        seen = _stamp(self._files)
        settled, self._seen = seen == self._seen, seen
        if settled and seen != self._used:
            self._used = seen
            try:
                self.context, self._ends_at = _read(*self._files)
            except Unfit as error:
                _log.error("the new certificate is not used, the old one stays: %s", error)
            else:
                self._told = ""
        self._look_at_dates(time.time())

    def _look_at_dates(self, now: float) -> None:
        if now >= self._ends_at and not self._told:
            self._told = _day(self._ends_at)
            _log.warning(
                "the certificate in %s ended on %s; clients refuse it", self._files[0], self._told
            )


def chosen(certificate: str, key: str) -> Certificate | None:
    """Read the files that were named, if any were; raises `Unfit`."""
    if not certificate and not key:
        return None
    if not certificate or not key:
        given, lacking = ("key", "certificate") if key else ("certificate", "key")
        raise Unfit(f"a TLS {given} is named and no {lacking}; they go together")
    return Certificate(Path(certificate), Path(key))


def _read(certificate: Path, key: Path) -> tuple[ssl.SSLContext, float]:
    """Return a context that shows a certificate, and when that ends; raises `Unfit`."""
    leaf = _check(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0  # connections last; and a client that reads and writes in two threads
    # on Python before 3.13 may lose what it sends in the moment in which tickets arrive
    try:
        context.load_cert_chain(certificate, key, password=_nobody)
    except (OSError, ValueError) as error:  # what was fine a moment ago, or is too weak
        reason = getattr(error, "reason", None) or error
        raise Unfit(f"{certificate} cannot be used: {reason}") from None
    return context, leaf.not_valid_after_utc.timestamp()


def _check(certificate: Path, key: Path) -> X509:
    """Return the certificate, once it is known to go with the key; raises `Unfit`.

    The library of TLS would say in one word what is wrong, and ask a terminal for passwords.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    shown, held = _bytes(certificate, "certificate"), _bytes(key, "key")
    try:
        leaf = x509.load_pem_x509_certificates(shown)[0]
    except (ValueError, IndexError):
        raise Unfit(f"{certificate} holds no certificate in PEM") from None
    try:
        private: Any = load_pem_private_key(held, None)
    except TypeError:
        raise Unfit(f"the key in {key} has a password, which nobody is asked for") from None
    except (ValueError, UnsupportedAlgorithm):
        raise Unfit(f"{key} holds no private key in PEM") from None
    if private.public_key() != leaf.public_key():
        raise Unfit(f"the key in {key} is not that of the certificate in {certificate}")
    if leaf.not_valid_before_utc.timestamp() > time.time():
        since = _day(leaf.not_valid_before_utc.timestamp())
        _log.warning("the certificate in %s is not valid before %s", certificate, since)
    return leaf


def _bytes(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            if what == "key" and os.fstat(file.fileno()).st_mode & 0o007:
                _log.warning("everybody here can read %s; 'chmod o= %s' mends that", path, path)
            return file.read(MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise Unfit(f"cannot read the {what} {path}: {reason}") from None


def _stamp(files: tuple[Path, ...]) -> _Stamp:
    """Return what changes when a file is written or replaced, or a link is moved."""
    found = []
    for path in files:
        try:
            there = path.stat()
        except (OSError, ValueError):
            found.append((0, 0, 0))
        else:
            found.append((there.st_ino, there.st_mtime_ns, there.st_size))
    return tuple(found)


def _nobody() -> str:
    return ""


def _day(second: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(second))
