"""Try model files in every runtime on this machine; prints a markdown table."""

import sys

from synq_tune.cli.runtimes import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
