"""What a member or an app developer installs: the wire, its clients and the command.

`muster.felund` is version 1 of the wire and its client, `muster.bootstrap` finds peers from
nothing but a URL and a key, `muster.cli` is the command.
"""

from __future__ import annotations

__version__ = "0.2.0"
