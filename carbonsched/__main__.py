"""`python -m carbonsched`: the same as the `carbonsched` command."""

import sys

from carbonsched.cli import main

if __name__ == "__main__":
    sys.exit(main())
