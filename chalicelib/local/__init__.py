"""The one-machine host: one process, one port, one folder."""
