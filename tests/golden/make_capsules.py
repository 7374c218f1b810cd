"""Write the golden files of signed metadata: `python -m tests.golden.make_capsules`.

Every key, nonce and instant is fixed, so that the same code writes the same bytes. The files
hold the inputs of a check and what it answers; Python (`test_capsules_golden.py`) and JavaScript
(`capsules.test.mjs`) both read them, and the latter computes the bytes that existing clients
sign in their own way.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from capsules import canonical, capsule, manifest, root, ticket, trust
from capsules.envelope import Purpose, seal
from capsules.errors import Refused
from capsules.keys import SigningKey, VerifyKey
from capsules.manifest import Publisher

HERE = Path(__file__).parent
NOW = 1_790_000_000
NOW_MS = NOW * 1000
DAY = 86_400
COMMUNITY = "mainnet"

Case = dict[str, Any]


def key(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(f"muster golden {name}".encode()).digest())


ROOT, ROOT_2, ROOT_3 = key("root 1"), key("root 2"), key("root 3")
ONLINE, ONLINE_2 = key("online 1"), key("online 2")
ALICE, BOB, CAROL = key("alice"), key("bob"), key("carol")


def nonce(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:12]


def sign(payload: Mapping[str, Any], signer: SigningKey = ALICE, **members: Any) -> dict[str, Any]:
    """Sign any payload, sensible or not; *members* replace those of the envelope."""
    signature = signer.sign(canonical.encode(payload))
    return {
        "version": 1,
        "algorithm": "ed25519",
        "publicKey": signer.verify_key.to_base64(),
        "signature": base64.b64encode(signature).decode(),
        "payload": payload,
        **members,
    }


def payload(**members: Any) -> dict[str, Any]:
    return {
        "peerId": "peer-alice",
        "userId": "alice",
        "issuedAt": NOW_MS,
        "expiresAt": NOW_MS + 180_000,
        "nonce": base64.b64encode(nonce("alice")).decode(),
        **members,
    }


def without(members: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name not in names}


# Canonical JSON

CANONICAL = {
    "the members of a payload": (
        '{"userId":"u","peerId":"p","nonce":"n","issuedAt":1,"expiresAt":2}'
    ),
    "the members of an envelope": (
        '{"version":1,"signature":"s","payload":{},"publicKey":"k","algorithm":"ed25519"}'
    ),
    "the members of a capsule": (
        '{"peers":[],"issuedAt":1,"version":1,"expiresAt":2,"community":null}'
    ),
    "unknown members": '{"b":1,"a":{"d":[],"c":{}},"a1":2,"10":3}',
    "an underscore among small letters": '{"_x":1,"a":2}',
    "names that objects of JavaScript have": '{"__proto__":{"a":1},"constructor":2,"toString":3}',
    "one unknown member, capital": '{"Z":1}',
    "space and order of the text do not matter": ' { "b" : [ 1 , 2 ] ,\n\t"a" : true } ',
    "the last of equal keys": '{"a":1,"b":2,"a":3}',
    "a thousand, three ways": "[1e3,1000.0,1000]",
    "zero, four ways": "[0,-0,-0.0,0e9]",
    "large numbers": "[1e20,1e21,123456789012345680000,1.7976931348623157e308]",
    "small numbers": "[0.1,1e-6,0.000001,1e-7,5e-324,-1.5e-9]",
    "integers beyond 2^53 are rounded": "[9007199254740991,9007199254740993,-9007199254740993]",
    "an integer of a hundred digits": "1" + "0" * 99,
    "beyond the largest double": "[1e999,-1e999]",
    "fractions": "[0.30000000000000004,333333333.33333329,4.50,2e-3,1.5]",
    "escapes": '"\\u0000\\u0008\\t\\n\\u000b\\f\\r\\u001f\\"\\\\\\/"',
    "nothing else is escaped": '"\\u007f\\u2028\\u2029\\u20ac\\u00e9</"',
    "beyond the basic plane": '"\\ud83d\\ude00"',
    "half a surrogate pair": '["\\ud83d","\\uDE00","a\\ud83db"]',
    "literals": "[true,false,null]",
    "nested 32 deep": "[" * 32 + "]" * 32,
    "nested 32 deep around a number": "[" * 32 + "1" + "]" * 32,
}

NOT_CANONICAL = {
    "cases differ in order": '{"Z":1,"a":2}',
    "a capital inside": '{"aB":1,"aa":2}',
    "an underscore after a letter": '{"a_b":1,"aB":2}',
    "an accent": '{"é":1,"f":2}',
    "one key, but not ASCII": '{"é":1}',
    "punctuation": '{"a-b":1}',
    "an empty key": '{"":1}',
    "deep inside": '{"payload":{"peers":[{"B":1,"a":2}]}}',
}

NOT_JSON = {
    "nothing": "",
    "a bare word": "undefined",
    "not a number": "[NaN]",
    "infinity": "-Infinity",
    "a trailing comma": "[1,]",
    "a leading zero": "01",
    "two values": "1 2",
    "a byte order mark": "\ufeff{}",
    "a line break in a string": '"\n"',
    "nested 33 deep": "[" * 33 + "]" * 33,
    "a page": "<!doctype html><title>502</title>",
}


def canonical_cases() -> list[Case]:
    cases = [
        case(f"canonical: {name}", {"json": text}, partial(_canonical, text))
        for name, text in {**CANONICAL, **NOT_CANONICAL, **NOT_JSON}.items()
    ]
    return cases


def _canonical(text: str) -> str:
    return canonical.encode(canonical.loads(text)).decode()


# Tickets


def ticket_cases() -> list[Case]:
    good = sign(payload())
    revoked = ALICE.verify_key.to_base64()
    table: list[tuple[str, Any, dict[str, Any]]] = [
        ("as clients make it", good, {}),
        ("created by us", dict(ticket.create(ALICE, **created()).to_json()), {}),
        ("in the last moment of tolerance", good, {"now_ms": NOW_MS + 195_000}),
        ("a moment later", good, {"now_ms": NOW_MS + 195_001}),
        ("in the first moment of tolerance", good, {"now_ms": NOW_MS - 15_000}),
        ("a moment earlier", good, {"now_ms": NOW_MS - 15_001}),
        ("the clock a day behind", good, {"now_ms": NOW_MS - DAY * 1000}),
        ("the clock a day ahead", good, {"now_ms": NOW_MS + DAY * 1000}),
        ("the expected peer", good, {"peer_id": "peer-alice", "user_id": "alice"}),
        ("another peer", good, {"peer_id": "peer-bob"}),
        ("another user", good, {"user_id": "bob"}),
        ("a trusted key", good, {"rules": {"trusted": [revoked]}}),
        ("no trusted key", good, {"rules": {"trusted": [BOB.verify_key.to_base64()]}}),
        ("a revoked key", good, {"rules": {"revoked": [revoked]}}),
        (
            "a revoked key in another spelling",
            {**good, "publicKey": " " + revoked.rstrip("=")},
            {"rules": {"revoked": [revoked]}},
        ),
        ("another key is revoked", good, {"rules": {"revoked": [BOB.verify_key.to_base64()]}}),
        ("another algorithm", {**good, "algorithm": "p256"}, {}),
        ("another key's signature", {**good, "publicKey": BOB.verify_key.to_base64()}, {}),
        ("a changed payload", {**good, "payload": payload(peerId="peer-mallory")}, {}),
        ("a dropped member", {**good, "payload": without(payload(), "nonce")}, {}),
        ("a signature that is not base64", {**good, "signature": "not base64!"}, {}),
        ("a signature in the URL alphabet", {**good, "signature": "-_" * 44}, {}),
        ("a short signature", {**good, "signature": "AAAA"}, {}),
        ("a signature without padding", {**good, "signature": good["signature"].rstrip("=")}, {}),
        ("a signature with spaces", {**good, "signature": f" {good['signature']}\n"}, {}),
        ("a signature with half its padding", {**good, "signature": good["signature"][:-1]}, {}),
        ("a key that is not base64", {**good, "publicKey": "?"}, {}),
        ("a short key", {**good, "publicKey": "AAAA"}, {}),
        ("a key of small order", small_order(), {}),
        (
            "a key that is no point",
            {**good, "publicKey": base64.b64encode(b"\2" + bytes(31)).decode()},
            {},
        ),
        (
            "expired before anything else",
            {**good, "algorithm": "x", "signature": "?"},
            {"now_ms": NOW_MS * 2},
        ),
        ("untrusted before unsupported", {**good, "algorithm": "x"}, {"rules": {"trusted": ["x"]}}),
        ("unsupported before its signature", {**good, "algorithm": "x", "signature": "?"}, {}),
        ("another version", {**good, "version": 2}, {}),
        ("no version", without(good, "version"), {}),
        ("a member beside", {**good, "note": "hello"}, {}),
        ("a member inside", sign(payload(region="eu")), {}),
        ("a member inside, not integral", sign(payload(load=0.25)), {}),
        ("a member inside that sorts by language", {**good, "payload": payload(Zone=1)}, {}),
        ("an accent inside", {**good, "payload": payload(é=1)}, {}),
        ("a day", sign(payload(expiresAt=NOW_MS + ticket.MAX_LIFETIME_MS)), {}),
        ("more than a day", sign(payload(expiresAt=NOW_MS + ticket.MAX_LIFETIME_MS + 1)), {}),
        ("ten years", sign(payload(expiresAt=NOW_MS + 10 * 365 * DAY * 1000)), {}),
        ("a lower limit", good, {"rules": {"max_lifetime_ms": 179_999}}),
        ("no expiresAt", sign(without(payload(), "expiresAt")), {}),
        ("expiresAt as text", sign(payload(expiresAt=str(NOW_MS + 180_000))), {}),
        ("expiresAt with a fraction", sign(payload(expiresAt=NOW_MS + 0.5)), {}),
        ("expiresAt true", sign(payload(expiresAt=True)), {}),
        ("expiresAt beyond 2^53", sign(payload(expiresAt=2**53)), {}),
        ("expires when it begins", sign(payload(expiresAt=NOW_MS)), {}),
        ("expires before it begins", sign(payload(expiresAt=NOW_MS - 1)), {}),
        ("issued before time", sign(payload(issuedAt=-1)), {}),
        ("no peerId", sign(without(payload(), "peerId")), {}),
        ("a number for peerId", sign(payload(peerId=7)), {}),
        ("an empty peerId", sign(payload(peerId="")), {}),
        ("a peerId of 256 bytes", sign(payload(peerId="é" * 128)), {}),
        ("a peerId of 257 bytes", sign(payload(peerId="é" * 128 + "x")), {}),
        ("half a surrogate pair in peerId", sign(payload(peerId="\ud83d")), {}),
        ("an empty userId", sign(payload(userId="")), {}),
        ("no nonce", sign(without(payload(), "nonce")), {}),
        ("4096 bytes", sized(4096), {}),
        ("4097 bytes", sized(4097), {}),
        ("no payload", without(good, "payload"), {}),
        ("a list for payload", {**good, "payload": []}, {}),
        ("no signature", without(good, "signature"), {}),
        ("no key", without(good, "publicKey"), {}),
        ("no algorithm", without(good, "algorithm"), {}),
        ("a list", [], {}),
        ("nothing", None, {}),
        ("text", "ticket", {}),
    ]
    return [_ticket_case(name, envelope, options) for name, envelope, options in table]


def sized(length: int) -> dict[str, Any]:
    """Return a ticket of this many bytes in canonical form."""
    bare = len(canonical.encode(sign(payload(note=""))))
    return sign(payload(note="x" * (length - bare)))


def created() -> dict[str, Any]:
    return {
        "peer_id": "peer-alice",
        "user_id": "alice",
        "now_ms": NOW_MS,
        "nonce": nonce("alice"),
    }


def small_order() -> dict[str, Any]:
    """A signature by the neutral element, which a careless verifier accepts for any payload."""
    neutral = b"\1" + bytes(31)
    return sign(
        payload(),
        publicKey=base64.b64encode(neutral).decode(),
        signature=base64.b64encode(neutral + bytes(32)).decode(),
    )


def verify_ticket(given: Mapping[str, Any]) -> dict[str, Any]:
    rules = given.get("rules", {})
    found = ticket.Ticket.from_json(given["ticket"])
    found.verify(
        now_ms=given["now_ms"],
        rules=replace(
            ticket.RULES,
            trusted=frozenset(rules.get("trusted", ())),
            revoked=frozenset(rules.get("revoked", ())),
            max_lifetime_ms=rules.get("max_lifetime_ms", ticket.MAX_LIFETIME_MS),
        ),
        peer_id=given.get("peer_id"),
        user_id=given.get("user_id"),
    )
    return {"signed": found.message.decode(), "listable": ticket.listable(found)}


def _ticket_case(name: str, envelope: Any, options: Mapping[str, Any]) -> Case:
    given = {"ticket": envelope, "now_ms": NOW_MS, **options}
    return case(f"ticket: {name}", given, lambda: verify_ticket(given))


# Capsules


def tickets() -> list[ticket.Ticket]:
    return [
        ticket.create(
            signer,
            peer_id=f"peer-{name}",
            user_id=name,
            now_ms=NOW_MS - age,
            nonce=nonce(name),
            ttl_ms=ttl,
        )
        for name, signer, age, ttl in (
            ("alice", ALICE, 0, 3_600_000),
            ("bob", BOB, 1000, 180_000),
            ("carol", CAROL, 300_000, 180_000),
        )
    ]


def peers_json(**options: Any) -> bytes:
    settings: dict[str, Any] = {"community": COMMUNITY, "now_ms": NOW_MS, "ttl_ms": 300_000}
    return capsule.build(ONLINE, tickets(), **{**settings, **options})


def signed_capsule(signer: SigningKey = ONLINE, **members: Any) -> bytes:
    """Sign a capsule that no publisher of ours would; as existing tools do."""
    covered: dict[str, Any] = {
        "version": 1,
        "community": COMMUNITY,
        "issuedAt": NOW_MS,
        "expiresAt": NOW_MS + 300_000,
        "peers": [dict(one.to_json()) for one in tickets()[:1]],
        **members,
    }
    message = {"community": None, **covered}
    signature = base64.b64encode(signer.sign(canonical.encode(message))).decode()
    return capsule.pretty({**covered, "signature": signature, "algorithm": "ed25519"})


def altered(raw: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """Change a file after it was signed."""
    data = json.loads(raw)
    change(data)
    return capsule.pretty(data)


def capsule_cases() -> list[Case]:
    good = peers_json()
    table: list[tuple[str, bytes, dict[str, Any]]] = [
        ("as we publish it", good, {}),
        ("in one line", json.dumps(json.loads(good)).encode(), {}),
        ("in its last moment", good, {"now_ms": NOW_MS + 300_000}),
        ("a moment later", good, {"now_ms": NOW_MS + 300_001}),
        ("a day ahead", good, {"now_ms": NOW_MS + DAY * 1000}),
        ("before it was issued", good, {"now_ms": NOW_MS - 60_000}),
        ("without tickets", signed_capsule(peers=[]), {}),
        ("without a community", _drop(signed_capsule(community=None), "community"), {}),
        ("of community null", signed_capsule(community=None), {}),
        ("of the empty community", signed_capsule(community=""), {}),
        ("a number for community", signed_capsule(community=7), {}),
        ("without algorithm", _drop(good, "algorithm"), {}),
        ("of another algorithm", altered(good, lambda d: d.update(algorithm="p256")), {}),
        ("with entries that are no tickets", signed_capsule(peers=[1, None, {}, "x"]), {}),
        ("a member that sorts by language", _with_peer({"Z": 1, "a": 2}), {}),
        ("signed by another key", signed_capsule(BOB), {}),
        ("another issuedAt", altered(good, lambda d: d.update(issuedAt=NOW_MS - 1)), {}),
        ("one ticket less", altered(good, lambda d: d["peers"].pop()), {}),
        ("a ticket changed", altered(good, lambda d: d["peers"][0].update(version=2)), {}),
        ("a signature that is not base64", altered(good, lambda d: d.update(signature="?")), {}),
        ("no signature", _drop(good, "signature"), {}),
        ("of version 2", signed_capsule(version=2), {}),
        ("expiresAt as text", signed_capsule(expiresAt="never"), {}),
        ("no peers", _drop(good, "peers"), {}),
        ("1001 entries", signed_capsule(peers=[0] * 1001), {}),
        ("a list", b"[]", {}),
        ("a page", b"<html></html>", {}),
        ("nothing", b"", {}),
    ]
    return [
        _capsule_case(name, {"capsule": raw.decode(), "now_ms": NOW_MS, **options})
        for name, raw, options in table
    ]


def _drop(raw: bytes, name: str) -> bytes:
    return altered(raw, lambda data: data.pop(name))


def _with_peer(peer: Mapping[str, Any]) -> bytes:
    return altered(peers_json(), lambda data: data["peers"].append(peer))


def verify_capsule(given: Mapping[str, Any]) -> dict[str, Any]:
    found = capsule.Capsule.parse(given["capsule"].encode())
    found.verify(VerifyKey.from_base64(given["verify_key"]), now_ms=given["now_ms"])
    return {"signed": found.message.decode(), **believed(found.tickets(now_ms=given["now_ms"]))}


def believed(result: tuple[Sequence[ticket.Ticket], Sequence[capsule.Skipped]]) -> dict[str, Any]:
    good, skipped = result
    return {
        "peers": [one.peer_id for one in good],
        "skipped": [{"place": entry.place, "reason": entry.reason} for entry in skipped],
    }


def _capsule_case(name: str, given: dict[str, Any]) -> Case:
    given["verify_key"] = ONLINE.verify_key.to_base64()
    return case(f"capsule: {name}", given, lambda: verify_capsule(given))


# Manifests and trust


def certificate(signer: SigningKey = ROOT, online: SigningKey = ONLINE, **options: Any) -> Any:
    settings: dict[str, Any] = {
        "serial": 1,
        "not_before": NOW - DAY,
        "expires_at": NOW + 90 * DAY,
        "communities": None,
    }
    return root.certify(signer, online.verify_key, **{**settings, **options})


ROOT_DOCUMENT = root.first(ROOT, now=NOW - 30 * DAY)
ROOT_DOCUMENT_2 = root.rotate(ROOT_DOCUMENT, old=ROOT, new=ROOT_2, now=NOW - 20 * DAY)
ROOT_DOCUMENT_3 = root.rotate(ROOT_DOCUMENT_2, old=ROOT_2, new=ROOT_3, now=NOW - 10 * DAY)
ROOTS = (ROOT_DOCUMENT, ROOT_DOCUMENT_2, ROOT_DOCUMENT_3)
PUBLISHER = Publisher(ONLINE, certificate(), (ROOT_DOCUMENT,))


def publish(publisher: Publisher = PUBLISHER, **options: Any) -> manifest.Files:
    settings: dict[str, Any] = {
        "community": COMMUNITY,
        "now": NOW,
        "beacons": ["https://muster.example"],
        "capsules": ["https://mirror.example/capsules/mainnet/peers.json"],
    }
    return manifest.publish(publisher, tickets(), **{**settings, **options})


def remade(files: manifest.Files, signer: SigningKey = ONLINE, **members: Any) -> manifest.Files:
    """Sign another manifest for the same files, as a thief of the online key could."""
    data = json.loads(files.manifest)
    data["manifest"] = seal(Purpose.MANIFEST, {**data["manifest"]["payload"], **members}, signer)
    return files._replace(manifest=capsule.pretty(data))


def changed(files: manifest.Files, change: Callable[[dict[str, Any]], Any]) -> manifest.Files:
    return files._replace(manifest=altered(files.manifest, change))


def seen(
    files: manifest.Files,
    state: trust.State | None = None,
    now: int = NOW,
    community: str = COMMUNITY,
) -> trust.State:
    """Return the state of a client that has accepted these files."""
    known = state or trust.begin(ROOT.verify_key)
    return take(files, known, now=now, community=community).state


def take(
    files: manifest.Files, state: trust.State, *, now: int, community: str = COMMUNITY
) -> trust.Accepted:
    return trust.accept(
        state, files.manifest, files.capsule, files.signature, community=community, now=now
    )


def refused(files: manifest.Files, state: trust.State, now: int = NOW) -> trust.State:
    """Return the state of a client that has refused these files."""
    try:
        take(files, state, now=now)
    except trust.Distrusted as refusal:
        return refusal.state
    raise AssertionError("these files were to be refused")


def trust_cases() -> list[Case]:
    return [
        *_honest(),
        *_arbitrary(),
        *_time(),
        *_sequence(),
        *_several_keys(),
        *_mixed(),
        *_targets(),
        *_keys(),
        *_rotation(),
        *_pinned(),
    ]


def _honest() -> list[Case]:
    good, next_one = publish(), publish(now=NOW + 300)
    return [
        accept("the first capsule", good),
        accept("without peers.json.sig", good, signature=None),
        accept("the same again", good, state=seen(good)),
        accept("the next one", next_one, state=seen(good), now=NOW + 300),
        accept("a skipped one", publish(now=NOW + 900), state=seen(good), now=NOW + 900),
        accept("another signer of the same root", publish(second()), state=seen(good)),
        accept("in its last fresh second", good, now=NOW + manifest.FRESH_S - 1),
        accept("no longer fresh, still valid", good, now=NOW + manifest.FRESH_S),
        accept("no roots", publish(PUBLISHER._replace(roots=()))),
        accept("a member that we do not know", changed(good, lambda d: d.update(note=1))),
        accept("a member of the manifest that we do not know", remade(good, note=["x"])),
    ]


def second(**options: Any) -> Publisher:
    return PUBLISHER._replace(key=ONLINE_2, certificate=certificate(online=ONLINE_2, **options))


def _arbitrary() -> list[Case]:
    good = publish()
    other = changed(good, lambda d: d["manifest"]["payload"].update(sequence=1))
    page = good._replace(manifest=b"<html></html>")
    return [
        accept("arbitrary content: a page", page),
        accept("arbitrary content: nothing", good._replace(manifest=b"")),
        accept("arbitrary content: a list", good._replace(manifest=b"[]")),
        accept("arbitrary content: a manifest changed", other),
        accept("arbitrary content: nobody signed", changed(good, _unsign("manifest"))),
        accept("arbitrary content: the signature of another key", remade(good, BOB)),
        accept("arbitrary content: the manifest of existing tools", changed(good, _strip)),
        accept("arbitrary content: version 2", changed(good, lambda d: d.update(version=2))),
        accept("arbitrary content: p256", changed(good, lambda d: d.update(algorithm="p256"))),
        accept("arbitrary content: a fraction", changed(good, _fraction)),
        accept("arbitrary content: beyond all doubles", good._replace(manifest=_infinite(good))),
        accept("arbitrary content: signed for another purpose", _other_purpose(good)),
        accept("arbitrary content: another type", remade(good, type="certificate")),
        accept("arbitrary content: times out of order", remade(good, fresh_until=NOW - 1)),
        accept("arbitrary content: no address", remade(good, beacons=["javascript:alert(1)"])),
        accept(
            "arbitrary content: 17 addresses", remade(good, capsules=["https://x.example"] * 17)
        ),
        accept("endless data: a capsule of a gigabyte", remade(good, capsule=_size(good, 1 << 30))),
        accept("endless data: a capsule of 1 MiB", remade(good, capsule=_size(good, 1 << 20))),
        accept(
            "endless data: more bytes than promised", good._replace(capsule=good.capsule + b" ")
        ),
        accept("endless data: less bytes than promised", good._replace(capsule=good.capsule[:-1])),
    ]


def _unsign(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda data: data[name].update(signatures=[])


def _strip(data: dict[str, Any]) -> None:
    for name in ("manifest", "certificate", "revocations", "roots"):
        del data[name]


def _fraction(data: dict[str, Any]) -> None:
    data["manifest"]["payload"]["sequence"] = 0.5


def _infinite(files: manifest.Files) -> bytes:
    return files.manifest.replace(f'"sequence": {NOW}'.encode(), b'"sequence": 1e999')


def _other_purpose(files: manifest.Files) -> manifest.Files:
    def change(data: dict[str, Any]) -> None:
        data["manifest"] = seal(Purpose.CERTIFICATE, data["manifest"]["payload"], ONLINE)

    return changed(files, change)


def _size(files: manifest.Files, length: int) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(files.capsule).hexdigest(), "length": length}


def _time() -> list[Case]:
    good, later = publish(), publish(now=NOW + DAY)
    week = manifest.MAX_VALID_S
    return [
        accept("freeze: in its last second", good, now=NOW + manifest.VALID_S - 1),
        accept("freeze: a second later", good, now=NOW + manifest.VALID_S),
        accept("freeze: a year later", good, now=NOW + 365 * DAY),
        accept("freeze: valid for a week", publish(valid_s=week)),
        accept("freeze: valid for more than a week", remade(good, valid_until=NOW + week + 1)),
        accept("freeze: the capsule shorter than its manifest", _short_lived(), now=NOW + 301),
        accept("clock: behind as much as is tolerated", good, now=NOW - trust.TOLERANCE_S),
        accept("clock: a second more", good, now=NOW - trust.TOLERANCE_S - 1),
        accept("clock: a day behind", good, now=NOW - DAY),
        accept("clock: a day ahead", good, now=NOW + DAY),
        accept("clock: a day behind what was seen", good, state=seen(later, now=NOW + DAY)),
    ]


def _short_lived() -> manifest.Files:
    good = publish()
    raw = peers_json()
    described = {"sha256": hashlib.sha256(raw).hexdigest(), "length": len(raw)}
    return remade(good, capsule=described)._replace(
        capsule=raw, signature=capsule.signature_file(raw)
    )


def _sequence() -> list[Case]:
    good, newer = publish(), publish(now=NOW + 300)
    thief = remade(good, sequence=NOW + 300, issued_at=NOW + 300, fresh_until=NOW + 300)
    stolen = seen(thief)
    revoked = root.revoke(ROOT, [ONLINE.verify_key], version=1, now=NOW)
    recovery = second()._replace(revocations=revoked)
    return [
        accept(
            "rollback: an older sequence", good, state=seen(newer, now=NOW + 300), now=NOW + 300
        ),
        accept("rollback: an older certificate", publish(now=NOW + 300), state=seen(_renewed())),
        accept(
            "rollback: the same sequence, other content", remade(good, beacons=[]), state=seen(good)
        ),
        accept("rollback: also after a capsule that was refused", good, state=_promised(newer)),
        accept("fast-forward: the highest number", remade(good, sequence=2**53 - 1)),
        accept("fast-forward: a second ahead", remade(good, sequence=NOW + 1)),
        accept("fast-forward: from the future", publish(now=NOW + 301)),
        accept("fast-forward: a thief at the edge of tolerance", thief),
        accept(
            "fast-forward: the honest one waits", publish(now=NOW + 1), state=stolen, now=NOW + 1
        ),
        accept(
            "fast-forward: and has caught up", publish(now=NOW + 301), state=stolen, now=NOW + 301
        ),
        accept("fast-forward: or takes a new key", publish(recovery), state=stolen),
    ]


def _several_keys() -> list[Case]:
    good, newer = publish(), publish(second(), now=NOW + 300)
    rotated = seen(newer, now=NOW + 300)
    stolen = seen(publish(now=NOW + 300), seen(publish(second(), now=NOW + 100), now=NOW + 300))
    gone = root.revoke(ROOT, [ONLINE.verify_key], version=1, now=NOW)
    recovery = second()._replace(revocations=gone)
    many = seen(publish(second(serial=9)))
    elsewhere = seen(publish(second(), now=NOW + 1, community="testnet"), community="testnet")
    return [
        accept("several keys: the next key", newer, state=seen(good), now=NOW + 300),
        accept("several keys: then the earlier key's capsule", good, state=rotated, now=NOW + 300),
        accept(
            "several keys: a second earlier, by another publisher",
            publish(now=NOW + 299),
            state=rotated,
            now=NOW + 300,
        ),
        accept(
            "several keys: in the same second",
            publish(now=NOW + 300),
            state=rotated,
            now=NOW + 300,
        ),
        accept(
            "several keys: a second later", publish(now=NOW + 301), state=rotated, now=NOW + 301
        ),
        accept("several keys: each has its own serials", publish(now=NOW + 1), state=many),
        accept("several keys: another community counts for itself", good, state=elsewhere),
        accept(
            "several keys: a thief holds the other key up for as long as is tolerated",
            publish(second(), now=NOW + 200),
            state=stolen,
            now=NOW + 200,
        ),
        accept(
            "several keys: or until the thief's is revoked",
            publish(recovery, now=NOW + 200),
            state=stolen,
            now=NOW + 200,
        ),
        accept(
            "several keys: what the others said still counts then",
            publish(recovery, now=NOW + 99),
            state=stolen,
            now=NOW + 200,
        ),
        accept("several keys: the clock behind what another said", good, state=_tomorrow()),
    ]


def _tomorrow() -> trust.State:
    return seen(publish(second(), now=NOW + DAY), now=NOW + DAY)


def _renewed() -> manifest.Files:
    return publish(PUBLISHER._replace(certificate=certificate(serial=2)))


def _promised(newer: manifest.Files) -> trust.State:
    broken = newer._replace(capsule=newer.capsule + b" ")
    return refused(broken, trust.begin(ROOT.verify_key))


def _mixed() -> list[Case]:
    good, later = publish(), publish(now=NOW + 1)
    tampered = good.capsule.replace(b"peer-alice", b"peer-malle")
    return [
        accept(
            "mix-and-match: the capsule of another manifest", good._replace(capsule=later.capsule)
        ),
        accept("mix-and-match: a capsule changed", good._replace(capsule=tampered)),
        accept(
            "mix-and-match: peers.json.sig of another", good._replace(signature=later.signature)
        ),
        accept("mix-and-match: signed by another key", _foreign(signed_capsule(BOB))),
        accept(
            "mix-and-match: a capsule of another community", _foreign(signed_capsule(community="x"))
        ),
        accept("mix-and-match: not a capsule", _foreign(b"{}")),
        accept("mix-and-match: 1001 entries", _foreign(signed_capsule(peers=[0] * 1001))),
    ]


def _foreign(raw: bytes) -> manifest.Files:
    """A manifest whose signer vouches for a capsule that is wrong in itself."""
    files = remade(
        publish(), capsule={"sha256": hashlib.sha256(raw).hexdigest(), "length": len(raw)}
    )
    return files._replace(capsule=raw, signature=json.loads(raw).get("signature", "").encode())


def _targets() -> list[Case]:
    only = PUBLISHER._replace(certificate=certificate(communities=["testnet"]))
    both = PUBLISHER._replace(certificate=certificate(communities=["testnet", "mainnet"]))
    return [
        accept("wrong target: the manifest of another community", publish(community="testnet")),
        accept("wrong target: a key for another community", publish(only)),
        accept("wrong target: a key for both", publish(both)),
    ]


def _keys() -> list[Case]:
    good = publish()
    gone = root.revoke(ROOT, [ONLINE.verify_key], version=2, now=NOW)
    alice = root.revoke(ROOT, [ALICE.verify_key], version=1, now=NOW)
    knows = refused(publish(PUBLISHER._replace(revocations=gone)), seen(good))
    crossed = second()._replace(revocations=gone)
    forged = root.revoke(BOB, [ONLINE.verify_key], version=9, now=NOW)
    return [
        accept(
            "key compromise: revoked",
            publish(PUBLISHER._replace(revocations=gone)),
            state=seen(good),
        ),
        accept("key compromise: revoked, the list withheld", good, state=knows),
        accept(
            "key compromise: an older list",
            publish(PUBLISHER._replace(revocations=alice)),
            state=knows,
        ),
        accept(
            "key compromise: the next key, an older list",
            publish(second()._replace(revocations=alice)),
            state=knows,
        ),
        accept("key compromise: a ticket's key", publish(PUBLISHER._replace(revocations=alice))),
        accept("key compromise: a list by nobody", publish(PUBLISHER._replace(revocations=forged))),
        accept(
            "key compromise: a certificate by nobody",
            publish(PUBLISHER._replace(certificate=certificate(BOB))),
        ),
        accept(
            "key compromise: the certificate of another key",
            publish(PUBLISHER._replace(certificate=certificate(online=ONLINE_2))),
        ),
        accept("key compromise: the list taken out", changed(publish(crossed), _forget)),
        accept(
            "key compromise: taken out, but known", changed(publish(crossed), _forget), state=knows
        ),
        accept("key compromise: exchanged for an older one", changed(publish(crossed), _older)),
        accept("key compromise: no certificate", changed(good, lambda d: d.pop("certificate"))),
        accept("key compromise: a certificate changed", changed(good, _extend)),
        accept(
            "key compromise: a certificate in its last second",
            publish(PUBLISHER._replace(certificate=certificate(expires_at=NOW + 1))),
        ),
        accept(
            "key compromise: a certificate past its time",
            publish(PUBLISHER._replace(certificate=certificate(expires_at=NOW))),
        ),
        accept(
            "key compromise: a certificate that begins within the tolerance",
            publish(PUBLISHER._replace(certificate=certificate(not_before=NOW + 300))),
        ),
        accept(
            "key compromise: a certificate from the future",
            publish(PUBLISHER._replace(certificate=certificate(not_before=NOW + 301))),
        ),
    ]


def _forget(data: dict[str, Any]) -> None:
    data["revocations"] = None


def _older(data: dict[str, Any]) -> None:
    data["revocations"] = root.revoke(ROOT, [], version=1, now=NOW)


def _extend(data: dict[str, Any]) -> None:
    data["certificate"]["payload"]["expires_at"] += DAY


def _rotation() -> list[Case]:
    third = Publisher(ONLINE, certificate(ROOT_3), ROOTS)
    fresh = Publisher(ONLINE_2, certificate(ROOT_3, ONLINE_2), ROOTS)
    gone = root.revoke(ROOT, [BOB.verify_key], version=7, now=NOW)
    again = root.revoke(ROOT_3, [ALICE.verify_key], version=1, now=NOW)
    knows = seen(publish(PUBLISHER._replace(revocations=gone)))
    self_made = root.rotate(ROOT_DOCUMENT, old=ROOT, new=BOB, now=NOW)
    self_made["signatures"] = self_made["signatures"][1:]
    old_only = {**ROOT_DOCUMENT_2, "signatures": ROOT_DOCUMENT_2["signatures"][:1]}
    other = root.first(BOB, now=NOW)
    leap = seal(Purpose.ROOT, ROOT_DOCUMENT_3["payload"], ROOT, ROOT_3)
    return [
        accept("rotation: two roots further", publish(third), state=seen(publish())),
        accept("rotation: from a root key alone", publish(third)),
        accept(
            "rotation: from the second root key",
            publish(third),
            state=trust.begin(ROOT_2.verify_key),
        ),
        accept("rotation: and a new online key", publish(fresh), state=seen(publish())),
        accept(
            "rotation: an older capsule, certified again",
            publish(third),
            state=seen(publish(now=NOW + 300), now=NOW + 300),
            now=NOW + 300,
        ),
        accept(
            "rotation: an older capsule by a new online key",
            publish(fresh),
            state=seen(publish(now=NOW + 300), now=NOW + 300),
            now=NOW + 300,
        ),
        accept("rotation: what the old root revoked stays revoked", publish(third), state=knows),
        accept(
            "rotation: the new root's list replaces it",
            publish(third._replace(revocations=again), now=NOW + 1),
            state=knows,
        ),
        accept(
            "rotation: the old root's list", publish(third._replace(revocations=gone)), state=knows
        ),
        accept("rotation: the old root signs no more", publish(), state=seen(publish(third))),
        accept(
            "rotation: followed in a manifest that is frozen",
            publish(third),
            state=seen(publish()),
            now=NOW + DAY,
        ),
        accept(
            "rotation: a step is missing",
            publish(third._replace(roots=(ROOT_DOCUMENT, ROOT_DOCUMENT_3))),
        ),
        accept(
            "rotation: without the old root's signature",
            publish(third._replace(roots=(ROOT_DOCUMENT, self_made))),
        ),
        accept(
            "rotation: without the new root's signature",
            publish(third._replace(roots=(ROOT_DOCUMENT, old_only))),
        ),
        accept("rotation: another chain", publish(Publisher(ONLINE, certificate(BOB), (other,)))),
        accept(
            "rotation: not a root",
            publish(PUBLISHER._replace(roots=({"payload": {}, "signatures": []},))),
        ),
        accept("rotation: a leap", publish(third._replace(roots=(ROOT_DOCUMENT, leap)))),
        accept("rotation: 33 roots", changed(publish(), _crowd)),
    ]


def _crowd(data: dict[str, Any]) -> None:
    data["roots"] *= root.MAX_ROOTS + 1


def _pinned() -> list[Case]:
    files = manifest.Files(peers_json(), b"", b"")
    start = trust.begin(ONLINE.verify_key)
    key_1 = ONLINE.verify_key
    later = peers_json(now_ms=NOW_MS + 1000)
    knows = trust.accept_pinned(start, later, key_1, community=COMMUNITY, now=NOW).state
    revoked = replace(
        trust.begin(ROOT.verify_key), revocations=1, revoked=frozenset({key_1.to_base64()})
    )
    ahead = seen(publish(now=NOW + DAY), now=NOW + DAY)
    both = trust.accept_pinned(seen(publish()), later, key_1, community=COMMUNITY, now=NOW).state
    published = seen(publish(second(), now=NOW + 100), now=NOW + 100)

    def pinned(name: str, raw: bytes = files.capsule, **options: Any) -> Case:
        settings = {"state": start, "pinned": key_1.to_base64(), **options}
        return accept(f"pinned: {name}", files._replace(capsule=raw), **settings)

    return [
        pinned("a capsule without manifest"),
        pinned("of any community", community=None),
        pinned("without a community", signed_capsule(community=None), community=None),
        pinned("of another community", signed_capsule(community="testnet")),
        pinned("past its time", now=NOW + 301),
        pinned("as far from the future as is tolerated", peers_json(now_ms=NOW_MS + 300_000)),
        pinned("for a week", peers_json(ttl_ms=manifest.MAX_VALID_S * 1000)),
        pinned("from the future", peers_json(now_ms=NOW_MS + 300_001)),
        pinned("for more than a week", peers_json(ttl_ms=manifest.MAX_VALID_S * 1000 + 1)),
        pinned("by another key", signed_capsule(BOB)),
        pinned("rollback", state=knows),
        pinned("the same again", later, state=knows),
        pinned("the same time, other content", signed_capsule(issuedAt=NOW_MS + 1000), state=knows),
        pinned("a revoked key", state=revoked),
        pinned("the clock behind what was seen", state=ahead),
        pinned("a page", b"<html></html>"),
        pinned("older than what a manifest said", state=published, now=NOW + 100),
        pinned(
            "older than what another pinned key said",
            signed_capsule(BOB),
            pinned=BOB.verify_key.to_base64(),
            state=knows,
        ),
        accept("pinned: what it said binds no manifest", publish(), state=both),
        accept(
            "pinned: nor is a manifest rolled back under it",
            publish(),
            state=trust.accept_pinned(
                published, later, key_1, community=COMMUNITY, now=NOW + 100
            ).state,
            now=NOW + 100,
        ),
    ]


def accept(
    name: str,
    files: manifest.Files,
    *,
    state: trust.State | None = None,
    now: int = NOW,
    community: str | None = COMMUNITY,
    **options: Any,
) -> Case:
    given = {
        "state": (state or trust.begin(ROOT.verify_key)).to_json(),
        "community": community,
        "now": now,
        "manifest": files.manifest.decode(),
        "capsule": files.capsule.decode(),
        "signature": files.signature.decode(),
        "pinned": None,
        **options,
    }
    return case(f"trust: {name}", given, lambda: verify_trust(given))


def verify_trust(given: Mapping[str, Any]) -> dict[str, Any]:
    state = trust.State.from_json(given["state"])
    raw, now = given["capsule"].encode(), given["now"]
    if given["pinned"] is not None:
        pin = VerifyKey.from_base64(given["pinned"])
        result = trust.accept_pinned(state, raw, pin, community=given["community"], now=now)
    else:
        signature = None if given["signature"] is None else given["signature"].encode()
        result = trust.accept(
            state,
            given["manifest"].encode(),
            raw,
            signature,
            community=given["community"],
            now=now,
        )
    return {
        "state": result.state.to_json(),
        "fresh": result.fresh,
        "sequence": result.manifest.sequence if result.manifest else None,
        **believed((result.tickets, result.skipped)),
    }


# Files


def case(name: str, given: Mapping[str, Any], run: Callable[[], Any]) -> Case:
    """Run a check and keep what it answered."""
    try:
        return {"name": name, "expect": "ok", "input": given, "output": run()}
    except Refused as refusal:
        learned = refusal.state.to_json() if isinstance(refusal, trust.Distrusted) else None
        state = None if learned is None else {"state": learned}
        return {"name": name, "expect": refusal.reason, "input": given, "output": state}


FILES: dict[str, Callable[[], list[Case]]] = {
    "canonical.json": canonical_cases,
    "tickets.json": ticket_cases,
    "capsules.json": capsule_cases,
    "trust.json": trust_cases,
}


def render(cases: Sequence[Case] | Case) -> str:
    return json.dumps(cases, indent=1, ensure_ascii=True) + "\n"


def main() -> None:
    """Write every file."""
    for name, cases in FILES.items():
        (HERE / name).write_text(render(cases()), encoding="utf-8")


if __name__ == "__main__":
    main()
