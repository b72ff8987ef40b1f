"""How far searches end from the best of a recorded grid, at equal numbers of epochs; trains
nothing."""

import sys

from synq_tune.cli.regret import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
