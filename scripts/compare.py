"""Compare variants of a space with paired seeds: what each gains over the baseline, with an
interval."""

import sys

from synq_tune.cli.compare import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
