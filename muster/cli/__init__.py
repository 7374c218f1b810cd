"""The `muster` command, for members and for those who run a service."""
