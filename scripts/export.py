"""Export a student again: from a study's folder, or from a run in MLflow."""

import sys

from synq_tune.cli.export import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
