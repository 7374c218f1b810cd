"""Circles of version 2, as members have them: `Circle`, and what a connection yields.

circle = Circle.join(Invite.parse(text), path)
async with circle.connect(name="Ada") as here:
    await here.say("hello")
    async for event in here: ...
"""

from typing import Any

from muster.circle import circle
from muster.circle.connection import Connection

__all__ = ["Circle", "Connection"]


class Circle(circle.Circle):
    """One circle, as one member has it; a connection is how it meets the others."""

    def connect(self, **options: Any) -> Connection:
        """Meet the others; see `Connection`."""
        return Connection(self, **options)
