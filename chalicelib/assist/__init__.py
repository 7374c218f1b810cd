"""How to connect, as far as anybody knows: loaded when the first call asks."""
