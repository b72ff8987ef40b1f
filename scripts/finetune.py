"""Run one trial of a space without Ray: the settings of `finetune` as they stand."""

import sys

from synq_tune.cli.finetune import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
