"""`python -m sync` is the command `mdvp-sync`."""

import sys

from sync.cli import main

sys.exit(main())
