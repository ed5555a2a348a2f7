"""`python -m bladeroot`."""

import sys

from bladeroot.ui.cli import main

sys.exit(main())
