"""What every command shares: how a program ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from synq_tune.errors import InputError, NonFiniteLossError

DONE, WRONG_INPUT, NOTHING_FINISHED, INTERRUPTED = 0, 2, 3, 130


def exit_code(
    main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None
) -> int:
    """Run a command; the user's mistakes become one line on stderr instead of a traceback.

    Args:
        main: takes the arguments (None = the process's own) and returns an exit code.
        argv: passed on to `main`.

    Returns:
        What `main` returned, 2 after an `InputError`, 3 where the only training or synthesis there was
        diverged, 130 after Ctrl+C.
    """
    try:
        return main(argv)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return WRONG_INPUT
    except NonFiniteLossError as error:
        print(f"error: {error}", file=sys.stderr)
        return NOTHING_FINISHED
    except KeyboardInterrupt:
        return INTERRUPTED
