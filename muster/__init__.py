"""Muster's wire protocol and its Python client.

The protocol modules (`records`, `signing`, `frames`, `errors`) need nothing but
msgspec, because they are packed onto Lambda; the client's names are loaded when
they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from muster.circle import Circle
    from muster.client import Client
    from muster.errors import Refused
    from muster.link import Link
    from muster.subscription import Subscription

__all__ = ["Circle", "Client", "Link", "Refused", "Subscription", "__version__"]

_HOMES = {
    "Circle": "muster.circle",
    "Client": "muster.client",
    "Link": "muster.link",
    "Refused": "muster.errors",
    "Subscription": "muster.subscription",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'muster' has no attribute {name!r}")
    return getattr(import_module(home), name)
