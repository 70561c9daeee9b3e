"""``python -m dclip``: the same as ``dclip``."""

import sys

from dclip.cli import main

sys.exit(main())
