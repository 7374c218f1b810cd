"""Bench: what the service does on this machine, in numbers; `python -m tools.bench`.

Needs a checkout with the development requirements; it is not part of the package.
"""
