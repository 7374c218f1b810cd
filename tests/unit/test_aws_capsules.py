"""Capsules on AWS: how often the bucket is read, and how much is sent."""

import hashlib

import pytest

from chalicelib.aws.capsules import (
    KEPT_BYTES,
    KEPT_COMMUNITIES,
    KEPT_S,
    TORN_S,
    Capsules,
    KeptCapsules,
)
from chalicelib.aws.files import BURST_BYTES, CALL_BYTES
from chalicelib.call import Call
from chalicelib.community import publisher
from chalicelib.community.shelf import FILES, Shelved
from chalicelib.store import Unavailable
from muster.errors import NotFound, RateLimited
from muster.errors import Unavailable as UnavailableNow
from tests.support.circle import START, World, world
from tests.unit.test_publisher import Shelf, announced, terms

CAPSULE = "/capsules/mainnet/peers.json"


def published(body: bytes) -> dict[str, bytes]:
    """What a publisher writes, as far as it matters here."""
    digest = hashlib.sha256(body).hexdigest()
    return dict(zip(FILES, (body, b"signed", f'{{"sha256": "{digest}"}}'.encode()), strict=True))


class Bucket:
    """A bucket that notes what is read; files that are not here are missing."""

    def __init__(self, **capsules: bytes) -> None:
        self.files: dict[str, bytes] = {}
        self.read_names: list[str] = []
        self.away = False
        for community, body in capsules.items():
            self.publish(community, body)

    def publish(self, community: str, body: bytes) -> None:
        self.files |= {f"{community}/{name}": text for name, text in published(body).items()}

    def read(self, name: str) -> Shelved | None:
        self.read_names.append(name)
        if self.away:
            raise Unavailable("the bucket is away")
        body = self.files.get(name)
        return Shelved(body, '"a tag"') if body is not None else None


class Desk:
    """Capsules of a bucket, and a caller."""

    def __init__(self, bucket: Bucket, here: World | None = None) -> None:
        self.here = here or world(access="open")
        self.capsules = Capsules(self.here.service, bucket.read)

    def get(self, path: str = CAPSULE, *, address: str = "198.51.100.7") -> bytes:
        call = Call("GET", path, source_ip=address, clock=self.here.clock)
        return self.capsules.reply(call).body


# --- what is read -------------------------------------------------------------------


def test_a_capsule_is_read_once_in_a_while_and_its_files_together() -> None:
    bucket, clock = Bucket(mainnet=b"1"), [0.0]
    kept = KeptCapsules(bucket.read, clock=lambda: clock[0])
    found = []
    for second in range(3 * KEPT_S):
        clock[0] = float(second)
        if second == KEPT_S // 2:
            bucket.publish("mainnet", b"2")
        for name, body in published(b"1" if second < KEPT_S else b"2").items():
            file = kept.read(f"mainnet/{name}")
            found.append(file is not None and file.body == body)

    assert all(found)
    assert len(bucket.read_names) == 3 * len(FILES)


def test_what_the_publisher_writes_is_taken_for_whole() -> None:
    here, shelf, names = announced(3), Shelf(), []
    publisher.publish(here.service, shelf, terms(), now=here.now)

    def read(name: str) -> Shelved | None:
        names.append(name)
        return shelf.read(name)

    kept = KeptCapsules(read, clock=lambda: 0.0)
    found = [kept.read(f"mainnet/{name}") for name in FILES * 2]

    assert [file and file.body for file in found] == list(shelf.files.values()) * 2
    assert len(names) == len(FILES)


def test_that_there_is_no_capsule_is_read_once_and_remembered_too() -> None:
    bucket = Bucket()
    kept = KeptCapsules(bucket.read, clock=lambda: 0.0)

    assert [kept.read(f"mainnet/{name}") for name in FILES * 3] == [None] * 9
    assert len(bucket.read_names) == 1


@pytest.mark.parametrize("there", [1, 2])
def test_what_is_just_being_replaced_is_kept_for_a_moment_only(there: int) -> None:
    bucket, clock = Bucket(mainnet=b"1"), [0.0]
    kept = KeptCapsules(bucket.read, clock=lambda: clock[0])
    for name, body in list(published(b"2").items())[:there]:
        bucket.files[f"mainnet/{name}"] = body
    kept.read("mainnet/peers.json")
    bucket.publish("mainnet", b"2")
    clock[0] = TORN_S

    found = [kept.read(f"mainnet/{name}") for name in FILES]
    assert [file and file.body for file in found] == list(published(b"2").values())


def test_what_is_there_of_a_damaged_capsule_is_answered_and_read_again_in_a_moment() -> None:
    bucket, clock = Bucket(mainnet=b"1"), [0.0]
    kept = KeptCapsules(bucket.read, clock=lambda: clock[0])
    removed = bucket.files.pop("mainnet/peers.json")
    assert kept.read("mainnet/peers.json") is None
    assert kept.read("mainnet/peers.json.manifest")
    bucket.files["mainnet/peers.json"] = removed
    for _ in range(9):  # whoever calls, however often
        assert kept.read("mainnet/peers.json") is None
    assert len(bucket.read_names) <= len(FILES)
    clock[0] = TORN_S

    assert kept.read("mainnet/peers.json")


def test_a_capsule_that_is_first_published_is_seen_when_it_is_whole() -> None:
    bucket, clock = Bucket(), [0.0]
    kept = KeptCapsules(bucket.read, clock=lambda: clock[0])
    bucket.files["mainnet/peers.json"] = b"1"
    assert kept.read("mainnet/peers.json") is None
    bucket.publish("mainnet", b"1")
    clock[0] = KEPT_S

    assert kept.read("mainnet/peers.json")


def test_that_the_bucket_is_away_is_not_remembered() -> None:
    bucket = Bucket(mainnet=b"1")
    desk = Desk(bucket)
    bucket.away = True
    with pytest.raises(UnavailableNow):
        desk.get()
    bucket.away = False

    assert desk.get() == b"1"


@pytest.mark.parametrize(
    ("size", "most"), [(0, KEPT_COMMUNITIES), (KEPT_BYTES // 5, 4)], ids=["many", "large"]
)
def test_what_is_kept_is_bounded_and_the_oldest_go_first(size: int, most: int) -> None:
    names = [f"c{number}" for number in range(2 * most)]
    bucket = Bucket(**dict.fromkeys(names, bytes(size)))
    kept = KeptCapsules(bucket.read, clock=lambda: 0.0)
    for name in names:
        kept.read(f"{name}/peers.json")
    bucket.read_names.clear()
    for name in reversed(names):
        kept.read(f"{name}/peers.json")

    assert len(bucket.read_names) == most * len(FILES)
    assert bucket.read_names[0] == f"{names[most - 1]}/{FILES[2]}"


@pytest.mark.parametrize(
    "path", ["/capsules/a/b/peers.json", "/capsules/mainnet/x.json", "/capsules/-a/peers.json"]
)
def test_a_name_of_another_form_never_reaches_the_bucket(path: str) -> None:
    bucket = Bucket(mainnet=b"1")

    with pytest.raises(NotFound):
        Desk(bucket).get(path)
    assert bucket.read_names == []


def test_where_the_service_is_closed_strangers_names_never_reach_the_bucket() -> None:
    bucket = Bucket(friends=b"1", mainnet=b"2")
    desk = Desk(bucket, world(access="closed", community_names="friends"))
    for name in ("mainnet", *(f"c{number}" for number in range(9))):
        with pytest.raises(NotFound):
            desk.get(f"/capsules/{name}/peers.json")

    assert desk.get("/capsules/friends/peers.json") == b"1"
    assert {name.partition("/")[0] for name in bucket.read_names} == {"friends"}


# --- what is sent -------------------------------------------------------------------


def test_an_address_pays_for_a_large_file_as_for_many_calls() -> None:
    here = world(access="open", address_burst=30, address_per_s=1)
    desk = Desk(Bucket(mainnet=bytes(9 * CALL_BYTES), small=b"1"), here)
    for _ in range(3):
        desk.get()

    with pytest.raises(RateLimited):
        desk.get()
    assert desk.get("/capsules/small/peers.json", address="203.0.113.9") == b"1"


def test_what_a_container_sends_is_bounded_whoever_asks() -> None:
    desk = Desk(Bucket(mainnet=bytes(BURST_BYTES // 4), small=b"1"))
    for number in range(4):
        desk.get(address=f"203.0.113.{number}")

    with pytest.raises(RateLimited) as refused:
        desk.get(address="203.0.113.99")
    assert refused.value.retry_after_s == 30


def test_where_the_service_is_closed_a_reader_writes_nothing() -> None:
    here = world(access="closed", community_names="mainnet", address_burst=10**6)
    desk = Desk(Bucket(mainnet=bytes(8 * CALL_BYTES)), here)
    for _ in range(5):
        desk.get()

    guard = here.service.stores.guard
    assert guard.get("count#address#198.51.100.7", str(START // 10), now=START) is None
