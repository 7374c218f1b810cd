"""Signed metadata that anyone can verify: keys, tickets and capsules."""
