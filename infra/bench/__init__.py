"""Bench: what the service does on this machine, in numbers; `python -m infra.bench`.

Needs a checkout with the development requirements; it is not part of the package.
"""
