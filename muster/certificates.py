"""Certificates of direct links: the circle is its own authority, in each epoch.

A chain says *a member of this epoch*, and no more, since every member can issue any. Who it
is follows from the key: `peer_node` names the node of a certificate that the TLS library has
verified, never from a name in it.
"""

from __future__ import annotations

import datetime
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsules.errors import Reason, Refused
from capsules.keys import SigningKey, VerifyKey
from muster.keys import Epoch, Node, node_id

if TYPE_CHECKING:
    from cryptography import x509

DAYS = 8
"""How long a node's certificate is valid, from the day before."""


def anchor(epoch: Epoch) -> bytes:
    """Return the authority of an epoch in PEM: each member makes it, and none sends it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    key = _private(epoch.circle_key)
    public = key.public_key()
    built = (
        x509.CertificateBuilder()
        .subject_name(_name("muster2 circle"))
        .issuer_name(_name("muster2 circle"))
        .public_key(public)
        .serial_number(1)
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, None)
    )
    return built.public_bytes(serialization.Encoding.PEM)


def issue(node: Node, *, now: int, serial: int | None = None) -> tuple[bytes, bytes]:
    """Return a node's certificate and its private key, in PEM; *now* is Unix time."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    issuer, own = _private(node.epoch.circle_key), _private(node.key)
    start = datetime.datetime.fromtimestamp(now, datetime.UTC) - datetime.timedelta(days=1)
    built = (
        x509.CertificateBuilder()
        .subject_name(_name("muster2 node"))
        .issuer_name(_name("muster2 circle"))
        .public_key(own.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False
        )
        .sign(issuer, None)
    )
    private = own.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return built.public_bytes(serialization.Encoding.PEM), private


def context(node: Node, *, server: bool, now: int) -> ssl.SSLContext:
    """Return the TLS of a link: 1.3, both sides proved, the circle as its only authority."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False  # names mean nothing here: `peer_node` looks at the key
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.options |= ssl.OP_NO_TICKET
    if server:
        made.num_tickets = 0
    made.load_verify_locations(cadata=anchor(node.epoch).decode("ascii"))
    certificate, private = issue(node, now=now)
    with tempfile.TemporaryDirectory() as folder:  # ssl reads keys from files only
        chain = Path(folder, "node.pem")
        chain.touch(mode=0o600)
        chain.write_bytes(private + certificate)
        made.load_cert_chain(chain)
    return made


def peer_node(der: bytes | None) -> bytes:
    """Return the node_id of the certificate that the other side of a link has proved.

    Raises `Refused` for a key that no node has.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not der:
        raise Refused(Reason.CERTIFICATE_INVALID, "the other side showed no certificate")
    try:
        public = x509.load_der_x509_certificate(der).public_key()
    except ValueError:
        raise Refused(Reason.CERTIFICATE_INVALID, "the certificate cannot be read") from None
    if not isinstance(public, Ed25519PublicKey):
        raise Refused(Reason.CERTIFICATE_INVALID, "the certificate's key is not Ed25519")
    return node_id(VerifyKey(public.public_bytes_raw()))


def _private(key: SigningKey) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(key.seed)


def _name(common: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
