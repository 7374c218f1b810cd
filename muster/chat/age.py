"""A file under a passphrase, as age has it (age-encryption.org/v1), with work that a phone can do.

pyrage opens such files, and is not to be told how much work a passphrase shall cost: on a fast
machine it takes a gibibyte, which a page in a browser is not given.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Callable, Iterator

BEGIN = b"age-encryption.org/v1\n"
WORK = 18
"""2^18 KiB of memory, as the app takes (web/app/model/age.js)."""

CHUNK_BYTES = 64 * 1024


def sealed(
    content: bytes, passphrase: str, *, entropy: Callable[[int], bytes] = secrets.token_bytes
) -> bytes:
    """Return a file that opens with the passphrase, and with nothing else."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    file_key, salt, nonce = entropy(16), entropy(16), entropy(16)
    salted = b"age-encryption.org/v1/scrypt" + salt
    wrapping = Scrypt(salted, 32, n=2**WORK, r=8, p=1).derive(passphrase.encode())
    wrapped = ChaCha20Poly1305(wrapping).encrypt(bytes(12), file_key, None)
    head = BEGIN + b"-> scrypt %s %d\n%s\n---" % (_b64(salt), WORK, _b64(wrapped))
    mac = hmac.digest(_derived(file_key, b"", b"header"), head, "sha256")
    cipher = ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))
    body = (cipher.encrypt(place, chunk, None) for place, chunk in _chunks(content))
    return b"".join((head, b" ", _b64(mac), b"\n", nonce, *body))


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the parts of a content, each with its nonce: its number, and whether it is the last."""
    last = max(len(content) - 1, 0) // CHUNK_BYTES
    for number in range(last + 1):
        start = number * CHUNK_BYTES
        nonce = number.to_bytes(11, "big") + bytes([number == last])
        yield nonce, content[start : start + CHUNK_BYTES]


def _derived(key: bytes, salt: bytes, what: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), 32, salt, what).derive(key)


def _b64(raw: bytes) -> bytes:
    return base64.b64encode(raw).rstrip(b"=")
