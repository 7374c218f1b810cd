"""Do two peers get from two assist answers what a handshake needs?

Noise XK by a library of its own, ML-KEM and signatures by another; what they are given
comes over HTTP from a running service. The code between the peers is docs/assist.md's.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from noise.connection import Keypair, NoiseConnection

from chalicelib.assist import pq_keys
from chalicelib.call import Call
from tests.support.circle import World, world
from tests.support.local import ROOT, Server, running

NAME = b"Noise_XK_25519_ChaChaPoly_BLAKE2s"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("peers"), assist_open="allow") as made:
        yield made


@pytest.fixture
def answers(server: Server) -> list[dict[str, Any]]:
    """What Ann and Bob are told, each by a call of their own."""
    return [server.call("POST", "/api/p2p/assist", b"{}").json() for _ in range(2)]


def peer(told: dict[str, Any], *, remote_hex: str = "") -> Any:
    """A peer with its seed as static key; the one who begins knows the other's public key."""
    noise = NoiseConnection.from_name(NAME)
    noise.set_prologue(bytes.fromhex(told["prologue_hex"]))
    noise.set_keypair_from_private_bytes(Keypair.STATIC, bytes.fromhex(told["device_seed_hex"]))
    if remote_hex:
        noise.set_as_initiator()
        noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, bytes.fromhex(remote_hex))
    else:
        noise.set_as_responder()
    noise.start_handshake()
    return noise


def shake_hands(ann: Any, bob: Any) -> None:
    bob.read_message(ann.write_message())
    ann.read_message(bob.write_message())
    bob.read_message(ann.write_message())


def test_two_peers_complete_a_noise_handshake(answers: list[dict[str, Any]]) -> None:
    mine, theirs = (answer["noise"] for answer in answers)
    assert mine["pattern"] == theirs["pattern"] == "XK"
    ann = peer(mine, remote_hex=theirs["static_public_hex"])
    bob = peer(theirs)
    shake_hands(ann, bob)
    assert ann.handshake_finished
    assert bob.handshake_finished
    assert ann.get_handshake_hash() == bob.get_handshake_hash()
    assert bob.decrypt(ann.encrypt(b"hello, peer")) == b"hello, peer"
    assert ann.decrypt(bob.encrypt(b"hello back")) == b"hello back"


def test_a_stranger_cannot_answer_for_bob(answers: list[dict[str, Any]], server: Server) -> None:
    mine, theirs = (answer["noise"] for answer in answers)
    ann = peer(mine, remote_hex=theirs["static_public_hex"])
    stranger = peer(server.call("GET", "/api/p2p/assist").json()["noise"])
    with pytest.raises(InvalidTag):
        stranger.read_message(ann.write_message())


def test_another_prologue_does_not_pass(answers: list[dict[str, Any]]) -> None:
    mine, theirs = (answer["noise"] for answer in answers)
    ann = peer(mine, remote_hex=theirs["static_public_hex"])
    bob = peer(theirs | {"prologue_hex": b"another".hex()})
    with pytest.raises(InvalidTag):
        bob.read_message(ann.write_message())


# --- post-quantum: the worked example of docs/assist.md ------------------------------------


def example(number: int) -> str:
    """One of the Python blocks of docs/assist.md."""
    text = (Path(ROOT) / "docs" / "assist.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    return blocks[number]


def advised(w: World) -> dict[str, Any]:
    reply = w.reply(Call("POST", "/api/p2p/assist", body=b"{}", clock=w.clock))
    told: dict[str, Any] = json.loads(reply.body)
    return told


def test_the_noise_example_of_the_docs_runs(answers: list[dict[str, Any]]) -> None:
    names: dict[str, Any] = {"mine": answers[0], "theirs": answers[1]}
    exec(compile(example(0), "docs/assist.md", "exec"), names)  # noqa: S102
    assert names["heard"] == b"hello, peer"


def test_the_post_quantum_example_of_the_docs_encapsulates_and_verifies() -> None:
    w = world(assist_open="allow")
    told = [advised(w), advised(w)]
    sealed = []
    for answer in told:  # two peers, each from an answer of its own
        names: dict[str, Any] = {"advice": answer}
        exec(compile(example(1), "docs/assist.md", "exec"), names)  # noqa: S102
        opened = pq_keys.decapsulate(
            w.service, answer["pq"]["key_id"], names["ciphertext"], now=w.now
        )
        assert opened == names["shared_secret"]
        sealed.append(opened)
    assert sealed[0] != sealed[1]


def test_the_operators_program_of_the_docs_opens_what_was_sent_to_a_running_service(
    server: Server, answers: list[dict[str, Any]]
) -> None:
    names: dict[str, Any] = {"advice": answers[0], "data": server.directory}
    exec(compile(example(1), "docs/assist.md", "exec"), names)  # noqa: S102
    exec(compile(example(2), "docs/assist.md", "exec"), names)  # noqa: S102
    names["stores"].close()

    assert names["opened"] == names["shared_secret"]


def test_the_post_quantum_example_notices_a_changed_key() -> None:
    answer = advised(world(assist_open="allow"))
    kem = answer["pq"]["kem_public_hex"]
    answer["pq"]["kem_public_hex"] = ("0" if kem[0] != "0" else "1") + kem[1:]
    with pytest.raises(InvalidSignature):
        exec(compile(example(1), "docs/assist.md", "exec"), {"advice": answer})  # noqa: S102


def test_the_running_services_keys_verify(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        names: dict[str, Any] = {"advice": answer}
        exec(compile(example(1), "docs/assist.md", "exec"), names)  # noqa: S102
        assert len(names["shared_secret"]) == 32
    identities = {answer["pq"]["identity_public_hex"] for answer in answers}
    assert len(identities) == 1, "it may be pinned"
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(identities.pop()))
