"""What choosing without labels costs: how agreement and the like rank the trials of finished
studies."""

import sys

from synq_tune.cli.choosing import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
