"""What only developers run: bench, smoke and the API documents."""
