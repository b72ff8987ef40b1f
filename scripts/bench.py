"""Time what a study does against what it must cost: a training step, a trial, synthesis, memory,
and what the service adds to a trial."""

import sys

from synq_tune.cli.bench import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
