"""Tables: which key and lifetime every record has; the only module that knows.

================  ======================  ==================  =======================
record            table, partition        sort key            lives
================  ======================  ==================  =======================
presence          presence circle#HINT    NODE                ttl_s
presence of 2     presence circle#2 HINT  NODE                ttl_s, 5 minutes at least
pinned key        presence key#HINT       -                   30 days after last use
unsigned use      presence unsigned#HINT  -                   a day after the last register
socket            presence socket#ID      -                   as long as a socket may
room member       presence room#HINT      kind CONNECTION     the same
relay session     presence session#SID    -                   ttl_s, renewable
seat              presence session#SID    seat NODE           as long as a socket may
occupied seats    presence seats          CONNECTION          the same
journal start     mail start#JOURNAL      -                   a minute
messages          mail mail#HINT          number              30 days
message names     mail mid#HINT           MSG_ID              30 days
large messages    mail piece#HINT ID      piece               an hour longer
signals           mail signal#HINT NODE   number              5 minutes
signals of all    mail signals#NODE       number              5 minutes
newest offer      mail offer#SESSION      -                   5 minutes
claim             presence claim#NAME     -                   a day longer than its ticket
listed tickets    presence slots#NAME     slot                as long as each ticket
communities       presence communities    COMMUNITY           20 minutes
publishing        presence outcomes       COMMUNITY           a day
publishing lease  guard lease#COMMUNITY   -                   4 minutes
circle let in     guard access            HINT                for ever, or as chosen
access code       guard access            code ID             for ever, or as chosen
once of 2         guard later#2 HINT      NODE, its kind      10 minutes
nonce             guard nonce#HINT        NONCE               the window
calls             guard count#KEY         window              the window
new peer ids      guard names#NETWORK     day                 the day
stored in a day   guard quota#KIND NET    day                 to the end of the next day
service key       guard service           key                 for ever
key set           guard keyset            identity, period N  for ever, a period's overlap
assist counters   guard assist            counter             for ever
================  ======================  ==================  =======================

Variable parts stand last in a key, and names hold no space, so none can reach into
another's space. A circle of version 2 is called `2 HINT`: nothing of version 1 can name it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

from chalicelib.call import Connection
from chalicelib.store import Item, Store, Stores, stamp, stamped
from muster.felund import records, signing

FOREVER = 32_503_680_000
"""The year 3000, for what does not expire."""

DAY_S = 24 * 3600

SIGNAL_KEPT_S = 300
"""All signals are kept equally long, whatever their ttl, so that the last number is the highest."""

NONCE_SLACK_S = 60
"""How much longer than the window a nonce is kept, for machines whose clocks differ."""

_ITEM_BYTES = 64
"""What an item takes besides its keys and its body: the names of attributes, and a number."""

_ROOM_PAGE = 5_120
"""Eight sockets of each of 512 members, and 512 and more without a token."""


# --- presence -----------------------------------------------------------------


class PresenceHead(msgspec.Struct, frozen=True):
    """What ordering a list of peers needs of each."""

    node_id: str
    observed_at: int


_heads = msgspec.json.Decoder(PresenceHead)
_peers = msgspec.json.Decoder(records.Peer)


def save_presence(stores: Stores, peer: records.Peer) -> None:
    """Keep a presence until it expires, in place of the node's last one."""
    body = msgspec.json.encode(peer)
    stores.presence.put(Item("circle#" + peer.circle_hint, peer.node_id, peer.expires_at, body))


def presence(stores: Stores, circle_hint: str, node_id: str, *, now: int) -> records.Peer | None:
    """Return a node's presence in a circle, if it is live."""
    item = stores.presence.get("circle#" + circle_hint, node_id, now=now)
    return _peers.decode(item.body) if item else None


def drop_presence(stores: Stores, circle_hint: str, node_id: str, *, now: int) -> bool:
    """Forget a node's presence; say whether there was one."""
    return stores.presence.delete("circle#" + circle_hint, node_id, now=now)


def presence_bytes(peer: records.Peer) -> int:
    """Return what a presence takes in the store, its keys and their names included."""
    body = msgspec.json.encode(peer)
    return len("circle#") + len(peer.circle_hint) + len(peer.node_id) + len(body) + _ITEM_BYTES


class Presences(NamedTuple):
    """A circle's live presences as stored JSON, and whether there are more than may be read."""

    found: list[tuple[PresenceHead, msgspec.Raw]]
    more: bool


def presences(
    stores: Stores,
    circle_hint: str,
    *,
    after: str = "",
    limit: int,
    each_bytes: int,
    most_bytes: int,
    now: int,
) -> Presences:
    """Return up to *limit* presences by node id, and read no more than *most_bytes* of them.

    None has more than *each_bytes*, so what is asked for next always fits what is left.
    """
    found: list[Item] = []
    sk, more = after, True
    while more and len(found) < limit:
        size = sum(len(item.body) + len(item.sk) for item in found) + len(found) * _ITEM_BYTES
        fitting = (most_bytes - size) // each_bytes - 1  # one further is read to see whether it is
        if fitting < 1 and found:
            break
        wanted = min(limit - len(found), max(fitting, 1))
        page = stores.presence.after("circle#" + circle_hint, sk, limit=wanted, now=now)
        found.extend(page.items)
        more = page.more and bool(page.items)
        sk = found[-1].sk if found else sk
    return Presences([(_heads.decode(item.body), msgspec.Raw(item.body)) for item in found], more)


# --- presence of version 2 --------------------------------------------------------

STAMP_KEPT_S = 300
"""How long the time of a node's last presence is kept at least: no replay finds a hole."""


class Placed(NamedTuple):
    """A node's sealed presence, and until when it is kept; empty where the node has left.

    One that came by a socket is the socket's, and ends with it.
    """

    node_id: str
    sealed: bytes
    until: int
    socket_id: str = ""


def place(stores: Stores, circle: str, placed: Placed, *, at_ms: int, now: int) -> int | None:
    """Keep a presence unless one was signed later; return when, if so."""
    whose = placed.socket_id.encode()
    body = placed.until.to_bytes(8, "big") + bytes([len(whose)]) + whose + placed.sealed
    expires_at = max(placed.until, now + STAMP_KEPT_S)
    item = stamped(Item("circle#" + circle, placed.node_id, expires_at, body), at_ms)
    return stores.presence.put_later(item, now=now)


def placed(
    stores: Stores, circle: str, *, after: str, limit: int, now: int
) -> tuple[list[Placed], bool]:
    """Return live presences by node id, and whether there are more; those that left are passed."""
    found: list[Placed] = []
    sk, more = after, True
    while more and len(found) < limit:
        page = stores.presence.after("circle#" + circle, sk, limit=limit - len(found), now=now)
        for item in page.items:
            one = _placed(item)[1]
            if one.sealed and one.until > now:
                found.append(one)
        more = page.more and bool(page.items)
        sk = page.items[-1].sk if page.items else sk
    return found, more


def displace(stores: Stores, circle: str, node_id: str, *, socket_id: str, now: int) -> bool:
    """Let the presence go that a socket kept up, if it is still that socket's; say whether."""
    item = stores.presence.get("circle#" + circle, node_id, now=now)
    if item is None:
        return False
    at_ms, kept = _placed(item)
    if not kept.sealed or kept.socket_id != socket_id:
        return False
    return place(stores, circle, Placed(node_id, b"", 0), at_ms=at_ms + 1, now=now) is None


def _placed(item: Item) -> tuple[int, Placed]:
    at_ms, body = stamp(item)
    end = 9 + body[8]
    until = int.from_bytes(body[:8], "big")
    return at_ms, Placed(item.sk, body[end:], until, body[9:end].decode())


def spend_later(stores: Stores, circle: str, what: str, *, at_ms: int, now: int) -> bool:
    """Spend a call of a kind and node; False if it or a later one was spent before."""
    until = now + 2 * STAMP_KEPT_S
    item = stamped(Item("later#" + circle, what, until), at_ms)
    return stores.guard.put_later(item, now=now) is None


# --- circle keys, nonces, the service's key -----------------------------------


def pin(stores: Stores, circle_hint: str, key: bytes, *, until: int, now: int) -> bool:
    """Pin a circle's request key unless one is pinned; say whether it was kept."""
    return stores.presence.put_new(Item("key#" + circle_hint, "-", until, key), now=now)


def keep_pin(stores: Stores, circle_hint: str, key: bytes, *, until: int) -> None:
    """Let a pinned key live on."""
    stores.presence.put(Item("key#" + circle_hint, "-", until, key))


def pinned(stores: Stores, circle_hint: str, *, now: int) -> Item | None:
    """Return the circle's pinned request key as an item, body and expiry."""
    return stores.presence.get("key#" + circle_hint, "-", now=now)


def note_unsigned(stores: Stores, circle_hint: str, *, until: int) -> None:
    """Note that nodes register unsigned in a circle."""
    stores.presence.put(Item("unsigned#" + circle_hint, "-", until))


def used_unsigned(stores: Stores, circle_hint: str, *, now: int) -> bool:
    """Say whether nodes registered unsigned in a circle lately."""
    return stores.presence.get("unsigned#" + circle_hint, "-", now=now) is not None


def spend(stores: Stores, circle_hint: str, nonce: str, *, signed_at: int, now: int) -> bool:
    """Spend a nonce of a circle; False if it was spent before."""
    until = max(signed_at, now) + signing.WINDOW_S + NONCE_SLACK_S
    return stores.guard.put_new(Item("nonce#" + circle_hint, nonce, until), now=now)


def service_seed(stores: Stores, fresh: bytes, *, now: int) -> bytes:
    """Return the service's key seed: the one kept, or *fresh* if there is none yet.

    It is read first, so that a new process writes nothing for the stranger who wakes it.
    """
    kept = stores.guard.get("service", "key", now=now)
    if kept is None:
        stores.guard.put_new(Item("service", "key", FOREVER, fresh), now=now)
        kept = stores.guard.get("service", "key", now=now)
    return kept.body if kept else fresh


def key_set(stores: Stores, name: str, fresh: bytes, *, until: int, now: int) -> bytes:
    """Return the seeds of a part of the key set: those kept, or *fresh* if there are none yet."""
    kept = kept_key_set(stores, name, now=now)
    if kept is None:
        stores.guard.put_new(Item("keyset", name, until, fresh), now=now)
        kept = kept_key_set(stores, name, now=now)
    return kept or fresh


def kept_key_set(stores: Stores, name: str, *, now: int) -> bytes | None:
    """Return the seeds of a part of the key set, if they are kept still."""
    item = stores.guard.get("keyset", name, now=now)
    return item.body if item else None


def count(stores: Stores, counter: str, amount: int, *, now: int) -> int:
    """Count what assist has done; return the new total."""
    return stores.guard.add("assist", counter, amount, expires_at=FOREVER, now=now)


# --- who is let in --------------------------------------------------------------


class Allowed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a closed service serves: what its operator calls it, and since when.

    A circle; or, with a *code*, every circle of version 2 whose members know that.
    """

    name: str = ""
    since: int = 0
    code: str = ""


class Entry(NamedTuple):
    """An `Allowed` with the hint it is for and its end."""

    circle_hint: str
    allowed: Allowed
    expires_at: int


_allowed = msgspec.json.Decoder(Allowed)


def allow(stores: Stores, circle_hint: str, allowed: Allowed, *, until: int) -> None:
    """Let a circle in until then."""
    stores.guard.put(Item("access", circle_hint, until, msgspec.json.encode(allowed)))


def allowed(stores: Stores, circle_hint: str, *, now: int) -> Item | None:
    """Return the item that lets a circle in, if there is one."""
    return stores.guard.get("access", circle_hint, now=now)


def few_allowed(stores: Stores, *, most: int, now: int) -> Sequence[Item] | None:
    """Return all items that let circles in, or None if they are more than *most*."""
    page = stores.guard.after("access", "", limit=most, now=now)
    return None if page.more else page.items


CODE = "code "
"""What the sort key of an access code begins with: no circle has such a name."""


CODE_ID_CHARS = 8
"""So much of its hash names an access code, to people too."""


def code_key(code: str) -> str:
    """Return under which name an access code is kept."""
    return CODE + hashlib.sha256(code.encode()).hexdigest()[:CODE_ID_CHARS]


def codes(stores: Stores, *, limit: int, now: int) -> tuple[str, ...]:
    """Return the access codes that open the service, those made first if there are more."""
    items = stores.guard.after("access", CODE, limit=limit, now=now).items
    found = (_allowed.decode(item.body) for item in items if item.sk.startswith(CODE))
    return tuple(one.code for one in found if one.code)


def disallow(stores: Stores, circle_hint: str, *, now: int) -> bool:
    """Let a circle in no longer; say whether it was."""
    return stores.guard.delete("access", circle_hint, now=now)


def all_allowed(stores: Stores, *, limit: int, now: int) -> list[Entry]:
    """Return the circles that are let in, by hint."""
    found = _all(stores.guard, "access", limit=limit, now=now)
    return [Entry(item.sk, _allowed.decode(item.body), item.expires_at) for item in found]


# --- mail ---------------------------------------------------------------------


def mail_key(circle_hint: str) -> str:
    """Return the partition of a circle's journal of messages."""
    return "mail#" + circle_hint


def pieces_key(circle_hint: str, name: str) -> str:
    """Return the partition of a large message's pieces."""
    return f"piece#{circle_hint} {name}"


def signal_key(circle_hint: str, node_id: str) -> str:
    """Return the partition of a node's journal of signals in a circle."""
    return f"signal#{circle_hint} {node_id}"


def all_signals_key(node_id: str) -> str:
    """Return the partition of a node's journal of signals from every circle."""
    return "signals#" + node_id


class Offer(msgspec.Struct, frozen=True):
    """In which circle a session was offered last, by whom, and whether that was signed.

    *after* is the last signal from any circle that the offering node had been left then.
    """

    circle_hint: str
    from_node: str
    after: int
    signed: bool


_offers = msgspec.json.Decoder(Offer)


def save_offer(stores: Stores, session_id: str, offer: Offer, *, until: int) -> None:
    """Note in which circle a session was offered last."""
    stores.mail.put(Item("offer#" + session_id, "-", until, msgspec.json.encode(offer)))


def offer(stores: Stores, session_id: str, *, now: int) -> Offer | None:
    """Return in which circle a session was offered last."""
    item = stores.mail.get("offer#" + session_id, "-", now=now)
    return _offers.decode(item.body) if item else None


def known_messages(
    stores: Stores, circle_hint: str, msg_ids: Collection[str], *, now: int
) -> set[str]:
    """Return which of these messages the mailbox has had and still knows."""
    return stores.mail.known("mid#" + circle_hint, msg_ids, now=now)


def remember_messages(
    stores: Stores, circle_hint: str, msg_ids: Iterable[str], *, until: int
) -> None:
    """Let the mailbox know these messages by name."""
    stores.mail.put(*(Item("mid#" + circle_hint, msg_id, until) for msg_id in msg_ids))


# --- tickets ------------------------------------------------------------------


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which key holds a peer id in a community, and since when without a break.

    Its ticket ends at *until*; the key is remembered for *kept_s* seconds longer. A node
    without a place has waited for one since *waits*.
    """

    key: str
    since: int
    seen_at: int
    until: int
    slot: str
    kept_s: int = 0
    waits: int = 0


class Slot(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place in a community's list, the ticket that has it, since when and from where."""

    slot: str
    peer_id: str
    since: int
    received_at: float
    expires_at_ms: int
    ticket: msgspec.Raw
    lot: int = 0
    networks: tuple[str, ...] = ()


_claims = msgspec.json.Decoder(Claim)
_slots = msgspec.json.Decoder(Slot)


def claim(stores: Stores, community: str, peer_id: str, *, now: int) -> Claim | None:
    """Return who holds a peer id."""
    item = stores.presence.get(_claim_key(community, peer_id), "-", now=now)
    return _claims.decode(item.body) if item else None


def take_claim(stores: Stores, community: str, peer_id: str, claim: Claim, *, now: int) -> bool:
    """Take a peer id that nobody holds; say whether it worked."""
    return stores.presence.put_new(_claimed(community, peer_id, claim), now=now)


def keep_claim(stores: Stores, community: str, peer_id: str, claim: Claim) -> None:
    """Let a peer id's holder hold it longer."""
    stores.presence.put(_claimed(community, peer_id, claim))


def count_name(stores: Stores, network: str, *, now: int) -> int:
    """Count a new peer id of a network; return how many there are today."""
    day = now // DAY_S
    end = (day + 1) * DAY_S
    return stores.guard.add("names#" + network, str(day), 1, expires_at=end, now=now)


def slots(stores: Stores, community: str, *, limit: int, now: int) -> list[Slot]:
    """Return the tickets that a community lists, in no order."""
    found = _all(stores.presence, "slots#" + community, limit=limit, now=now)
    return [_slots.decode(item.body) for item in found]


def save_slot(stores: Stores, community: str, slot: Slot) -> None:
    """Give a place to a ticket."""
    until = -(-slot.expires_at_ms // 1000)
    stores.presence.put(Item("slots#" + community, slot.slot, until, msgspec.json.encode(slot)))


def drop_slot(stores: Stores, community: str, slot: Slot, *, now: int) -> None:
    """Free a place, if that ticket still has it."""
    body = msgspec.json.encode(slot)
    stores.presence.delete("slots#" + community, slot.slot, now=now, body=body)


def communities(stores: Stores, *, limit: int, now: int) -> list[str]:
    """Return the communities that were announced to lately."""
    return [item.sk for item in _all(stores.presence, "communities", limit=limit, now=now)]


def save_community(stores: Stores, community: str, *, until: int) -> None:
    """Note that a community is alive."""
    stores.presence.put(Item("communities", community, until))


def lease(stores: Stores, community: str, *, until: int, now: int) -> bool:
    """Keep other publishers away from a community for a while; say whether it worked."""
    return stores.guard.put_new(Item("lease#" + community, "-", until), now=now)


def end_lease(stores: Stores, community: str, *, now: int) -> None:
    """Let others publish a community again."""
    stores.guard.delete("lease#" + community, "-", now=now)


def save_outcome(stores: Stores, community: str, body: bytes, *, now: int) -> None:
    """Note how publishing a community went."""
    stores.presence.put(Item("outcomes", community, now + DAY_S, body))


def outcome(stores: Stores, community: str, *, now: int) -> bytes | None:
    """Return how publishing a community went."""
    item = stores.presence.get("outcomes", community, now=now)
    return item.body if item else None


def outcomes(stores: Stores, *, limit: int, now: int) -> list[bytes]:
    """Return how publishing went, for every community of the last day."""
    return [item.body for item in _all(stores.presence, "outcomes", limit=limit, now=now)]


def _claimed(community: str, peer_id: str, claim: Claim) -> Item:
    until = claim.until + claim.kept_s
    return Item(_claim_key(community, peer_id), "-", until, msgspec.json.encode(claim))


def _claim_key(community: str, peer_id: str) -> str:
    # A peer id is any text, so its name is hashed; and each claim is a partition of its
    # own, so that a community of any size is spread.
    named = f"{community} {peer_id}".encode()
    return "claim#" + hashlib.sha256(named).hexdigest()


# --- sockets ------------------------------------------------------------------


class Socket(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an open WebSocket is for."""

    id: str
    endpoint: str
    circle_hint: str
    node_id: str
    until: int
    session_id: str = ""
    legacy: bool = False
    caller: str = ""
    """What its frames are counted as, where they come to many processes."""
    token_id: str = ""
    """The name of the token that opened a subscription: the next one with it takes over."""
    credential: str = ""
    """Of version 2: who vouches for the node, as the handshake had it."""
    address: str = ""
    """Of version 2: where it was opened from."""

    @property
    def connection(self) -> Connection:
        """Return the connection to send to."""
        return Connection(self.id, self.endpoint)


class Seated(msgspec.Struct, frozen=True):
    """An occupied seat as the sweeper sees it."""

    socket: Socket
    active_at: int


_sockets = msgspec.json.Decoder(Socket)
_seated = msgspec.json.Decoder(Seated)


def save_socket(stores: Stores, socket: Socket, *, now: int) -> None:
    """Keep what a connection is for, and then its place in a room or on a seat.

    In this order, so that whoever finds it in its place can also forget it.
    """
    store, body = stores.presence, msgspec.json.encode(socket)
    store.put(Item("socket#" + socket.id, "-", socket.until, body))
    if socket.session_id:
        seat = Item("session#" + socket.session_id, "seat " + socket.node_id, socket.until, body)
        store.put(seat, _occupied(socket, now=now))
    else:
        store.put(Item("room#" + socket.circle_hint, _chair(socket), socket.until, body))


def socket(stores: Stores, connection_id: str, *, now: int) -> Socket | None:
    """Return what a connection is for."""
    item = stores.presence.get("socket#" + connection_id, "-", now=now)
    return _sockets.decode(item.body) if item else None


def drop_socket(stores: Stores, socket: Socket, *, now: int) -> bool:
    """Forget a connection, and no other: a seat taken by a newer one stays taken.

    Says whether the connection still had its place.
    """
    store, place = stores.presence, False
    if socket.session_id:
        body = msgspec.json.encode(socket)
        store.delete("seats", socket.id, now=now)
        place = store.delete(
            "session#" + socket.session_id, "seat " + socket.node_id, now=now, body=body
        )
    elif socket.credential:
        body = msgspec.json.encode(socket)
        place = store.delete("room#" + socket.circle_hint, _chair(socket), now=now, body=body)
    else:
        place = store.delete("room#" + socket.circle_hint, _chair(socket), now=now)
    store.delete("socket#" + socket.id, "-", now=now)
    return place


def _chair(socket: Socket) -> str:
    """Return a socket's sort key in its room: those with a token are read first.

    In version 2 a node has one, by its name.
    """
    if socket.credential:
        return f"chair {socket.node_id}"
    return f"{'legacy' if socket.legacy else 'chair'} {socket.id}"


def socket_of(stores: Stores, circle: str, node_id: str, *, now: int) -> Socket | None:
    """Return the socket of a node of version 2."""
    item = stores.presence.get("room#" + circle, f"chair {node_id}", now=now)
    return _sockets.decode(item.body) if item else None


def room(stores: Stores, circle_hint: str, *, now: int) -> list[Socket]:
    """Return the circle's subscriptions."""
    found = _all(stores.presence, "room#" + circle_hint, limit=_ROOM_PAGE, now=now)
    return [_sockets.decode(item.body) for item in found]


def save_session(stores: Stores, session_id: str, *, until: int) -> None:
    """Open a relay session, or renew it."""
    stores.presence.put(Item("session#" + session_id, "-", until))


def session(stores: Stores, session_id: str, *, now: int) -> tuple[bool, list[Socket]]:
    """Return whether a session is live, and its occupied seats."""
    items = stores.presence.after("session#" + session_id, "", limit=8, now=now).items
    seats = [_sockets.decode(item.body) for item in items if item.sk != "-"]
    return len(seats) < len(items), seats


def touch(stores: Stores, socket: Socket, *, now: int) -> None:
    """Note that a seat was heard from."""
    stores.presence.put(_occupied(socket, now=now))


def occupied(stores: Stores, after: str, *, limit: int, now: int) -> Sequence[Seated]:
    """Return occupied seats in the order of their connections, for the sweeper."""
    page = stores.presence.after("seats", after, limit=limit, now=now)
    return [_seated.decode(item.body) for item in page.items]


def _occupied(socket: Socket, *, now: int) -> Item:
    return Item("seats", socket.id, socket.until, msgspec.json.encode(Seated(socket, now)))


def _all(store: Store, pk: str, *, limit: int, now: int) -> list[Item]:
    found: list[Item] = []
    sk, more = "", True
    while more and len(found) < limit:
        page = store.after(pk, sk, limit=limit - len(found), now=now)
        found.extend(page.items)
        more = page.more and bool(page.items)
        sk = found[-1].sk if found else sk
    return found
