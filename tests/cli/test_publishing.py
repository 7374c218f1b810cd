"""`muster capsule publish`, `inspect` and `verify`, and `muster serve` that publishes."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from capsules import ticket as tickets
from capsules.keys import SigningKey
from muster.cli.main import parser
from tests.cli.terminal import Running, Terminal

ROOT = Path(__file__).parents[2]
PEERS, SIG, MANIFEST = "peers.json", "peers.json.sig", "peers.json.manifest"


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path / "home")


@pytest.fixture
def keys(terminal: Terminal, tmp_path: Path) -> Path:
    """A root key, and publishing keys in a folder beside it."""
    terminal.run("keygen", "root", "--out", str(tmp_path / "root.key"))
    folder = tmp_path / "keys"
    terminal.run("keygen", "capsule", "--root", str(tmp_path / "root.key"), "--out", f"{folder}/")
    return folder


def ticket(name: str, **more: Any) -> dict[str, Any]:
    made = tickets.create(
        SigningKey(hashlib.sha256(name.encode()).digest()),
        peer_id=name,
        user_id="somebody",
        now_ms=int(time.time() * 1000),
        nonce=bytes(12),
        **more,
    )
    return dict(made.to_json())


def announce(base: str, *names: str, community: str = "mainnet") -> None:
    for name in names:
        request = urllib.request.Request(  # noqa: S310 - our own
            f"{base}/announce?community={community}",
            data=json.dumps({"ticket": ticket(name)}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            assert json.load(answer)["ok"] is True


def publish(terminal: Terminal, base: str, keys: Path, out: Path, *more: str, **how: Any) -> Any:
    words = ("capsule", "publish", "--beacon", base, "--keys", str(keys), "--out", str(out))
    return terminal.run(*words, *more, **how)


def test_what_beacons_list_is_published_and_verifies(
    terminal: Terminal, keys: Path, tmp_path: Path, base: str
) -> None:
    announce(base, "peer-a", "peer-b", community="cli-test")
    out = tmp_path / "out"

    done = publish(
        terminal,
        base,
        keys,
        out,
        "--beacon",
        "http://127.0.0.1:1",
        "--community",
        "cli-test",
        "--json",
    )

    told = json.loads(done.stdout)
    assert told["peers"] == 2
    assert [bool(beacon["error"]) for beacon in told["beacons"]] == [False, True]
    assert sorted(os.listdir(out / "cli-test")) == [".lock", PEERS, MANIFEST, SIG]
    root = str(tmp_path / "root.key")
    checked = json.loads(
        terminal.run("capsule", "verify", str(out / "cli-test"), "--root", root, "--json").stdout
    )
    assert (checked["ok"], checked["tickets"], checked["community"]) == (True, 2, "cli-test")
    pinned = json.loads((out / "cli-test" / MANIFEST).read_text())["publicKey"]
    path = str(out / "cli-test" / PEERS)
    assert "verified" in terminal.run("capsule", "verify", path, "--key", pinned).stdout


def test_the_second_failure_in_a_row_raises_the_alarm_once(
    terminal: Terminal, keys: Path, tmp_path: Path, base: str
) -> None:
    out, gone = tmp_path / "out", "http://127.0.0.1:1"
    said = [publish(terminal, gone, keys, out, expect=1).stderr for _ in range(3)]
    assert ["ALARM" in text for text in said] == [False, True, False]

    announce(base, "peer-alarm")
    assert "RECOVERED" in publish(terminal, base, keys, out).stderr
    kept = (out / "mainnet" / PEERS).read_bytes()
    assert "ALARM" not in publish(terminal, gone, keys, out, expect=1).stderr
    assert (out / "mainnet" / PEERS).read_bytes() == kept


def test_only_trusted_keys_are_taken(
    terminal: Terminal, keys: Path, tmp_path: Path, base: str
) -> None:
    announce(base, "peer-x", community="trust-test")
    trusted = SigningKey(bytes(32)).verify_key.to_base64()
    words = ("--community", "trust-test", "--trusted", trusted)

    assert (
        "no beacon gave" in publish(terminal, base, keys, tmp_path / "out", *words, expect=1).stderr
    )


@pytest.fixture
def published(terminal: Terminal, keys: Path, tmp_path: Path, base: str) -> Path:
    announce(base, "peer-v", community="verify-test")
    publish(terminal, base, keys, tmp_path / "out", "--community", "verify-test")
    return tmp_path / "out" / "verify-test"


def tamper(folder: Path) -> None:
    path = folder / PEERS
    path.write_bytes(path.read_bytes().replace(b"peer-v", b"peer-w"))


def cut(folder: Path) -> None:
    path = folder / PEERS
    path.write_bytes(path.read_bytes()[:-1])


def resign(folder: Path) -> None:
    (folder / SIG).write_text("AAAA")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(tamper, "HASH_MISMATCH"), (cut, "LENGTH_MISMATCH"), (resign, "SIGNATURE_MISMATCH")],
)
def test_a_spoiled_capsule_is_refused_by_name(
    terminal: Terminal,
    published: Path,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    reason: str,
) -> None:
    spoil(published)

    line = terminal.fails("capsule", "verify", str(published), "--root", str(tmp_path / "root.key"))

    assert f"refused: {reason}" in line


def test_verifying_says_what_is_missing_or_wrong(
    terminal: Terminal, published: Path, tmp_path: Path
) -> None:
    root, stranger = str(tmp_path / "root.key"), SigningKey(bytes(32)).verify_key.to_base64()
    where = str(published)
    assert "WRONG_COMMUNITY" in terminal.fails(
        "capsule", "verify", where, "--root", root, "--community", "other"
    )
    assert "is this the root key" in terminal.fails("capsule", "verify", where, "--root", stranger)
    assert "SIGNATURE_INVALID" in terminal.fails("capsule", "verify", where, "--key", stranger)
    (published / MANIFEST).unlink()
    assert "is missing" in terminal.fails("capsule", "verify", where, "--root", root, expect=2)
    assert "cannot read" in terminal.fails("capsule", "verify", "nowhere", "--root", root)


def test_inspecting_shows_what_is_there(terminal: Terminal, published: Path, keys: Path) -> None:
    shown = {
        name: terminal.run("capsule", "inspect", str(published / name)).stdout
        for name in (PEERS, MANIFEST)
    }
    assert "peer-v" in shown[PEERS]
    assert "sequence" in shown[MANIFEST]
    secret = json.loads((keys / "publishing.key").read_text())["signing_key"]
    assert secret not in terminal.run("capsule", "inspect", str(keys / "publishing.key")).stdout
    assert "no file of ours" in terminal.fails("capsule", "inspect", str(published / SIG))


# --- where there is no service of one's own ---------------------------------------


def test_the_workflow_for_a_ci_publishes_what_verifies_and_keeps_no_key(
    terminal: Terminal, keys: Path, tmp_path: Path, base: str
) -> None:
    """Its step as the CI would run it; setting up and handing over are the CI's own."""
    announce(base, "peer-a", community="by-ci")
    [job] = yaml.safe_load((ROOT / "packaging" / "publish.yml").read_text())["jobs"].values()
    [step] = [step for step in job["steps"] if step.get("name") == "publish"]
    assert set(job["env"]) == {"BEACON", "COMMUNITY"}
    assert set(step["env"]) == {"PUBLISHING_KEY"}
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    command = Path(sys.executable).with_name("muster")
    (tmp_path / ".venv" / "bin" / "muster").symlink_to(command)

    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        cwd=tmp_path,
        env=terminal.environment(
            BEACON=base,
            COMMUNITY="by-ci",
            PUBLISHING_KEY=(keys / "publishing.key").read_text().rstrip("\n"),
        ),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    root = json.loads(
        terminal.run("capsule", "inspect", str(tmp_path / "root.key"), "--json").stdout
    )["verify_key"]
    published = str(tmp_path / "site" / "capsules" / "by-ci")
    told = terminal.run("capsule", "verify", published, "--root", root, "--json")
    assert json.loads(told.stdout)["tickets"] == 1
    assert not (tmp_path / "publishing.key").exists()


def test_the_line_for_cron_in_the_documents_is_taken() -> None:
    """All of it: a crontab knows no line that goes on in the next."""
    text = (ROOT / "docs" / "capsules.md").read_text()
    [line] = re.findall(r"^    \*/2 \* \* \* \*  muster (.*)$", text, re.MULTILINE)
    chosen = parser().parse_args(shlex.split(line))
    assert chosen.run == "muster.cli.publishing:publish"
    assert (chosen.keys, chosen.out) == ("/etc/muster/publishing.key", "/var/www/capsules")


# --- muster serve -----------------------------------------------------------------


def start(terminal: Terminal, tmp_path: Path, *words: str) -> Any:
    return terminal.running("serve", "--port", "0", "--data", str(tmp_path / "data"), *words)


def base_of(running: Running) -> str:
    return running.until(r"listens on (\S+)")[1]


def fetch(url: str, **headers: str) -> Any:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310
    return urllib.request.urlopen(request, timeout=20)  # noqa: S310


def wait_for(url: str) -> Any:
    deadline = time.monotonic() + 15
    while True:
        try:
            return fetch(url)
        except urllib.error.HTTPError as error:
            if error.code != 404 or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_a_server_publishes_soon_and_its_capsule_verifies(
    terminal: Terminal, tmp_path: Path
) -> None:
    with start(terminal, tmp_path) as running:
        base = base_of(running)
        key = running.until(r"root key\s+(\S+)")[1]
        running.until("Move the root key")
        announce(base, "peer-1", "peer-2")
        wait_for(f"{base}/capsules/mainnet/{MANIFEST}")
        with fetch(f"{base}/v1/info") as answer:
            assert json.load(answer)["capsule_root"] == key
        with fetch(f"{base}/status.json") as answer:
            [shown] = json.load(answer)["publishing"]["communities"]
        assert (shown["community"], shown["peers"], shown["alarm"]) == ("mainnet", 2, False)
        with fetch(f"{base}/metrics") as answer:
            assert b'muster_publish_failures_in_a_row{community="mainnet"} 0.0' in answer.read()
        done = terminal.run(
            "capsule", "verify", str(tmp_path / "data/capsules/mainnet"), "--root", key, "--json"
        )
        assert json.loads(done.stdout)["tickets"] == 2


def test_a_server_goes_on_without_its_root_key(terminal: Terminal, tmp_path: Path) -> None:
    with start(terminal, tmp_path) as running:
        key = running.until(r"root key\s+(\S+)")[1]
    (tmp_path / "data/keys/root.key").rename(tmp_path / "safe.key")

    with start(terminal, tmp_path) as running:
        base = base_of(running)
        assert running.until(r"root key\s+(\S+)")[1] == key
        announce(base, "peer-1")
        wait_for(f"{base}/capsules/mainnet/{MANIFEST}")
        running.until(r"circle join CODE")
        assert not any("Move the root key" in line for line in running.seen)
    assert not (tmp_path / "data/keys/root.key").exists()


def test_a_server_may_publish_nothing(terminal: Terminal, tmp_path: Path) -> None:
    with start(terminal, tmp_path, "--publish-every", "0") as running:
        base = base_of(running)
        running.until(r"circle join CODE")
        assert not any("root key" in line for line in running.seen)
        with fetch(f"{base}/v1/info") as answer:
            assert json.load(answer)["capsule_root"] is None
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(f"{base}/capsules/mainnet/{PEERS}")
    assert not (tmp_path / "data/keys").exists()


def test_damaged_keys_are_told_before_it_serves(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data/keys").mkdir()
    path = tmp_path / "data/keys/publishing.key"
    path.touch(mode=0o600)

    line = terminal.fails("serve", "--port", "0", "--data", str(tmp_path / "data"))

    assert re.search("cannot publish capsules .* --publish-every 0", line)


def test_a_wrong_period_is_a_wrong_call(terminal: Terminal) -> None:
    line = terminal.fails("serve", "--publish-every", "-1", expect=2)
    assert "publish-every" in line
