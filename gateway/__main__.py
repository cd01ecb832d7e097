"""Entry point of `python -m gateway [run]`."""

import sys

from gateway.commands import main

if __name__ == "__main__":
    sys.exit(main())
