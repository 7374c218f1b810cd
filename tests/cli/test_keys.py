"""`muster keygen` and `muster capsule rotate`, `revoke`: files that a maintainer keeps."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from capsules.keys import SigningKey
from tests.cli.terminal import Terminal

TICKET_KEY = SigningKey(b"\x07" * 32).verify_key.to_base64()


@pytest.fixture
def here(tmp_path: Path) -> "Keeper":
    return Keeper(Terminal(tmp_path / "home"), tmp_path)


class Keeper:
    """A maintainer with a root key and a server's publishing keys."""

    def __init__(self, terminal: Terminal, folder: Path) -> None:
        self.terminal = terminal
        self.root = folder / "root.key"
        self.folder = folder / "server"
        self.keys = self.folder / "publishing.key"

    def run(self, *words: Any) -> Any:
        return json.loads(self.terminal.run(*map(str, words), "--json").stdout)

    def fails(self, *words: Any, expect: int = 1) -> str:
        return self.terminal.fails(*map(str, words), expect=expect)

    def begin(self) -> tuple[Any, Any]:
        self.folder.mkdir()
        root = self.run("keygen", "root", "--out", self.root)
        return root, self.run("keygen", "capsule", "--root", self.root, "--out", self.folder)

    def inspect(self, path: Path) -> Any:
        return self.run("capsule", "inspect", path)


def test_a_root_key_and_an_online_key_are_made(here: Keeper) -> None:
    root, online = here.begin()

    assert online["root_verify_key"] == root["verify_key"] != online["verify_key"]
    assert online["keys"] == str(here.keys)
    for path in (here.root, here.keys):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert here.inspect(here.root)["verify_key"] == root["verify_key"]
    assert here.inspect(here.keys)["certified_until"] == online["certified_until"]


def test_people_are_told_what_to_do_with_them(here: Keeper) -> None:
    done = here.terminal.run("keygen", "root", "--out", str(here.root))

    assert "verify key" in done.stdout
    assert "Keep it off every server" in done.stderr
    assert json.loads(here.root.read_text())["signing_key"] not in done.stdout + done.stderr


def test_keys_are_never_overwritten(here: Keeper) -> None:
    here.begin()
    before = here.root.read_bytes(), here.keys.read_bytes()

    assert "never overwritten" in here.fails("keygen", "root", "--out", here.root)
    words = ("keygen", "capsule", "--root", here.root, "--out", here.folder)
    assert "never overwritten" in here.fails(*words)
    assert "never overwritten" in here.fails(
        *("capsule", "rotate", "--new-root", here.root, "--root", here.root, "--keys", here.keys)
    )
    assert (here.root.read_bytes(), here.keys.read_bytes()) == before


def test_a_key_that_clients_know_can_be_certified(here: Keeper, tmp_path: Path) -> None:
    known = SigningKey(b"\x05" * 32)
    (tmp_path / "known").write_text(known.to_base64() + "\n")
    here.run("keygen", "root", "--out", here.root)

    words = ("--root", here.root, "--out", here.keys, "--import", tmp_path / "known")
    made = here.run("keygen", "capsule", *words, "--days", 7, "--community", "alpha")

    assert made["verify_key"] == known.verify_key.to_base64()
    assert made["communities"] == ["alpha"]


def test_the_online_key_is_rotated(here: Keeper) -> None:
    _, before = here.begin()

    after = here.run("capsule", "rotate", "--online", "--root", here.root, "--keys", here.folder)

    assert after["verify_key"] != before["verify_key"]
    assert after["root_verify_key"] == before["root_verify_key"]
    assert here.inspect(here.keys)["verify_key"] == after["verify_key"]


def test_the_root_key_is_rotated_and_the_online_key_stays(here: Keeper, tmp_path: Path) -> None:
    _, before = here.begin()
    new = tmp_path / "new.key"

    told = here.run(
        *("capsule", "rotate", "--new-root", new, "--root", here.root, "--keys", here.keys)
    )

    assert told["root_keys"] == 2
    after = here.inspect(here.keys)
    assert after["verify_key"] == before["verify_key"]
    assert after["root_verify_key"] == told["verify_key"] != before["root_verify_key"]
    assert "is not the root key of" in here.fails(
        *("capsule", "rotate", "--online", "--root", here.root, "--keys", here.keys)
    )


def test_keys_are_revoked_one_after_the_other(here: Keeper) -> None:
    _, online = here.begin()
    words = ("--root", here.root, "--keys", here.folder)
    here.run("capsule", "revoke", TICKET_KEY, *words)

    done = here.terminal.run(
        *("capsule", "revoke", online["verify_key"], *map(str, words)),
    )

    assert "This is the online key" in done.stderr
    assert set(here.inspect(here.keys)["revoked"]) == {TICKET_KEY, online["verify_key"]}
    assert here.inspect(here.root)["revoked"] == here.inspect(here.keys)["revoked"]


def test_mistakes_have_hints(here: Keeper, tmp_path: Path) -> None:
    here.begin()
    words = ("--root", here.root, "--keys", here.keys)
    assert "44 characters of base64" in here.fails("capsule", "revoke", "x", *words, expect=2)
    assert "makes keys" in here.fails(
        *("capsule", "rotate", "--online", "--root", tmp_path / "no", "--keys", here.keys)
    )
    assert "no root-key" in here.fails(
        *("capsule", "rotate", "--online", "--root", here.keys, "--keys", here.keys)
    )
    assert "cannot name a community" in here.fails(
        *("keygen", "capsule", "--root", here.root, "--out", tmp_path / "k", "--community", "../x"),
        expect=2,
    )
    (tmp_path / "key").write_text("no key")
    assert "not an Ed25519 signing key" in here.fails(
        *("keygen", "capsule", "--root", here.root, "--out", tmp_path / "k"),
        *("--import", tmp_path / "key"),
    )
    assert "cannot use" in here.fails("keygen", "root", "--out", tmp_path / "key" / "root.key")
    assert "number of days" in here.fails(
        *("keygen", "capsule", "--root", here.root, "--out", tmp_path / "k", "--days", "0"),
        expect=2,
    )
    here.root.chmod(0o644)
    assert "others can read" in here.fails("capsule", "rotate", "--online", *words)
