"""`python -m segmamba`: the same as the command `segmamba`."""

import sys

from segmamba.cli import script

sys.exit(script())
