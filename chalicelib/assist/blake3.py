"""BLAKE3 of one block, which an address is; no library is worth it."""

from __future__ import annotations

import struct

_IV = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
    0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)  # fmt: skip
_ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_MIXES = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip
_CHUNK_START, _CHUNK_END, _ROOT = 1, 2, 8


def digest(data: bytes) -> bytes:
    """Return the hash of at most 64 bytes."""
    words = list(struct.unpack("<16I", data.ljust(64, b"\0")))
    state = [*_IV, *_IV[:4], 0, 0, len(data), _CHUNK_START | _CHUNK_END | _ROOT]
    for _ in range(7):
        for i, places in enumerate(_MIXES):
            _mix(state, places, words[2 * i], words[2 * i + 1])
        words = [words[place] for place in _ORDER]
    return struct.pack("<8I", *(state[i] ^ state[i + 8] for i in range(8)))


def _mix(state: list[int], places: tuple[int, int, int, int], x: int, y: int) -> None:
    a, b, c, d = places
    for word, down, up in ((x, 16, 12), (y, 8, 7)):
        state[a] = (state[a] + state[b] + word) & 0xFFFFFFFF
        state[d] = _turn(state[d] ^ state[a], down)
        state[c] = (state[c] + state[d]) & 0xFFFFFFFF
        state[b] = _turn(state[b] ^ state[c], up)


def _turn(word: int, bits: int) -> int:
    return (word >> bits | word << (32 - bits)) & 0xFFFFFFFF
