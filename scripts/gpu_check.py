"""Check and time everything on this machine's GPU, in minutes."""

import sys

from synq_tune.cli.gpu_check import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
