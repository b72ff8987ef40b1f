"""Choose how many bits each layer gets under a budget, without data."""

import sys

from synq_tune.cli.allocate import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
