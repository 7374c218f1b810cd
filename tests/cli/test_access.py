"""`muster access`, and what the other verbs say of a closed service."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from muster.invites import Invite, ServiceAddress
from tests.cli.terminal import Terminal, serving
from tests.support.version2 import Node, founded, new_epoch, passing


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("closed") / "data"


@pytest.fixture(scope="module")
def closed(data: Path) -> Iterator[str]:
    """Where a closed service listens, with its data in `data`."""
    with serving(data.parent, "--closed") as url:
        yield url


@pytest.fixture
def ann(closed: str, tmp_path: Path) -> Terminal:
    return Terminal(tmp_path / "ann", closed)


def soon(done: Callable[[], object]) -> None:
    """Try until it works; a process believes what it read for a second."""
    end = time.monotonic() + 20
    while True:
        try:
            done()
        except AssertionError:
            if time.monotonic() > end:
                raise
        else:
            return


def test_a_circle_is_let_in_by_what_the_command_says_and_at_once(ann: Terminal, data: Path) -> None:
    said = ann.run("circle", "new", "--felund", "--name", "friends").stderr
    found = re.search(
        r"this service is closed; .*: muster (access allow \S+ --name friends)\n", said
    )
    assert found
    assert found[1].removesuffix(" --name friends") in ann.fails("send", "hello")

    done = ann.run(*found[1].split(), "--data", str(data))

    hint = found[1].split()[2]
    assert done.stdout == f"'friends' ({hint[:6]}…) is let in\n"
    soon(lambda: ann.run("send", "hello"))

    listed = ann.run("access", "list", "--data", str(data)).stdout
    assert f"{hint[:6]}…" in listed
    assert "friends" in listed
    assert hint not in listed
    (told,) = [
        one
        for line in ann.run("access", "list", "--json", "--data", str(data)).stdout.splitlines()
        if (one := json.loads(line)).get("circle_hint") == hint
    ]
    assert (told["name"], told["expires_at"]) == ("friends", None)

    said = ann.run("access", "revoke", hint, "--data", str(data)).stdout
    assert "served no longer" in said
    soon(lambda: ann.fails("send", "hello"))
    assert "was not let in" in ann.fails("access", "revoke", hint, "--data", str(data))


def test_an_invite_lets_in_its_circle_and_may_come_by_stdin(ann: Terminal, data: Path) -> None:
    ann.run("circle", "new", "--felund")
    code = ann.run("circle", "invite").stdout.strip()
    words = ("access", "allow", "-", "--for", "2h", "--json", "--data", str(data))

    told = json.loads(ann.run(*words, says=code + "\n").stdout)

    assert told["circle_hint"] in ann.run("circle", "list").stdout
    assert told["expires_at"] - told["since"] == 7200
    assert code not in json.dumps(told)
    soon(lambda: ann.run("send", "hello"))


def test_an_invite_of_version_2_lets_in_its_circle(ann: Terminal, data: Path, closed: str) -> None:
    founder, epoch = founded()
    invite = Invite(founder, epoch)
    node = Node(epoch, passing(closed), lambda: int(time.time() * 1000))
    body = b'{"want":{"messages":9}}'
    assert node.raw(body)[0] == 403

    def answered() -> None:
        assert node.raw(body)[0] == 200

    for way in (invite.code, f"https://muster.example/app/#{invite.code}"):
        told = ann.run("access", "allow", way, "--json", "--data", str(data)).stdout
        hint = json.loads(told)["circle_hint"]
        soon(answered)

        assert hint == f"2 {epoch.hint.hex()}"
        assert "served no longer" in ann.run("access", "revoke", hint, "--data", str(data)).stdout
    assert "damaged" in ann.fails(
        "access", "allow", invite.code[:-5], "--data", str(data), expect=2
    )


def test_an_access_code_opens_the_service_for_circles_of_version_2(
    ann: Terminal, data: Path, closed: str
) -> None:
    made = ann.run("access", "new", "--name", "us", "--data", str(data)).stdout.splitlines()
    code, found = made[0], re.search(r"'us' \((code-\w{8})\)", made[1])
    assert found
    address = ServiceAddress.parse(made[2].replace("https://YOUR-SERVICE", closed).split()[-1])
    node = Node(
        new_epoch(), passing(address.url), lambda: int(time.time() * 1000), address.id, address.code
    )
    assert address.code == code

    assert node.sync(want={"peers": True})["peers"] == []
    shown = ann.run("access", "list", "--data", str(data)).stdout
    listed = shown + ann.run("access", "list", "--json", "--data", str(data)).stdout
    assert found[1] in shown
    assert code not in listed
    node.code = "another code of 16"
    assert node.raw(b"{}")[2]["code"] == "NOT_ALLOWED"

    gone = ann.run("access", "revoke", found[1], "--data", str(data)).stdout
    node.code = code

    def refused() -> None:
        assert node.raw(b"{}")[0] == 403

    assert "Nobody comes in by it any more" in gone
    soon(refused)
    assert "was not let in" in ann.fails("access", "revoke", found[1], "--data", str(data))


@pytest.mark.parametrize(
    ("words", "said", "expect"),
    [
        (("allow", "short"), "'short' is no circle; name its invite code, or", 2),
        (("allow", "felund1.e30"), "muster: ", 2),
        (("allow", "0123456789abcdef", "--for", "soon"), "--for soon is no length of time", 2),
        (("allow", "0123456789abcdef", "--for", "0m"), "--for 0m is no length of time", 2),
        (("allow", "0123456789abcdef", "--name", "x" * 65), "--name may have 64", 2),
        (("list", "--data", "/nowhere"), "no service's data in /nowhere; --data DIR names", 1),
    ],
)
def test_what_names_no_circle_and_no_service_is_one_sentence(
    ann: Terminal, data: Path, words: tuple[str, ...], said: str, expect: int
) -> None:
    place = () if "--data" in words else ("--data", str(data))
    assert said in ann.fails("access", *words, *place, expect=expect)


def test_where_nobody_is_let_in_the_list_says_how(tmp_path: Path) -> None:
    with serving(tmp_path):
        done = Terminal(tmp_path / "x").run("access", "list", "--data", str(tmp_path / "data"))
    assert done.stdout == ""
    assert "'muster access allow INVITE-OR-HINT' does" in done.stderr


def test_the_doctor_says_how_to_be_let_in_and_is_green_once_it_is(
    ann: Terminal, closed: str, data: Path
) -> None:
    shown = ann.run("doctor", closed, expect=1).stdout
    assert "give the whole address, with its access code" in shown
    told = ann.run("access", "new", "--name", "us", "--data", str(data)).stdout.split()
    address = next(word for word in told if "access=" in word)
    address = f"{closed}#{address.partition('#')[2]}"
    seen: list[str] = []
    soon(lambda: seen.append(ann.run("doctor", address).stdout))
    (shown,) = seen
    assert "signed both ways, left and read" in shown
    assert "steps passed in" in shown
    assert "closed to existing clients" in shown
    assert "does not let in" in ann.run("doctor", address[:-2] + "xx", expect=1).stdout
    wrong = f"{closed}#{'0' * 32}&{address.partition('&')[2]}"
    assert "another key than the address says" in ann.run("doctor", wrong, expect=1).stdout
    ann.run("circle", "new", "--felund", "--name", "doctor")
    shown = ann.run("doctor", closed, "--circle", "doctor", expect=1).stdout
    found = re.search(r"muster (access allow [0-9a-f]{16})", shown)
    assert found
    ann.run(*found[1].split(), "--data", str(data))

    soon(lambda: ann.run("doctor", closed, "--circle", "doctor"))

    shown = ann.run("doctor", closed, "--circle", "doctor").stdout
    assert "community doctor is not served here" in shown
    assert "steps passed" in shown


def test_info_says_whether_strangers_are_served(ann: Terminal, closed: str, base: str) -> None:
    assert "are refused: it is closed" in ann.run("info", closed).stdout
    assert json.loads(ann.run("info", closed, "--json").stdout)["open"] is False
    assert "are served" in ann.run("info", base).stdout
