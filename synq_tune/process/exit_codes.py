"""How every command ends: one table of exit codes, which README.md lists too."""

DONE = 0
OUR_FAULT = 1
"""This package is wrong; the line on stderr asks to report it."""
WRONG_INPUT = 2
"""The user can put it right; also what a library or the user's own code raised."""
NOTHING_FINISHED = 3
"""No trial finished, or the only training or synthesis there was diverged."""
LEFT = 3
"""`doctor` found something that it did not mend."""
NOT_UPLOADED = 4
"""Done, but MLflow has not taken everything; `--resume` uploads the rest."""
INTERRUPTED = 130
"""Ctrl+C, SIGTERM or SIGHUP; a study can be resumed."""
