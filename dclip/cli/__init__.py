"""The command line: parse, build a config, call a stage, show the result. No logic.

Nothing outside this package knows Typer, and nothing in it is imported by the layers below. Heavy
libraries are imported inside the commands, so that ``dclip --help`` stays instant.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line of this process; Ctrl-C is answered from the first import on."""
    try:
        from dclip.cli import app

        return app.main()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        return 130
