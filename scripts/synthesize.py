"""Make the synthetic dataset of a space, and nothing else."""

import sys

from synq_tune.cli.synthesize import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
