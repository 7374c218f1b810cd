"""Values that variables of the service cannot have, by variable: tables for both hosts."""

import json

from chalicelib.local.bounds import Bounds
from chalicelib.settings import Settings
from chalicelib.variables import names

Table = dict[str, tuple[str, ...]]

SECRET = "hush-hush-hush"
KEY = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="

NUMBERS = ("many", "0", "-1", "+1", "1e4", "1.0", " 7", "7 ", "1_000", "1,000", "٧", "７", "007")
HUGE = (str(10**30), "9" * 5000)
POLICIES = ("perhaps", "Allow", "allow ", " ", "refuse,allow")
URLS = (
    "beacon.example",
    "//beacon.example",
    "ftp://beacon.example",
    "https:beacon.example",
    "https://",
    "https:///path",
    "https://:443/",
    "https://beacon.example:0/",
    "https://beacon.example:65536/",
    "https://beacon.example:port/",
    "https://[::g]/",
    "https://[beacon.example]/",
    "https://beacon example/",
    "https://bücher.example/",
    f"https://ann:{SECRET}@beacon.example/",
    "https://beacon.example/?a=b",
    "https://beacon.example/#a",
    "https://" + "a" * 600,
    "'https://beacon.example'",
)
KEYS = (
    "abc",
    f'"{KEY}"',
    f"'{KEY}'",
    KEY[:40],
    KEY + "A",
    KEY.replace("/", "!"),
    "ed25519:" + KEY,
    SECRET,
)
EMPTY = (" ", ",", ", ,")


def servers(*urls: str, **login: str) -> str:
    return json.dumps({"ice_servers": [{"urls": urls, **login}]})


ICE = (
    "http://a.example",
    "stun:",
    "stun:a.example?transport=udp",
    "stuns:a.example?",
    "stun://a.example",
    "turn://a.example",
    "turn:a.example/",
    "turn:a.example#a",
    "turn:a.example:",
    "turn:a.example:0",
    "turn:a.example:65536",
    "turn:a.example?transport=sctp",
    "turn:a.example?transport=",
    "turn:a.example?tls",
    "turn:a.example?transport=udp&x=1",
    "turn:2001:db8::1",
    "turn:[::g]",
    "turn:[a.example]",
    f"turn:ann:{SECRET}@a.example",
    "turn:a b",
    " turn:a.example",
    "turn:bücher.example",
)
ASSIST = (
    "{",
    "[]",
    "null",
    "/no/such/file",
    "/",
    '{"routes": []}',
    '{"turn_ttl_s": 1' + "0" * 30 + "}",
    '{"turn_ttl_s": 9999999999999}',
    '{"ice_lite": {"ip": "fe80::1%eth0", "port": 1}}',
    '{"probe_hosts": ["a.example:８０"]}',
    "{\udcff",
    servers("turn:a.example"),
    servers("stun:a.example", "turns:a.example"),
    servers("turn:a.example", username="u"),
    servers("turn:a.example", username="u", password=SECRET, secret=SECRET),
    servers("turn:a.example", username="u" * 509, password=SECRET),
    *(servers(url, username="u", password=SECRET) for url in ICE),
)

_TEXTS: Table = {
    "MUSTER_UNSIGNED": POLICIES,
    "MUSTER_ACCESS": (*POLICIES, "refuse", "yes", "Open"),
    "MUSTER_STATUS_TOKEN": ("a" * 15, f"{SECRET} {SECRET}", f"{SECRET}é{SECRET}"),
    "MUSTER_WEBSOCKET_URL": (*URLS, "https://x/", "wss://", "ws://a#b", "wss://a?b", "WSS://a"),
    "MUSTER_VERSION": ("a b", "\x07", "1" * 65),
    "MUSTER_PIN_S": (*NUMBERS, *HUGE, "1", "30", "3599"),
    "MUSTER_COMMUNITY_NAMES": (*EMPTY, "a b", "home, -x", "a/b", "x" * 65, "bücher", ".."),
    "MUSTER_TRUSTED_TICKET_KEYS": (*EMPTY, *KEYS, f"{KEY}, abc"),
    "MUSTER_REVOKED_TICKET_KEYS": (*EMPTY, *KEYS, f"{KEY} {KEY}", f"{KEY};{KEY}"),
    "MUSTER_CAPSULE_ROOT": (*EMPTY, *KEYS, f"{KEY},{KEY}"),
    "MUSTER_CAPSULE_BEACONS": (*EMPTY, *URLS, "https://a.example, b.example", "wss://a.example"),
    "MUSTER_CAPSULE_MIRRORS": (*EMPTY, *URLS, ",".join(f"https://{n}.example" for n in range(17))),
    "MUSTER_ASSIST": ASSIST,
    "MUSTER_ASSIST_TOKENS": (*EMPTY, f"{SECRET}\x07", f"a, {SECRET} b", f"{SECRET}é"),
    "MUSTER_ASSIST_OPEN": POLICIES,
}
LOCAL: Table = {
    "MUSTER_LOG": ("debug", "1", "info "),
    "MUSTER_SOKCETS": ("3",),
    "MUSTER_A\nB": ("3",),
    "MUSTER_PORT": ("8080",),
}
"""What only the one-machine host refuses."""

AWS: Table = {
    "MUSTER_STORE": ("sqlit:x", "sqlite", "sqlite:", "DynamoDB", "dynamodb:x"),
    "MUSTER_TABLE_PRESENCE": ("a b", "x"),
    "MUSTER_TABLE_MAIL": ("", "mail!"),
    "MUSTER_TABLE_GUARD": ("", "wächter"),
    **dict.fromkeys(
        (
            "MUSTER_REST_RATE",
            "MUSTER_SOCKET_RATE",
            "MUSTER_TABLE_READ_UNITS",
            "MUSTER_TABLE_WRITE_UNITS",
        ),
        NUMBERS,
    ),
    "MUSTER_GREET_FUNCTION": ("a function", "https://x"),
    "MUSTER_SWEEP_RULE": ("a rule", "arn:aws:events:x"),
    "MUSTER_PUBLISH_RULE": ("a/rule", "r" * 65),
    "MUSTER_EDGE_SECRET": (f"{SECRET} {SECRET}", f"{SECRET}é"),
    "MUSTER_CAPSULE_BUCKET": ("Capsules", "s3://capsules", "a", "b_ucket"),
    "MUSTER_CAPSULE_KEYS_PARAM": ("a b", "ключ"),
}


SETTINGS: Table = {name: _TEXTS.get(name, NUMBERS + HUGE) for name in sorted(names(Settings))}
BOUNDS: Table = dict.fromkeys(sorted(names(Bounds)), NUMBERS + HUGE)
