"""Measure an exported model file on labelled images; the last line is the accuracy."""

import sys

from synq_tune.cli.evaluate import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
