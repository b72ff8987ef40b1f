"""Tell what a study's folder, its ledger and MLflow disagree on, and mend it from the ledger."""

import sys

from synq_tune.cli.doctor import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
