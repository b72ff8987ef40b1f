"""Synthetic datasets made from the teacher alone."""

from synq_tune.names import resolve
from synq_tune.own_code import is_own_code
from synq_tune.synthesis.method import Synthesizer
from synq_tune.synthesis.own import own_synthesizer


def synthesizer(method: str) -> Synthesizer:
    """The method of that name, or the user's own.

    Raises:
        InputError: there is no such method; the message says which there are.
    """
    return own_synthesizer(method) if is_own_code(method) else resolve("synthesis method", method)
