"""The command in circles of version 2; `muster.cli.which` says which circle is of which kind."""
