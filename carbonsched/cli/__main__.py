"""`python -m carbonsched.cli`: the command where its entry point is not on the path."""

import sys

from carbonsched.cli import main

sys.exit(main())
