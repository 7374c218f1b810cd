"""Circles of version 2, as members have them: `Circle`, and what a connection yields.

circle = Circle.enter("muster2.…", "ada.muster2")
async with circle.connect(name="Ada") as here:
    await here.say("hello")
    async for message in here.messages(): ...
"""

from pathlib import Path
from typing import Any, Self

from muster.circle import circle
from muster.circle.connection import Connection
from muster.errors import BadValue
from muster.invites import Invite

__all__ = ["Circle", "Connection"]


class Circle(circle.Circle):
    """One circle, as one member has it; a connection is how it meets the others."""

    @classmethod
    def enter(cls, code: str, path: str | Path) -> Self:
        """Go in by an invite, a code or a link; where the file is there, go on as who is in it.

        Raises `InvalidInvite`, `file.Unusable`, and `BadValue` for a file of another circle.
        """
        invite, file = Invite.parse(code), Path(path)
        try:
            return cls.join(invite, file)
        except FileExistsError:
            found = cls.open(file)
        if found.file.founder != invite.founder:
            found.close()
            raise BadValue(f"{file} is another circle's", "name another file")
        return found

    def connect(self, **options: Any) -> Connection:
        """Meet the others; see `Connection`."""
        return Connection(self, **options)
