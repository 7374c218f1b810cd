"""Signed metadata that anyone can verify: keys, tickets and capsules."""

CERTIFIED_DAYS = 90
"""How long the root key lets an online key publish if nothing else is said, on every host."""
