"""Circles of version 2, as members have them: `Circle`, and what a connection yields.

circle = Circle.join(Invite.parse(text), path)
async with circle.connect(name="Ada") as here:
    await here.say("hello")
    async for event in here: ...
"""

from muster.circle.circle import Circle
from muster.circle.connection import Connection

__all__ = ["Circle", "Connection"]
