"""A few verbs to store by, and what they promise whichever engine keeps the items.

An item is *live* while `expires_at > now`, judged when it is read: engines remove
what expired late or never, and no verb may notice. Lists are ordered by the sort
key's UTF-8 bytes. Rules of the service, such as which key a record has, live in
`tables`, not here.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

__all__ = [
    "PAGE_BYTES",
    "READS",
    "Full",
    "Item",
    "Page",
    "Room",
    "Store",
    "Stores",
    "TableNames",
    "Unavailable",
    "cut",
    "stamp",
    "stamped",
]

PAGE_BYTES = 1_000_000

READS = frozenset({"get", "known", "newest", "after"})
"""The verbs that only read; DynamoDB counts their units apart from those of all others."""


class Item(NamedTuple):
    """One stored record, addressed by its partition key and its sort key.

    A counter that `add` made reads as an item whose body is its total in decimal.
    """

    pk: str
    sk: str
    expires_at: int
    body: bytes = b""


STAMP_BYTES = 8


def stamped(item: Item, stamp: int) -> Item:
    """Return an item whose body begins with a stamp, from 0 to 2^53, for `put_later`."""
    return item._replace(body=stamp.to_bytes(STAMP_BYTES, "big") + item.body)


def stamp(item: Item) -> tuple[int, bytes]:
    """Return the stamp of an item that `put_later` kept, and the body without it."""
    return int.from_bytes(item.body[:STAMP_BYTES], "big"), item.body[STAMP_BYTES:]


class Page(NamedTuple):
    """Some live items in order, and whether there are further ones."""

    items: tuple[Item, ...]
    more: bool


class Unavailable(Exception):
    """The engine is throttled, locked or out of reach; what was asked may or may not be written."""


class Full(Unavailable):
    """There is no room for what was to be written; none of it is."""


class Room(NamedTuple):
    """What a store takes of a disk, the most it may take, and whether a write met its end."""

    used_bytes: int
    most_bytes: int
    refused: bool = False


class Store(Protocol):
    """One table. Every verb may raise `Unavailable`, and every verb may be repeated after it.

    Keys are not empty, hold no lone surrogates, and are at most 1,024 bytes long;
    an item is at most 400 KB.
    """

    def put(self, *items: Item) -> None:
        """Keep *items*, replacing what has their keys; of two with one key, the later.

        SQLite keeps all or none. DynamoDB keeps each by itself: after `Unavailable`
        some may be there, so put what others refer to first, or all of it again.
        """

    def put_new(self, item: Item, *, now: int) -> bool:
        """Keep *item* unless a live one has its key; say whether it was kept.

        Of any number of concurrent callers exactly one is told True.
        """

    def put_later(self, item: Item, *, now: int) -> int | None:
        """Keep an item that is `stamped`, unless a live one has the same or a later stamp.

        Returns None if it was kept, and otherwise the stamp that stands in its way. What has
        no stamp gives way. Of any number of concurrent callers the latest stamp stays.
        """

    def get(self, pk: str, sk: str, *, now: int) -> Item | None:
        """Return the live item, as of the last acknowledged write."""

    def known(self, pk: str, sks: Collection[str], *, now: int) -> set[str]:
        """Say which of the sort keys *sks* have a live item."""

    def newest(self, pk: str, *, limit: int, now: int) -> Page:
        """List live items from the highest sort key down.

        The page ends at *limit* items, or with the item before the one that would
        take it over `PAGE_BYTES`; it has at least one if there are any. The same
        holds for `after`.
        """

    def after(self, pk: str, sk: str, *, limit: int, now: int) -> Page:
        """List live items whose sort keys are greater than *sk*, which may be empty, upwards."""

    def delete(self, pk: str, sk: str, *, now: int, body: bytes | None = None) -> bool:
        """Remove the item, with *body* only if that is its body; say whether a live one went."""

    def add(self, pk: str, sk: str, amount: int, *, expires_at: int, now: int) -> int:
        """Add *amount* to a counter, let it live until *expires_at*, return the new total.

        One that is missing, expired or not a counter starts from 0. No addition is
        lost; one whose answer got lost on the way may count twice.
        """


class Stores(NamedTuple):
    """The three tables, apart because the lives of their items differ."""

    presence: Store
    mail: Store
    guard: Store


class TableNames(NamedTuple):
    """What the three tables are called in DynamoDB."""

    presence: str
    mail: str
    guard: str


def cut(items: Iterable[Item], limit: int) -> Page:
    """Take a page from the front of *items*, reading one further at most."""
    page: list[Item] = []
    size = 0
    for item in items:
        size += len(item.sk) + len(item.body)
        if len(page) >= limit or (page and size > PAGE_BYTES):
            return Page(tuple(page), more=True)
        page.append(item)
    return Page(tuple(page), more=False)
