"""`python -m detdistill` is the same as `detdistill`."""

import sys

from detdistill.cli import main

sys.exit(main())
