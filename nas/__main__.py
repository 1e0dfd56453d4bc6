"""`python -m nas` is the command line."""

import os
import sys
from contextlib import suppress

if __name__ == "__main__":
    # Python looks for modules in the working directory first, which may be the folder that a stranger has sent.
    with suppress(OSError):
        here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        if not sys.flags.safe_path and sys.path and sys.path[0] == os.getcwd() != here:
            del sys.path[0]
    from nas.cli import app

    app()
