"""A slow stretch of network: what goes into its device comes out of it some time later.

python delay.py DEVICE MILLISECONDS
"""

from __future__ import annotations

import os
import select
import struct
import sys
import time
from collections import deque
from fcntl import ioctl

TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
MOST_BYTES = 65_536


def main(device: str, delay_ms: str) -> None:
    """Carry packets until ended."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    ioctl(tun, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TUN_NO_PI))
    print("ready", flush=True)
    delay_s = float(delay_ms) / 1000
    waiting: deque[tuple[float, bytes]] = deque()
    while True:
        left_s = max(waiting[0][0] - time.monotonic(), 0.0) if waiting else None
        if select.select([tun], [], [], left_s)[0]:
            waiting.append((time.monotonic() + delay_s, os.read(tun, MOST_BYTES)))
        while waiting and waiting[0][0] <= time.monotonic():
            os.write(tun, waiting.popleft()[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
