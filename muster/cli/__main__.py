"""`python -m muster.cli`: the command, where it is not on the path."""

import sys

from muster.cli.main import main

sys.exit(main())
