"""A certificate and its key on disk: what fits, what is said of what does not, and changes."""

import logging
import os
import shutil
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from chalicelib.local import certificate
from chalicelib.local.certificate import Certificate, Unfit
from tests.support.certificate import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def replaced(file: Path, by: Path) -> None:
    """Put a file in the place of another, as whoever renews certificates does."""
    by.rename(file)


def test_what_changed_is_taken_once_it_was_seen_twice_alike(authority: Authority) -> None:
    cert, key = authority.issue("server")
    shown = Certificate(cert, key)
    first = shown.context
    shown.look()
    assert shown.context is first

    new_cert, new_key = authority.issue("new")
    replaced(cert, new_cert)
    shown.look()  # the key is still the old one: not yet
    replaced(key, new_key)
    shown.look()
    assert shown.context is first
    shown.look()
    second = shown.context
    assert second is not first
    shown.look()
    assert shown.context is second, "nothing has changed"


def test_what_is_broken_is_said_once_and_mended_later(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = authority.issue("server")
    shown = Certificate(cert, key)
    first, good = shown.context, cert.read_bytes()
    cert.write_bytes(b"nonsense")
    for _ in range(5):
        shown.look()
    assert shown.context is first
    assert [record.getMessage() for record in caplog.records] == [
        f"the new certificate is not used, the old one stays: {cert} holds no certificate in PEM"
    ]
    cert.unlink()
    for _ in range(3):
        shown.look()
    assert "cannot read the certificate" in caplog.records[-1].getMessage()
    cert.write_bytes(good)
    for _ in range(3):
        shown.look()
    assert shown.context is not first
    assert len(caplog.records) == 2


def test_one_that_has_ended_or_not_begun_is_a_warning(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    ended = Certificate(
        *authority.issue("ended", since=timedelta(days=9), lasting=timedelta(days=-1))
    )
    ended.look()
    Certificate(*authority.issue("later", since=timedelta(days=-2)))
    said = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in said] == [logging.WARNING] * 2
    assert "ended.pem ended on 20" in said[0][1]
    assert "later.pem is not valid before 20" in said[1][1]


def test_a_key_that_everybody_can_read_is_a_warning(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = authority.issue()
    key.chmod(0o644)
    Certificate(cert, key)
    assert f"everybody here can read {key}" in caplog.text


def test_the_two_may_be_one_file(authority: Authority) -> None:
    cert, key = authority.issue()
    key.write_bytes(key.read_bytes() + cert.read_bytes())
    assert Certificate(key, key).context.minimum_version is ssl.TLSVersion.TLSv1_2


def with_password(path: Path) -> None:
    made = ec.generate_private_key(ec.SECP256R1())
    locked = BestAvailableEncryption(b"hush-hush")
    path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda cert, key: cert.unlink(), "cannot read the certificate {cert}: no such file"),
        (lambda cert, key: key.unlink(), "cannot read the key {key}: no such file"),
        (lambda cert, key: cert.write_bytes(b""), "{cert} holds no certificate in PEM"),
        (lambda cert, key: shutil.copy(key, cert), "{cert} holds no certificate in PEM"),
        (lambda cert, key: shutil.copy(cert, key), "{key} holds no private key in PEM"),
        (lambda cert, key: key.write_bytes(os.urandom(99)), "{key} holds no private key in PEM"),
        (lambda cert, key: with_password(key), "the key in {key} has a password"),
        (
            lambda cert, key: shutil.copy(Authority(cert.parent).issue("b")[1], key),
            "the key in {key} is not that of the certificate in {cert}",
        ),
    ],
    ids=["no cert", "no key", "empty", "a key", "a cert", "bytes", "password", "another key"],
)
def test_what_does_not_fit_is_one_sentence_that_names_it(
    authority: Authority, spoil: Callable[[Path, Path], object], said: str
) -> None:
    cert, key = authority.issue()
    spoil(cert, key)
    with pytest.raises(Unfit) as caught:
        Certificate(cert, key)
    assert str(caught.value).startswith(said.format(cert=cert, key=key))
    assert "\n" not in str(caught.value)


def test_one_alone_is_not_enough_and_none_is_no_tls() -> None:
    assert certificate.chosen("", "") is None
    with pytest.raises(Unfit, match="a TLS certificate is named and no key; they go together"):
        certificate.chosen("cert.pem", "")
    with pytest.raises(Unfit, match="a TLS key is named and no certificate; they go together"):
        certificate.chosen("", "key.pem")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "."])
def test_a_name_that_is_no_file_is_said(authority: Authority, name: str) -> None:
    with pytest.raises(Unfit, match="cannot read the certificate"):
        certificate.chosen(name, str(authority.issue()[1]))
