"""Run a table of the paper and compare."""

import sys

from synq_tune.cli.reproduce import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
