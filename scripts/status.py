"""Show a study: how far it is, its trials, the best one and where its model is."""

import sys

from synq_tune.cli.status import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
