"""Search the hyperparameters of a zero-shot quantization study, on Ray, tracked in MLflow."""

import sys

from synq_tune.cli.search import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
