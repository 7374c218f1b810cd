"""Every ``MUSTER_…``: what is taken, what is refused in which words, and that all are known."""

import re
from pathlib import Path
from typing import Any

import pytest

from capsules import manifest
from capsules.keys import VerifyKey
from chalicelib import settings, variables
from chalicelib.aws.told import Told
from chalicelib.local.bounds import Bounds
from chalicelib.settings import NAMES, OTHERS, Settings
from chalicelib.store import TableNames
from chalicelib.variables import WrongValue
from muster.bootstrap import sources
from tests.support import wrong

ROOT = Path(__file__).parents[2]
KEY = wrong.KEY
URL_SAFE = KEY.replace("/", "_").replace("+", "-")


def chosen(name: str, text: str) -> Any:
    return getattr(Settings.from_environment({name: text}), name.removeprefix("MUSTER_").lower())


# --- values -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [*wrong.SETTINGS, *wrong.BOUNDS])
def test_a_value_that_does_not_fit_is_refused_in_one_sentence(name: str) -> None:
    shape, texts = (Settings, wrong.SETTINGS) if name in NAMES else (Bounds, wrong.BOUNDS)
    for text in texts[name]:
        with pytest.raises(WrongValue) as refusal:
            shape.from_environment({name: text})
        said = str(refusal.value)
        assert said.startswith(name), text
        assert len(said) < 400
        assert said.isprintable()
        assert wrong.SECRET not in said


def test_an_empty_text_is_no_variable() -> None:
    assert Settings.from_environment(dict.fromkeys(NAMES, "")) == Settings()
    assert Bounds.from_environment(dict.fromkeys(variables.names(Bounds), "")) == Bounds()


@pytest.mark.parametrize(
    ("name", "most"),
    [("PIN_S", 3_153_600_000), ("CIRCLE_MEMBERS", 10**9), ("BODY_BYTES", 2**30)],
)
def test_a_number_has_a_largest_value(name: str, most: int) -> None:
    name = f"MUSTER_{name}"
    assert chosen(name, str(most)) == most
    with pytest.raises(WrongValue, match=f"{name} must be at most {most}"):
        chosen(name, str(most + 1))


@pytest.mark.parametrize(
    "text", [KEY, KEY.rstrip("="), URL_SAFE, URL_SAFE.rstrip("="), f" {URL_SAFE} ,", f"{KEY},{KEY}"]
)
def test_a_key_is_compared_in_one_spelling_however_it_is_written(text: str) -> None:
    assert chosen("MUSTER_REVOKED_TICKET_KEYS", text) == {KEY}
    assert chosen("MUSTER_TRUSTED_TICKET_KEYS", text) == {KEY}
    assert VerifyKey.from_base64(KEY).to_base64() == KEY


def test_a_key_on_its_own_is_compared_in_one_spelling() -> None:
    assert chosen("MUSTER_CAPSULE_ROOT", URL_SAFE.rstrip("=")) == KEY


@pytest.mark.parametrize(
    "text",
    ["wss://x", "ws://127.0.0.1:8787/v1/relay/ws", "wss://[2001:db8::1]:443/api", "wss://a_b.c/$d"],
)
def test_a_socket_s_url_is_taken_as_it_is(text: str) -> None:
    assert chosen("MUSTER_WEBSOCKET_URL", text) == text


def test_what_is_listed_for_manifests_is_what_manifests_and_clients_take() -> None:
    longest = "https://a" + ".".join(["a" * 59] * 4) + "/" + "b" * 151
    urls = ("https://a.example", "http://127.0.0.1:8787/", "https://b.example/capsules", longest)
    made = Settings.from_environment(
        {"MUSTER_CAPSULE_BEACONS": ", ".join(urls), "MUSTER_CAPSULE_MIRRORS": ",".join(urls)}
    )
    assert made.capsule_beacons == made.capsule_mirrors == urls
    for url in urls:
        assert sources.beacon(url).url == url.rstrip("/")
        assert manifest._URL.fullmatch(f"{url.rstrip('/')}/{'c' * 64}/peers.json")
    assert settings.MOST_URLS == manifest.MAX_SOURCES


def test_lists_hold_each_entry_once_in_their_order() -> None:
    assert chosen("MUSTER_ASSIST_TOKENS", "b, a,b,") == ("b", "a")
    assert chosen("MUSTER_COMMUNITY_NAMES", "home,mainnet") == {"home", "mainnet"}


@pytest.mark.parametrize("kind", ["PRESENCE", "SESSION", "ASSIST"])
def test_a_shortest_life_is_not_above_the_longest(kind: str) -> None:
    with pytest.raises(
        WrongValue, match=f"MUSTER_{kind}_MIN_TTL_S must not be above MUSTER_{kind}"
    ):
        Settings.from_environment({f"MUSTER_{kind}_MIN_TTL_S": "4000"})


def test_secrets_do_not_show_where_settings_do() -> None:
    plan = wrong.servers("turn:a.example", secret=wrong.SECRET)
    made = Settings.from_environment({"MUSTER_ASSIST": plan, "MUSTER_ASSIST_TOKENS": wrong.SECRET})
    told = Told(edge_secret=wrong.SECRET, store="sqlite:x")
    assert wrong.SECRET not in f"{made} {told}"


def test_a_plan_s_file_has_a_largest_size(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text("{" + " " * 2**20 + "}")
    with pytest.raises(WrongValue, match="at most 1048576 bytes"):
        chosen("MUSTER_ASSIST", str(file))
    file.write_bytes(b'{"noise_prologue": "\xff"}')
    with pytest.raises(WrongValue, match=r"^MUSTER_ASSIST: .*(?i:utf-8)"):
        chosen("MUSTER_ASSIST", str(file))


# --- names ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("MUSTER_SOKCETS", "MUSTER_SOCKETS"),
        ("MUSTER_TRUSTED_TICKET_KEY", "MUSTER_TRUSTED_TICKET_KEYS"),
        ("MUSTER_HOMES", "MUSTER_HOME"),
        ("MUSTER_TABLES_MAIL", "MUSTER_TABLE_MAIL"),
    ],
)
def test_a_misspelt_name_is_told_with_the_nearest_one(name: str, near: str) -> None:
    said = settings.unknown({"PATH": "", name: "1"})
    assert said == f"there is no variable {name}; the nearest is {near}"


def test_every_known_name_is_somebody_s() -> None:
    assert settings.unknown(dict.fromkeys(NAMES | OTHERS, "x")) == ""
    assert settings.unknown({"muster_sockets": "1", "MUSTERED": "1", "XMUSTER_A": "1"}) == ""


def test_what_kubernetes_says_of_a_service_of_that_name_is_not_misspelt() -> None:
    injected = {
        "MUSTER_SERVICE_HOST": "10.0.0.11",
        "MUSTER_SERVICE_PORT": "8787",
        "MUSTER_SERVICE_PORT_HTTP": "8787",
        "MUSTER_PORT": "tcp://10.0.0.11:8787",
        "MUSTER_PORT_8787_TCP": "tcp://10.0.0.11:8787",
        "MUSTER_PORT_8787_TCP_PROTO": "tcp",
        "MUSTER_PORT_8787_TCP_ADDR": "10.0.0.11",
    }
    assert settings.unknown(injected) == ""
    assert settings.unknown({"MUSTER_PORT": "8080"})


def read_names() -> set[str]:
    """Every ``MUSTER_…`` that a module reads, by field or by name."""
    found = set(NAMES | variables.names(Bounds) | variables.names(Told))
    found |= {f"MUSTER_TABLE_{table.upper()}" for table in TableNames._fields}
    told = [ROOT / "app.py", ROOT / ".chalice" / "config.json", ROOT / "infra" / "resources.json"]
    for folder in ("capsules", "muster", "chalicelib", "infra", "tools"):
        told += (ROOT / folder).rglob("*.py")
    for path in told:
        found |= set(re.findall(r"\"(MUSTER_[A-Z0-9_]*[A-Z0-9])\"", path.read_text()))
    for path in (ROOT / "tests").rglob("*.py"):
        reads = r"environ(?:\.get\(|\[)\"(MUSTER_\w+)\"|^ON_AWS = \"(MUSTER_\w+)\""
        found |= {a or b for a, b in re.findall(reads, path.read_text(), flags=re.MULTILINE)}
    return found


def test_every_variable_that_a_module_reads_is_known_and_nobody_knows_more() -> None:
    assert read_names() == NAMES | OTHERS


def test_every_variable_that_a_module_reads_is_documented() -> None:
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    missing = {
        name
        for name in read_names()
        if f"`{name}`" not in pages and f"`{name.removeprefix('MUSTER_').lower()}`" not in pages
    }
    assert not missing
