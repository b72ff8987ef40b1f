"""Show what the store of datasets and views holds, and delete what is old or named."""

import sys

from synq_tune.cli.clean import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
