"""Write a study's page, report.html, into its folder."""

import sys

from synq_tune.cli.report import main
from synq_tune.commands.ending import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main))
