"""Take other people's networks through inspect, synthesis, fine-tuning, export, parity."""

import sys

from synq_tune.cli.coverage import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
