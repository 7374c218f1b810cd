"""What an operator or a member runs: the `muster` command and the API documents."""
