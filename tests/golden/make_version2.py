"""Write the golden file of version 2: `python -m tests.golden.make_version2`.

A case for every row of docs/protocol2.md (Every byte), good and bad. All keys, nonces and
times are fixed. Bytes are in hex. A case's subject, the word before the colon, says which
check it is for; whoever implements the protocol writes these checks and must come to the
same answers. Signatures in cases are to be verified, not compared: some libraries sign with noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from capsules import canonical
from capsules.errors import Reason, Refused
from capsules.keys import SigningKey, VerifyKey
from muster import (
    boxes,
    calls,
    certificates,
    frames,
    invites,
    keys,
    presences,
    records,
    rekeys,
    seals,
    signals,
)
from muster.base64url import encode
from muster.calls import Answer, Authorization, Credential, Proof
from muster.errors import BadValue
from muster.seals import Said
from tests.golden.make_capsules import render

HERE = Path(__file__).parent
FILE = HERE / "version2.json"

Case = dict[str, Any]
Subject = Callable[[Mapping[str, Any]], Any]

AT = 1_790_000_000_000
DAY = 86_400_000

FIELD = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493


def seed(name: str) -> bytes:
    return hashlib.sha256(f"muster2 golden {name}".encode()).digest()


def nonce(name: str) -> bytes:
    return seed(f"nonce {name}")[:12]


FOUNDER = SigningKey(seed("founder"))
CIRCLE = keys.circle_id(FOUNDER.verify_key)
EPOCH = keys.Epoch(CIRCLE, 0, seed("epoch 0"))
NEXT = keys.Epoch(CIRCLE, 1, seed("epoch 1"))
OTHER_CIRCLE = keys.Epoch(
    keys.circle_id(SigningKey(seed("other founder")).verify_key), 0, seed("epoch 0")
)
ADA, BOB = keys.Member(CIRCLE, seed("ada")), keys.Member(CIRCLE, seed("bob"))
NODE, BOB_NODE = ADA.node(EPOCH), BOB.node(EPOCH)
SERVICE, OTHER_SERVICE = SigningKey(seed("service")), SigningKey(seed("other service"))
SERVICE_ID = keys.service_id(SERVICE.verify_key)
OTHER_SERVICE_ID = keys.service_id(OTHER_SERVICE.verify_key)
CODE = "sixteen letters!"
BODY = b'{"want":{"messages":200}}'
CREDENTIAL = Credential.make(EPOCH.circle_key, NODE.public, expires_ms=AT + 7 * DAY)
PROOF = Proof.make(NODE.key, CREDENTIAL, call=calls.SYNC, service=SERVICE_ID, body=BODY, at_ms=AT)
CHANNEL = seed("channel")[:16]
SESSION = seed("session")[:16]


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def flip(raw: bytes, at: int = -1) -> bytes:
    """Change one bit."""
    changed = bytearray(raw)
    changed[at] ^= 1
    return bytes(changed)


# --- the checks: input in, output out, or a reason ------------------------------------------


def epoch_of(given: Mapping[str, Any]) -> keys.Epoch:
    circle = bytes.fromhex(given["circle"])
    return keys.Epoch(circle, given["epoch"], bytes.fromhex(given["secret"]))


def check_epoch(given: Mapping[str, Any]) -> Any:
    found = epoch_of(given)
    return {
        "circle_public": found.circle_public.raw.hex(),
        "hint": found.hint.hex(),
        "seal_presence": found.seal_key("presence").hex(),
        "seal_signal": found.seal_key("signal").hex(),
        "seal_record": found.seal_key("record").hex(),
    }


def check_member(given: Mapping[str, Any]) -> Any:
    epoch = epoch_of(given)
    member = keys.Member(epoch.circle_id, bytes.fromhex(given["member_secret"]))
    node = member.node(epoch)
    return {
        "member_public": member.public.raw.hex(),
        "member_id": member.id.hex(),
        "box_public": member.box_public.hex(),
        "node_public": node.public.raw.hex(),
        "node_id": node.id.hex(),
    }


def check_name(given: Mapping[str, Any]) -> Any:
    return keys.identify(given["what"], bytes.fromhex(given["key"])).hex()


def check_ed25519(given: Mapping[str, Any]) -> Any:
    key = VerifyKey(bytes.fromhex(given["public"]))
    if not key.verify(bytes.fromhex(given["message"]), bytes.fromhex(given["signature"])):
        raise Refused(Reason.SIGNATURE_INVALID, "the signature is not the key's")
    return True


def check_x25519(given: Mapping[str, Any]) -> Any:
    return keys.agree(bytes.fromhex(given["private"]), bytes.fromhex(given["public"])).hex()


def check_credential(given: Mapping[str, Any]) -> Any:
    found = Credential.from_bytes(bytes.fromhex(given["credential"]))
    found.check(now_ms=given["now_ms"])
    return {"hint": found.hint.hex(), "node_id": found.node_id.hex(), "until_ms": found.expires_ms}


def check_call(given: Mapping[str, Any]) -> Any:
    header = Authorization.parse(given["authorization"])
    header.proof.check_time(now_ms=given["now_ms"])
    credential = Credential.from_bytes(header.credential)
    service = bytes.fromhex(given["service"])
    code = given.get("code")
    if code is not None and header.tag != calls.access_tag(code, service, credential):
        raise Refused(Reason.KEY_MISMATCH, "the access tag is made with another code")
    credential.check(now_ms=given["now_ms"])
    body = bytes.fromhex(given["body"])
    header.proof.check(credential, call=given["call"], service=service, body=body)
    return {"hint": credential.hint.hex(), "node_id": credential.node_id.hex()}


def check_answer(given: Mapping[str, Any]) -> Any:
    found = Answer.parse(given["answer"])
    found.check(
        bytes.fromhex(given["service"]),
        bytes.fromhex(given["proof"]),
        status=given["status"],
        body=bytes.fromhex(given["body"]),
    )
    return found.at_ms


def check_presence(given: Mapping[str, Any]) -> Any:
    node, sealed = bytes.fromhex(given["node_id"]), bytes.fromhex(given["sealed"])
    found = presences.unseal(epoch_of(given), node, sealed)
    return {
        "name": found.name,
        "member_id": found.member_id.hex(),
        "box": found.box.hex(),
        "endpoints": [list(endpoint) for endpoint in found.endpoints],
        "abilities": list(found.abilities),
        "at_ms": found.at_ms,
    }


def check_signal(given: Mapping[str, Any]) -> Any:
    node, to = bytes.fromhex(given["from"]), bytes.fromhex(given["to"])
    found = signals.unseal(epoch_of(given), node, to, bytes.fromhex(given["sealed"]))
    found.check_time(now_ms=given["now_ms"])
    return {
        "session": found.session.hex(),
        "kind": found.kind,
        "body": found.body,
        "at_ms": found.at_ms,
    }


def check_record(given: Mapping[str, Any]) -> Any:
    epoch, sealed = epoch_of(given), bytes.fromhex(given["sealed"])
    said = records.unseal(epoch, sealed)
    found = records.Record.from_said(epoch.circle_id, said)
    return {
        "sealed_id": seals.sealed_id(sealed).hex(),
        "hash": records.record_hash(said.text).hex(),
        "author_id": found.author_id.hex(),
        "epoch": found.epoch,
        "seq": found.seq,
        "prev": found.prev.hex() if found.prev else None,
        "channel": found.channel.hex(),
        "kind": found.kind,
        "body": found.body,
        "at_ms": found.at_ms,
    }


def check_rekey(given: Mapping[str, Any]) -> Any:
    epoch = epoch_of(given)
    founder = VerifyKey(bytes.fromhex(given["founder"]))
    said = records.unseal(epoch, bytes.fromhex(given["sealed"]))
    found = rekeys.Rekey.from_said(founder, said)
    member = keys.Member(epoch.circle_id, bytes.fromhex(given["member_secret"]))
    following = found.follow(member)
    return {
        "epoch": found.epoch,
        "secret": following.secret.hex() if following else None,
        "order": rekeys.order(said).hex(),
        "out": {name.hex(): [last.seq, last.hash.hex()] for name, last in found.out.items()},
    }


def check_box(given: Mapping[str, Any]) -> Any:
    bound = bytes.fromhex(given["bound"])
    return boxes.unbox(bytes.fromhex(given["box"]), bytes.fromhex(given["private"]), bound).hex()


def check_passphrase(given: Mapping[str, Any]) -> Any:
    return boxes.passphrase_key(given["passphrase"], bytes.fromhex(given["salt"])).hex()


def check_body(given: Mapping[str, Any]) -> Any:
    bound = boxes.for_body(
        bytes.fromhex(given["circle"]),
        bytes.fromhex(given["channel"]),
        given["number"],
        bytes.fromhex(given["author"]),
        given["seq"],
    )
    return boxes.open_body(
        bytes.fromhex(given["key"]), bytes.fromhex(given["closed"]), bound
    ).decode()


def check_relay(given: Mapping[str, Any]) -> Any:
    pair = frames.RelayKeys.of(
        bytes.fromhex(given["private"]),
        bytes.fromhex(given["public"]),
        opener_text=bytes.fromhex(given["opener_text"]),
        other_text=bytes.fromhex(given["other_text"]),
    )
    counter, frame = frames.open_closed(pair.opener, bytes.fromhex(given["payload"]))
    return {"counter": counter, "frame": frame.hex()}


def check_frame(given: Mapping[str, Any]) -> Any:
    found = frames.LinkFrame.from_bytes(bytes.fromhex(given["frame"]))
    return {
        "kind": int(found.kind),
        "number": found.number,
        "taken": found.taken,
        "payload": found.payload.hex(),
    }


def check_certificate(given: Mapping[str, Any]) -> Any:
    return certificates.peer_node(bytes.fromhex(given["der"])).hex()


def check_invite(given: Mapping[str, Any]) -> Any:
    try:
        found = invites.Invite.parse(given["text"])
    except BadValue as error:
        raise Refused(Reason.MALFORMED, error.message) from None
    return {
        "circle_id": found.epoch.circle_id.hex(),
        "hint": found.epoch.hint.hex(),
        "epoch": found.epoch.number,
        "services": [[one.url, one.id.hex(), one.code] for one in found.services],
        "peers": list(found.peers),
        "name": found.name,
        "at_ms": found.at_ms,
    }


SUBJECTS: dict[str, Subject] = {
    "epoch": check_epoch,
    "member": check_member,
    "name": check_name,
    "ed25519": check_ed25519,
    "x25519": check_x25519,
    "credential": check_credential,
    "call": check_call,
    "answer": check_answer,
    "presence": check_presence,
    "signal": check_signal,
    "record": check_record,
    "rekey": check_rekey,
    "box": check_box,
    "passphrase": check_passphrase,
    "body": check_body,
    "relay": check_relay,
    "frame": check_frame,
    "certificate": check_certificate,
    "invite": check_invite,
}


# --- the cases ---------------------------------------------------------------------------------


def epoch_input(epoch: keys.Epoch = EPOCH) -> dict[str, Any]:
    return {
        "circle": epoch.circle_id.hex(),
        "epoch": epoch.number,
        "secret": epoch.secret.hex(),
    }


def key_cases() -> dict[str, dict[str, Any]]:
    return {
        "epoch: the first": epoch_input(),
        "epoch: the second": epoch_input(NEXT),
        "epoch: the same secret in another circle": epoch_input(OTHER_CIRCLE),
        "epoch: a number of 32 bits": {**epoch_input(), "epoch": 2**32 - 1},
        "member: in the first epoch": {**epoch_input(), "member_secret": ADA.secret.hex()},
        "member: in the second epoch": {**epoch_input(NEXT), "member_secret": ADA.secret.hex()},
        "name: of a circle": {"what": "circle", "key": FOUNDER.verify_key.raw.hex()},
        "name: of a service": {"what": "service", "key": SERVICE.verify_key.raw.hex()},
    }


SMALL_ORDER = {
    "0": (0).to_bytes(32, "little"),
    "1": (1).to_bytes(32, "little"),
    "p - 1": (FIELD - 1).to_bytes(32, "little"),
    "order eight": bytes.fromhex(
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
    ),
    "order eight, the other": bytes.fromhex(
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"
    ),
}


def ed25519_cases() -> dict[str, dict[str, Any]]:
    message, public = b"hello", FOUNDER.verify_key.raw
    good = FOUNDER.sign(message)
    scalar = int.from_bytes(good[32:], "little")
    one = (1).to_bytes(32, "little")

    def given(public: bytes, signature: bytes, message: bytes = message) -> dict[str, Any]:
        return {"public": public.hex(), "signature": signature.hex(), "message": message.hex()}

    cases = {
        "ed25519: a good signature": given(public, good),
        "ed25519: of nothing": given(public, FOUNDER.sign(b""), b""),
        "ed25519: another message": given(public, good, b"hallo"),
        "ed25519: another key": given(SERVICE.verify_key.raw, good),
        "ed25519: R changed": given(public, flip(good, 0)),
        "ed25519: S changed": given(public, flip(good, 32)),
        "ed25519: S plus the order": given(
            public, good[:32] + (scalar + ORDER).to_bytes(32, "little")
        ),
        "ed25519: S is the order": given(public, good[:32] + ORDER.to_bytes(32, "little")),
        "ed25519: a key that is no point": given(b"\2" + bytes(31), good),
        "ed25519: a key beyond the field": given(
            (FIELD + 3).to_bytes(32, "little"), one + bytes(32)
        ),
        "ed25519: R beyond the field": given(
            public, (FIELD + 1).to_bytes(32, "little") + good[32:]
        ),
        "ed25519: 63 bytes": given(public, good[:-1]),
        "ed25519: 65 bytes": given(public, good + b"\0"),
    }
    for name, point in SMALL_ORDER.items():
        signed = point[:31] + bytes([point[31] | 128])
        cases[f"ed25519: a key of small order, {name}"] = given(point, one + bytes(32))
        cases[f"ed25519: a key of small order, {name}, the sign set"] = given(
            signed, one + bytes(32)
        )
        cases[f"ed25519: R of small order, {name}"] = given(public, point + good[32:])
    for name, value in {"p": FIELD, "p + 1": FIELD + 1}.items():
        point = value.to_bytes(32, "little")
        cases[f"ed25519: a key of small order, spelled {name}"] = given(point, one + bytes(32))
    return cases


def x25519_cases() -> dict[str, dict[str, Any]]:
    private = seed("x25519")
    weak = {
        "nothing": bytes(32),
        "one": b"\1" + bytes(31),
        "order eight": bytes.fromhex(
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"
        ),
        "p": FIELD.to_bytes(32, "little"),
        "p - 1": (FIELD - 1).to_bytes(32, "little"),
    }
    return {
        "x25519: a shared secret": {"private": private.hex(), "public": ADA.box_public.hex()},
        "x25519: the high bit does not count": {
            "private": private.hex(),
            "public": (ADA.box_public[:31] + bytes([ADA.box_public[31] | 128])).hex(),
        },
        **{
            f"x25519: a public key that leads to zero, {name}": {
                "private": private.hex(),
                "public": public.hex(),
            }
            for name, public in weak.items()
        },
    }


def credential_cases() -> dict[str, dict[str, Any]]:
    raw = CREDENTIAL.raw
    stranger = SigningKey(seed("stranger"))
    long = Credential.make(EPOCH.circle_key, NODE.public, expires_ms=AT + 8 * DAY + 120_001)
    longest = Credential.make(EPOCH.circle_key, NODE.public, expires_ms=AT + 8 * DAY + 120_000)
    beyond = raw[:64] + u64(2**53) + raw[72:]
    unlabelled = stranger.sign(NODE.public.raw + u64(AT + DAY))
    table = {
        "for a week": (raw, AT),
        "in its last moment": (raw, AT + 7 * DAY - 1),
        "expired": (raw, AT + 7 * DAY),
        "for eight days, clocks two minutes apart": (longest.raw, AT),
        "for longer": (long.raw, AT),
        "of another circle's key": (stranger.verify_key.raw + raw[32:], AT),
        "for another node": (raw[:32] + BOB_NODE.public.raw + raw[64:], AT),
        "until later than was signed": (raw[:64] + u64(AT + 8 * DAY) + raw[72:], AT),
        "without its label": (
            stranger.verify_key.raw + NODE.public.raw + u64(AT + DAY) + unlabelled,
            AT,
        ),
        "a time beyond 2^53": (beyond, AT),
        "a byte short": (raw[:-1], AT),
        "a byte long": (raw + b"\0", AT),
        "nothing": (b"", AT),
    }
    return {
        f"credential: {name}": {"credential": data.hex(), "now_ms": now}
        for name, (data, now) in table.items()
    }


def call_cases() -> dict[str, dict[str, Any]]:
    tag = calls.access_tag(CODE, SERVICE_ID, CREDENTIAL)
    plain = Authorization(CREDENTIAL.raw, PROOF)
    bob = Credential.make(EPOCH.circle_key, BOB_NODE.public, expires_ms=AT + DAY)
    again = Credential.make(EPOCH.circle_key, NODE.public, expires_ms=AT + DAY)
    parts = plain.text.split(".")

    def given(header: str, **others: Any) -> dict[str, Any]:
        usual = {
            "authorization": header,
            "call": calls.SYNC,
            "service": SERVICE_ID.hex(),
            "body": BODY.hex(),
            "now_ms": AT,
        }
        return {**usual, **others}

    def tagged(tag: bytes, code: str = CODE) -> dict[str, Any]:
        return given(Authorization(CREDENTIAL.raw, PROOF, tag).header, code=code)

    return {
        "call: a sync": given(plain.header),
        "call: the scheme in small letters": given("muster2 " + plain.text),
        "call: two minutes late": given(plain.header, now_ms=AT + 120_000),
        "call: a moment later": given(plain.header, now_ms=AT + 120_001),
        "call: two minutes early": given(plain.header, now_ms=AT - 120_000),
        "call: a moment earlier": given(plain.header, now_ms=AT - 120_001),
        "call: with an access tag": tagged(tag),
        "call: with the tag of another code": tagged(tag, "another sixteen!"),
        "call: with the tag for another service": tagged(
            calls.access_tag(CODE, OTHER_SERVICE_ID, CREDENTIAL)
        ),
        "call: with the tag of another node": tagged(calls.access_tag(CODE, SERVICE_ID, bob)),
        "call: without the tag that is asked for": given(plain.header, code=CODE),
        "call: at another service": given(plain.header, service=OTHER_SERVICE_ID.hex()),
        "call: by another name": given(plain.header, call=calls.INFO),
        "call: as a frame": given(plain.header, call=calls.FRAME),
        "call: another body": given(plain.header, body=flip(BODY).hex()),
        "call: no body": given(plain.header, body=""),
        "call: another time": given(
            Authorization(CREDENTIAL.raw, Proof(AT + 1, PROOF.signature)).header
        ),
        "call: another node's credential": given(Authorization(bob.raw, PROOF).header),
        "call: a newer credential of the same node": given(Authorization(again.raw, PROOF).header),
        "call: another scheme": given("Bearer " + plain.text),
        "call: no scheme": given(plain.text),
        "call: no proof": given("Muster2 " + parts[0]),
        "call: four parts": given(f"{plain.header}.{encode(tag)}.{encode(tag)}"),
        "call: a padded credential": given(f"Muster2 {parts[0]}==.{parts[1]}"),
        "call: junk in the proof": given(f"Muster2 {parts[0]}.{parts[1][:-1]}*"),
        "call: standard base64": given("Muster2 " + plain.text.replace("-", "+").replace("_", "/")),
        "call: a credential in another spelling": given(
            f"Muster2 {parts[0][:-1]}{other_spelling(parts[0])}.{parts[1]}"
        ),
        "call: a proof a byte short": given(f"Muster2 {parts[0]}.{encode(PROOF.raw[:-1])}"),
        "call: a tag of 15 bytes": given(f"{plain.header}.{encode(tag[:-1])}"),
        "call: an empty tag": given(plain.header + "."),
    }


def other_spelling(text: str) -> str:
    """Return a last letter that decodes to the same bytes, where there is one."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return alphabet[alphabet.index(text[-1]) ^ 1]


def answer_cases() -> dict[str, dict[str, Any]]:
    body = b'{"ok":true}'

    def signed(service: SigningKey = SERVICE, what: bytes = b"") -> Answer:
        lines = calls.answer_lines(PROOF.raw, status=200, body=body, at_ms=AT + 5)
        return Answer(service.verify_key, AT + 5, service.sign(what or lines))

    def given(answer: bytes, **others: Any) -> dict[str, Any]:
        usual = {
            "answer": encode(answer),
            "service": SERVICE_ID.hex(),
            "proof": PROOF.raw.hex(),
            "status": 200,
            "body": body.hex(),
        }
        return {**usual, **others}

    good = signed().raw
    later = good[:32] + u64(AT + 6) + good[40:]
    return {
        "answer: to a call": given(good),
        "answer: to another call": given(good, proof=flip(PROOF.raw).hex()),
        "answer: of another status": given(good, status=201),
        "answer: another body": given(good, body=flip(body).hex()),
        "answer: at another time": given(later),
        "answer: of another service": given(signed(OTHER_SERVICE).raw),
        "answer: expected of another service": given(good, service=OTHER_SERVICE_ID.hex()),
        "answer: without its label": given(signed(what=b"answer").raw),
        "answer: a byte short": given(good[:-1]),
        "answer: nothing": given(b""),
        "answer: padded": {**given(good), "answer": encode(good) + "="},
    }


def presence_cases() -> dict[str, dict[str, Any]]:
    usual = presences.Presence.of(
        NODE,
        name="Ada",
        at_ms=AT,
        endpoints=(presences.Endpoint("tcp", "192.0.2.7", 4123),),
        abilities=("relay",),
    )
    long = presences.Presence.of(
        NODE,
        name="Ada " + "x" * 60,
        at_ms=AT,
        endpoints=tuple(
            presences.Endpoint("tcp", f"2001:db8::{n}:1234:5678", 4000 + n) for n in range(4)
        ),
    )
    sealed = presences.seal(NODE, usual, nonce=nonce("presence"))
    members = canonical.loads(usual.said(NODE).text)

    def given(sealed: bytes, node: bytes = NODE.id, epoch: keys.Epoch = EPOCH) -> dict[str, Any]:
        return {**epoch_input(epoch), "node_id": node.hex(), "sealed": sealed.hex()}

    def made(
        changes: Mapping[str, Any],
        *,
        signer: SigningKey = NODE.key,
        what: str = "presence",
        spelled: Callable[[bytes], bytes] = bytes,
    ) -> dict[str, Any]:
        text = spelled(canonical.strict(without_none({**members, **changes})))
        said = Said(text, signer.sign(keys.label(what) + text))
        bound = seals.for_presence(EPOCH.hint, NODE.id)
        key = EPOCH.seal_key("presence")
        return given(seals.seal(key, said, bound, nonce=nonce("made"), size=640))

    elsewhere = NODE.member.key.sign(keys.bond_text(NEXT.hint, NODE.public.raw, ADA.box_public))
    junk = flipped_fill(EPOCH.seal_key("presence"), sealed, seals.for_presence(EPOCH.hint, NODE.id))
    return {
        "presence: of Ada": given(sealed),
        "presence: a long one": given(presences.seal(NODE, long, nonce=nonce("long"))),
        "presence: a member that is unknown": made({"mood": "good"}),
        "presence: an empty name": made({"name": ""}),
        "presence: listed for another node": given(sealed, BOB_NODE.id),
        "presence: in another circle": given(sealed, epoch=OTHER_CIRCLE),
        "presence: in another epoch": given(sealed, epoch=NEXT),
        "presence: a bit changed": given(flip(sealed, 100)),
        "presence: cut": given(sealed[:-1]),
        "presence: of 896 bytes": given(sealed + bytes(256)),
        "presence: not filled with zeros": given(junk),
        "presence: signed by another node": made({}, signer=BOB_NODE.key),
        "presence: signed as a signal": made({}, what="signal"),
        "presence: says it is a signal": made({"is": "signal"}),
        "presence: says another circle": made({"circle": OTHER_CIRCLE.circle_id.hex()}),
        "presence: says another node, which signed": made(
            {"node": encode(BOB_NODE.public.raw)}, signer=BOB_NODE.key
        ),
        "presence: another member": made({"member": encode(BOB.public.raw)}),
        "presence: another box": made({"box": encode(BOB.box_public)}),
        "presence: a bond of another epoch": made({"bond": encode(elsewhere)}),
        "presence: another spelling of the text": made(
            {}, spelled=lambda text: text.replace(b",", b", ")
        ),
        "presence: a member twice": made(
            {}, spelled=lambda text: text.replace(b"{", b'{"name":"Eve",', 1)
        ),
        "presence: not JSON": made({}, spelled=lambda text: text[:-1]),
        "presence: no name": made({"name": None}),
        "presence: a name of 65 bytes": made({"name": "x" * 65}),
        "presence: nine endpoints": made({"endpoints": [["tcp", "h", 1]] * 9}),
        "presence: a port of 0": made({"endpoints": [["tcp", "192.0.2.7", 0]]}),
        "presence: a port of 65536": made({"endpoints": [["tcp", "192.0.2.7", 65536]]}),
        "presence: an endpoint of two": made({"endpoints": [["tcp", "192.0.2.7"]]}),
        "presence: an ability in capitals": made({"abilities": ["Relay"]}),
        "presence: a time as text": made({"at_ms": "now"}),
        "presence: a time beyond 2^53": made(
            {}, spelled=lambda text: text.replace(str(AT).encode(), str(2**53).encode())
        ),
        "presence: a key in another spelling": made(
            {"box": members["box"][:-1] + other_spelling(members["box"])}
        ),
    }


def without_none(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def flipped_fill(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    """Seal again what a seal holds, with the last byte of its filling changed."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    at = sealed[:12]
    return at + AESGCM(key).encrypt(at, flip(AESGCM(key).decrypt(at, sealed[12:], bound)), bound)


def signal_cases() -> dict[str, dict[str, Any]]:
    usual = signals.Signal(
        NODE.public,
        BOB_NODE.id,
        SESSION,
        "connect",
        AT,
        {"description": {"type": "offer", "sdp": "v=0\r\n"}, "key": encode(seed("ephemeral"))},
    )
    sealed = signals.seal(NODE, usual, nonce=nonce("signal"))
    members = canonical.loads(usual.said(NODE).text)

    def given(sealed: bytes, **others: Any) -> dict[str, Any]:
        usual = {
            **epoch_input(),
            "from": NODE.id.hex(),
            "to": BOB_NODE.id.hex(),
            "sealed": sealed.hex(),
            "now_ms": AT,
        }
        return {**usual, **others}

    def made(changes: Mapping[str, Any], *, signer: SigningKey = NODE.key) -> dict[str, Any]:
        text = canonical.strict(without_none({**members, **changes}))
        said = Said(text, signer.sign(keys.label("signal") + text))
        bound = seals.for_signal(EPOCH.hint, NODE.id, BOB_NODE.id)
        return given(seals.seal(EPOCH.seal_key("signal"), said, bound, nonce=nonce("made")))

    return {
        "signal: a connect": given(sealed),
        "signal: ten minutes late": given(sealed, now_ms=AT + 600_000),
        "signal: a moment later": given(sealed, now_ms=AT + 600_001),
        "signal: a moment too early": given(sealed, now_ms=AT - 600_001),
        "signal: from another": given(sealed, **{"from": BOB_NODE.id.hex()}),
        "signal: to another": given(sealed, to=NODE.id.hex()),
        "signal: back to its sender": given(
            sealed, **{"from": BOB_NODE.id.hex(), "to": NODE.id.hex()}
        ),
        "signal: a bit changed": given(flip(sealed, 200)),
        "signal: cut": given(sealed[:-256]),
        "signal: not a multiple of 256": given(sealed + b"\0"),
        "signal: signed by another node": made({}, signer=BOB_NODE.key),
        "signal: of another epoch": made({"epoch": 1}),
        "signal: says another receiver": made({"to": NODE.id.hex()}),
        "signal: says another sender, who signed": made(
            {"node": encode(BOB_NODE.public.raw)}, signer=BOB_NODE.key
        ),
        "signal: a session in capitals": made({"session": SESSION.hex().upper()}),
        "signal: no kind": made({"kind": None}),
        "signal: a body that is text": made({"body": "hello"}),
    }


def first_record() -> records.Record:
    return records.Record(
        CIRCLE, 0, ADA.public, 1, None, AT, records.GENERAL, "text", {"text": "dinner at eight?"}
    )


def record_cases() -> dict[str, dict[str, Any]]:
    first = first_record()
    said = first.said(ADA)
    second = records.Record(
        CIRCLE,
        0,
        ADA.public,
        2,
        records.record_hash(said.text),
        AT + 1000,
        CHANNEL,
        "text",
        {"text": '\u20ac \U0001f35c\n"\\'},
    )
    sealed = records.seal(EPOCH, said, nonce=nonce("record"))
    members = canonical.loads(said.text)

    def given(sealed: bytes, epoch: keys.Epoch = EPOCH) -> dict[str, Any]:
        return {**epoch_input(epoch), "sealed": sealed.hex()}

    def made(
        changes: Mapping[str, Any], *, signer: SigningKey = ADA.key, what: str = "record"
    ) -> dict[str, Any]:
        text = canonical.strict({**members, **changes})
        signed = Said(text, signer.sign(keys.label(what) + text))
        return given(records.seal(EPOCH, signed, nonce=nonce("made")))

    return {
        "record: the first of a chain": given(sealed),
        "record: the second": given(records.seal(EPOCH, second.said(ADA), nonce=nonce("second"))),
        "record: sealed again, the same record": given(
            records.seal(EPOCH, said, nonce=nonce("again"))
        ),
        "record: said in an earlier epoch, sealed in this": given(
            records.seal(NEXT, said, nonce=nonce("later")), NEXT
        ),
        "record: in another circle": given(sealed, OTHER_CIRCLE),
        "record: a bit changed": given(flip(sealed, 80)),
        "record: cut": given(sealed[:256]),
        "record: not a multiple of 256": given(sealed + b"\0"),
        "record: shorter than a seal": given(b""),
        "record: signed by another member": made({}, signer=BOB.key),
        "record: signed by the node": made({}, signer=NODE.key),
        "record: signed as a rekey": made({}, what="rekey"),
        "record: says it is a rekey": made({"is": "rekey"}),
        "record: of another circle": made({"circle": OTHER_CIRCLE.circle_id.hex()}),
        "record: the second follows none": made({"seq": 2}),
        "record: the first follows one": made({"prev": "00" * 32}),
        "record: number 0": made({"seq": 0}),
        "record: number minus one": made({"seq": -1}),
        "record: the hash before it in capitals": made({"seq": 2, "prev": "AB" * 32}),
        "record: a hash of 31 bytes": made({"seq": 2, "prev": "ab" * 31}),
        "record: a channel of 15 bytes": made({"channel": "00" * 15}),
        "record: a kind in capitals": made({"kind": "TEXT"}),
        "record: a body that is a list": made({"body": []}),
    }


def rekey_cases() -> dict[str, dict[str, Any]]:
    def boxed(member: keys.Member, *, epoch: int = 1) -> bytes:
        bound = boxes.for_rekey(CIRCLE, epoch)
        return boxes.box(NEXT.secret, member.box_public, bound, ephemeral=seed("rekey"))

    def made(
        *,
        signer: SigningKey = FOUNDER,
        keep: Mapping[bytes, bytes] | None = None,
        out: Mapping[bytes, rekeys.Last] | None = None,
        epoch: int = 1,
        circle: bytes = CIRCLE,
        member: keys.Member = ADA,
        what: str = "rekey",
    ) -> dict[str, Any]:
        rekey = rekeys.Rekey(
            circle,
            epoch,
            AT,
            {ADA.id: boxed(ADA)} if keep is None else keep,
            {BOB.id: rekeys.Last(3, seed("last"))} if out is None else out,
        )
        text = rekey.said(signer).text
        said = Said(text, signer.sign(keys.label(what) + text))
        return {
            **epoch_input(),
            "founder": FOUNDER.verify_key.raw.hex(),
            "member_secret": member.secret.hex(),
            "sealed": records.seal(EPOCH, said, nonce=nonce("rekey")).hex(),
        }

    return {
        "rekey: for who stays": made(),
        "rekey: for who goes": made(member=BOB),
        "rekey: nobody goes": made(keep={ADA.id: boxed(ADA), BOB.id: boxed(BOB)}, out={}),
        "rekey: by a member": made(signer=ADA.key),
        "rekey: by the circle key": made(signer=EPOCH.circle_key),
        "rekey: signed as a record": made(what="record"),
        "rekey: another circle's": made(circle=OTHER_CIRCLE.circle_id),
        "rekey: to epoch 0": made(epoch=0),
        "rekey: beyond 32 bits": made(epoch=2**32),
        "rekey: a box of another epoch": made(epoch=2),
        "rekey: another member's box": made(keep={ADA.id: boxed(BOB)}),
        "rekey: a box of low order": made(keep={ADA.id: bytes(80)}),
        "rekey: a box a byte short": made(keep={ADA.id: boxed(ADA)[:-1]}),
        "rekey: one both stays and goes": made(out={ADA.id: rekeys.Last(1, seed("last"))}),
        "rekey: a name of 15 bytes": made(keep={ADA.id[:-1]: boxed(ADA)}),
        "rekey: a hash of 31 bytes": made(out={BOB.id: rekeys.Last(1, seed("last")[:-1])}),
    }


def box_cases() -> dict[str, dict[str, Any]]:
    bound = boxes.for_channel(CIRCLE, CHANNEL, 7)
    closed = boxes.box(seed("channel key"), ADA.box_public, bound, ephemeral=seed("box"))

    def given(closed: bytes, private: bytes = ADA.box_key, bound: bytes = bound) -> dict[str, Any]:
        return {"box": closed.hex(), "private": private.hex(), "bound": bound.hex()}

    return {
        "box: a channel key": given(closed),
        "box: for another": given(closed, BOB.box_key),
        "box: another number": given(closed, bound=boxes.for_channel(CIRCLE, CHANNEL, 8)),
        "box: as a rekey": given(closed, bound=boxes.for_rekey(CIRCLE, 7)),
        "box: a bit changed": given(flip(closed)),
        "box: of low order": given(bytes(32) + closed[32:]),
        "box: cut": given(closed[:-1]),
    }


def channel_cases() -> dict[str, dict[str, Any]]:
    key, author = seed("channel key"), ADA.public.raw
    bound = boxes.for_body(CIRCLE, CHANNEL, 7, author, 3)
    closed = boxes.close_body(key, b'{"text":"hush"}', bound, nonce=nonce("body"))

    def given(closed: bytes = closed, **others: Any) -> dict[str, Any]:
        usual = {
            "circle": CIRCLE.hex(),
            "channel": CHANNEL.hex(),
            "number": 7,
            "author": author.hex(),
            "seq": 3,
            "key": key.hex(),
            "closed": closed.hex(),
        }
        return {**usual, **others}

    salt = seed("salt")[:16].hex()
    return {
        "body: of a private channel": given(),
        "body: of another author": given(author=BOB.public.raw.hex()),
        "body: at another place": given(seq=4),
        "body: under another number": given(number=8),
        "body: in another channel": given(channel=SESSION.hex()),
        "body: cut": given(closed[:20]),
        "passphrase: plain": {"passphrase": "correct horse battery staple", "salt": salt},
        "passphrase: composed": {"passphrase": "Z\u00fcrich", "salt": salt},
        "passphrase: decomposed, the same": {"passphrase": "Zu\u0308rich", "salt": salt},
    }


def frame_cases() -> dict[str, dict[str, Any]]:
    ours, theirs = seed("ephemeral"), seed("their ephemeral")
    texts = (b"the opener's connect", b"the other's connect")
    pair = frames.RelayKeys.of(
        ours, keys.x25519_public(theirs), opener_text=texts[0], other_text=texts[1]
    )
    frame = frames.LinkFrame(frames.Kind.DATA, 7, 5, b"hi").raw
    payload = frames.close(pair.opener, 9, frame)

    def given(payload: bytes, **others: Any) -> dict[str, Any]:
        usual = {
            "private": ours.hex(),
            "public": keys.x25519_public(theirs).hex(),
            "opener_text": texts[0].hex(),
            "other_text": texts[1].hex(),
            "payload": payload.hex(),
        }
        return {**usual, **others}

    return {
        "relay: what the opener sends": given(payload),
        "relay: seen from the other side": given(
            payload, private=theirs.hex(), public=keys.x25519_public(ours).hex()
        ),
        "relay: what the other sends is under another key": given(
            frames.close(pair.other, 9, frame)
        ),
        "relay: another session": given(payload, other_text=texts[0].hex()),
        "relay: another counter": given(u64(10) + payload[8:]),
        "relay: a bit changed": given(flip(payload)),
        "relay: too short": given(payload[:32]),
        "relay: a key of low order": given(payload, public="00" * 32),
        "frame: data": {"frame": frame.hex()},
        "frame: an empty hello": {"frame": ("00" * 17)},
        "frame: as much as one carries": {"frame": (b"\1" + u64(1) + u64(0) + bytes(16_000)).hex()},
        "frame: a byte more": {"frame": (b"\1" + u64(1) + u64(0) + bytes(16_001)).hex()},
        "frame: of kind 4": {"frame": (b"\4" + u64(1) + u64(0)).hex()},
        "frame: a number beyond 2^53": {"frame": (b"\1" + u64(2**53) + u64(0)).hex()},
        "frame: too short": {"frame": "01" * 16},
    }


def certificate_cases() -> dict[str, dict[str, Any]]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    def der(pem: bytes) -> bytes:
        return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)

    node = der(certificates.issue(NODE, now=AT // 1000, serial=1)[0])
    return {
        "certificate: names a node by its key": {"der": node.hex()},
        "certificate: of the circle, which is no node": {
            "der": der(certificates.anchor(EPOCH)).hex()
        },
        "certificate: cut": {"der": node[:-10].hex()},
        "certificate: none": {"der": ""},
    }


def invite_cases() -> dict[str, dict[str, Any]]:
    service = invites.ServiceAddress("https://muster.example/stage", SERVICE_ID, CODE)
    whole = invites.Invite(
        FOUNDER.verify_key,
        EPOCH,
        (service,),
        ("192.0.2.7:4123", "[2001:db8::1]:4123"),
        AT,
        "Friends",
    )
    bare = invites.Invite(FOUNDER.verify_key, NEXT, (), (), AT)
    body = canonical.loads(decoded(whole.code))

    def made(**changes: Any) -> dict[str, Any]:
        content = without_none({**body, **changes})
        return {"text": invites.PREFIX + encode(canonical.strict(content))}

    return {
        "invite: a code": {"text": whole.code},
        "invite: a link": {"text": whole.link()},
        "invite: spaces around it": {"text": f"  {whole.code}\n"},
        "invite: without services": {"text": bare.code},
        "invite: a member that is unknown": made(color="blue"),
        "invite: no name, no peers": made(name=None, peers=None),
        "invite: of version 3": made(v=3),
        "invite: of version 1": {"text": "felund1." + encode(b'{"v":1}')},
        "invite: cut": {"text": whole.code[:-7]},
        "invite: padded": {"text": whole.code + "="},
        "invite: not an object": {"text": invites.PREFIX + encode(b"[]")},
        "invite: a secret of 31 bytes": made(secret=encode(bytes(31))),
        "invite: no founder": made(circle=None),
        "invite: epoch minus one": made(epoch=-1),
        "invite: a service without its id": made(services=["https://muster.example"]),
        "invite: a service with a short code": made(services=[service.text[:-9]]),
        "invite: a service by ftp": made(services=[f"ftp://h#{SERVICE_ID.hex()}"]),
        "invite: a peer without a port": made(peers=["192.0.2.7"]),
        "invite: nine services": made(services=[service.text] * 9),
        "invite: nothing": {"text": ""},
    }


def decoded(code: str) -> bytes:
    from muster import base64url

    return base64url.decode(code.removeprefix(invites.PREFIX))


def cases() -> list[Case]:
    inputs: dict[str, dict[str, Any]] = {}
    for make in (
        *(key_cases, ed25519_cases, x25519_cases, credential_cases, call_cases, answer_cases),
        *(presence_cases, signal_cases, record_cases, rekey_cases, box_cases, channel_cases),
        *(frame_cases, certificate_cases, invite_cases),
    ):
        inputs |= make()
    return [case(name, given) for name, given in inputs.items()]


def case(name: str, given: dict[str, Any]) -> Case:
    made = {"name": name, "expect": "ok", "input": given}
    try:
        return {**made, "output": SUBJECTS[name.partition(":")[0]](given)}
    except Refused as refused:
        return {**made, "expect": str(refused.reason)}


if __name__ == "__main__":
    FILE.write_text(render(cases()), encoding="utf-8")
