"""`python -m npple` is the command line."""

import sys

from npple.cli import main

sys.exit(main())
