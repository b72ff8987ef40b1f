"""The first configurations of a study: spread over its space, so that no two are nearly the same.

A Latin hypercube takes every value of every key about equally often. Of many random ones that is
taken whose nearest two configurations have the fewest values in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synq_tune.config import Domain

_DRAWS = 64
"""Latin hypercubes of which the best is taken."""
_PAIRS = _DRAWS * 128**2
"""Pairs that are looked at, at most: among thousands of configurations some are alike whatever is
drawn."""

Params = dict[str, Any]


def spread(
    domains: Mapping[str, Domain], count: int, seed: int, beside: Sequence[Params] = ()
) -> list[Params]:
    """`count` configurations of the searched keys; the same for the same arguments.

    Args:
        domains: searched key → its values.
        count: how many, at least 1.
        seed: of the random draws.
        beside: configurations that are tried anyway.
    """
    if not domains:
        return [{} for _ in range(count)]
    generator = np.random.default_rng(seed)
    size = count + len(beside)
    draws = [_draw(domains, count, generator) for _ in range(min(_DRAWS, _PAIRS // size**2))]
    if not draws:
        return _draw(domains, count, generator)
    return min(draws, key=lambda drawn: _closeness([*beside, *drawn], list(domains)))


def _draw(
    domains: Mapping[str, Domain], count: int, generator: np.random.Generator
) -> list[Params]:
    """One Latin hypercube: each key's range in `count` equal parts, a point in each."""
    shares = [(generator.permutation(count) + generator.random(count)) / count for _ in domains]
    points = zip(*shares, strict=True)
    return [
        {key: at(d, float(u)) for (key, d), u in zip(domains.items(), point, strict=True)}
        for point in points
    ]


def at(domain: Domain, share: float) -> Any:
    """The value at a share of a domain, from 0 to below 1: equal shares are equally likely."""
    if domain.choice is not None:
        return domain.values[int(share * len(domain.values))]
    low, high = domain.values
    if domain.float_ is None:
        low, high = low - 0.5, high + 0.5  # each integer gets the same share
    if domain.log:
        value = float(np.exp(np.log(low) + share * (np.log(high) - np.log(low))))
    else:
        value = low + share * (high - low)
    low, high = domain.values
    return min(max(value if domain.float_ is not None else round(value), low), high)


def _closeness(configurations: Sequence[Params], keys: Sequence[str]) -> tuple[int, int]:
    """(most values that two have in common, sum of squares over all pairs); small is spread."""
    columns = [np.array([repr(params.get(key)) for params in configurations]) for key in keys]
    equal = sum((column[:, None] == column[None, :]).astype(int) for column in columns)
    pairs = equal[np.triu_indices(len(configurations), 1)]
    return int(pairs.max(initial=0)), int((pairs**2).sum())
