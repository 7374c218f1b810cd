"""Version 1 of the wire, as the felund protocol has it, and its Python client.

The protocol modules (`records`, `signing`, `frames`) need nothing but msgspec, because they are
packed onto Lambda; the client's names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muster.errors import Refused
    from muster.felund.circle import Circle
    from muster.felund.client import Client
    from muster.felund.link import Link
    from muster.felund.subscription import Subscription

__all__ = ["Circle", "Client", "Link", "Refused", "Subscription"]

_HOMES = {
    "Circle": "muster.felund.circle",
    "Client": "muster.felund.client",
    "Link": "muster.felund.link",
    "Refused": "muster.errors",
    "Subscription": "muster.felund.subscription",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'muster.felund' has no attribute {name!r}")
    return getattr(import_module(home), name)
