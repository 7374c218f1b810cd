"""The chat in a terminal: a session over a profile, its commands, the screen and plain lines."""
