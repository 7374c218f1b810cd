"""Looks: names that look alike are told apart by a short key beside the second one.

A name is anybody's to choose. What looks the same is found without letters' cases, marks, widths,
and the letters of Cyrillic and Greek that are drawn as Latin ones; it is a help, and no proof.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from muster.chat.room import Someone
from muster.cli import output

_LATIN = str.maketrans(
    "аеорсухіїјѕԁԛԝһкмнтвαβγεηικνορτυχω0135",
    "aeopcyxiijsdqwhkmhtbabyenikvoptuxwolss",
)


def skeleton(name: str) -> str:
    """Return what two names have in common that look alike."""
    plain = unicodedata.normalize("NFKD", name).casefold()
    kept = "".join(
        one
        for one in unicodedata.normalize("NFKD", plain)
        if not unicodedata.combining(one) and unicodedata.category(one) not in ("Cf", "Mn")
    )
    return "".join(kept.translate(_LATIN).replace("rn", "m").replace("i", "l").split())


def names(people: Iterable[Someone]) -> dict[bytes, str]:
    """Return how each is shown: the second of two alike, in the order given, with a key."""
    shown: dict[bytes, str] = {}
    taken: set[str] = set()
    for one in people:
        name = output.name(one.name)
        look = skeleton(name)
        if not name:
            name = one.key
        elif look in taken:
            name = f"{name} ({one.key})"
        taken.add(look)
        shown[one.id] = name
    return shown
