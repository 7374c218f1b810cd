"""`python -m chalicelib.local`: the one-machine host, for programs; people say `muster serve`."""

import sys

from chalicelib.local.main import main

sys.exit(main())
