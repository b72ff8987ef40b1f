"""`python -m synq_tune COMMAND …`."""

from synq_tune.cli.main import run

if __name__ == "__main__":
    run()
