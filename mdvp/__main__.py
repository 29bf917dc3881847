"""`python -m mdvp` is the command `mdvp`."""

import sys

from mdvp.cli import main

sys.exit(main())
