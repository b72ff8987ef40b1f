"""The assignment of least predicted divergence within a budget: an integer program, solved exactly.

HAWQ-V3 (Yao et al., 2021) solves the same program for one width a layer. Here weights and values
have a width each: x[key, width] ∈ {0, 1}, one a key. A product's bit operations are linear in
z[call, w, a] = x[weight, w] · x[values, a], whose marginals are those x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from synq_tune.allocation.costs import Budget, check_feasible, keeps
from synq_tune.allocation.network import FLOAT, WIDTHS, Assignment, Call, Key, Network
from synq_tune.export.packing import packed_size
from synq_tune.process.quiet import quiet_stdout

Losses = Mapping[Key, Mapping[int, float]]
"""Predicted divergence of each key at each width."""
_INFEASIBLE = 2
"""HiGHS's word for it, as SciPy hands it on."""
_SCALE = 1e4
"""HiGHS ends within 1e-6 of the best: beside losses of this size that is nothing."""
_MARGIN = 2e-6
"""By so much a share of a limit HiGHS may exceed it."""


def predicted(losses: Losses, bits: Assignment) -> float:
    """Sum of the divergences of single widths."""
    return sum(each[bits[key]] for key, each in losses.items())


def solve(
    network: Network, losses: Losses, budget: Budget, widths: Sequence[int] = WIDTHS
) -> dict[Key, int]:
    """The assignment of least predicted divergence that keeps the budget.

    Args:
        losses: of every free key that may be chosen; others keep the space's widths.
        widths: to choose from.

    Returns:
        Bits of every key, fixed ones included.

    Raises:
        InputError: no assignment keeps the budget; the message says the smallest that some do.
    """
    least = {**network.uniform, **dict.fromkeys(losses, min(widths))}
    check_feasible(network, least, budget)
    share = 1.0
    while chosen := _Program(network, losses, widths).solve(budget, share):
        found = {**network.uniform, **chosen}
        if keeps(network, found, budget):
            return found
        share -= _MARGIN
    return least  # nothing else is left within so narrow a budget


@dataclass
class _Program:
    """Columns and rows of the integer program."""

    network: Network
    losses: Losses
    widths: Sequence[int]
    _columns: dict[tuple, int] = field(default_factory=dict)
    _rows: list[tuple[dict[int, float], float, float]] = field(default_factory=list)

    def solve(self, budget: Budget, share: float) -> dict[Key, int] | None:
        """The best widths within this share of the budget; None where there are none."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        for key in self.losses:
            self._one({self._column(key, width): 1.0 for width in self.widths}, 1.0)
        self._limit(budget, share)
        matrix, low, high = self._matrix()
        costs, is_whole = self._costs()
        with quiet_stdout():  # HiGHS names a function of its own now and then
            found = milp(
                costs,
                integrality=is_whole,
                bounds=Bounds(0, 1),
                constraints=LinearConstraint(matrix, low, high),
                options={"mip_rel_gap": 0.0},
            )
        if found.status == _INFEASIBLE:
            return None
        if not found.success:
            raise RuntimeError(f"the integer program was not solved: {found.message}")
        return {
            key: max(self.widths, key=lambda width: found.x[self._column(key, width)])
            for key in self.losses
        }

    def _column(self, *name: object) -> int:
        return self._columns.setdefault(name, len(self._columns))

    def _one(self, terms: dict[int, float], total: float) -> None:
        self._rows.append((terms, total, total))

    def _at_most(self, terms: dict[int, float], fixed: float, most: float) -> None:
        """Σ terms + fixed ≤ most, as shares of `most`."""
        scaled = {column: cost / most for column, cost in terms.items()}
        self._rows.append((scaled, -np.inf, 1.0 - fixed / most))

    def _limit(self, budget: Budget, share: float) -> None:
        counts, weights = self.network.counts, self.network.of("weights")
        if budget.max_size is not None:
            self._sum(weights, lambda k, w: packed_size(counts[k], w), budget.max_size * share)
        for kind in ("weights", "activations") if budget.max_bits is not None else ():
            free = self.network.of(kind, free=True)
            total = sum(counts[key] for key in free)
            if total:
                most = budget.max_bits * total * share
                self._sum(free, lambda k, w: counts[k] * w, most)
        if budget.max_bops is not None:
            self._limit_operations(budget.max_bops * share)

    def _sum(self, keys: Sequence[Key], cost: object, most: float) -> None:
        terms = {
            self._column(key, width): float(cost(key, width))
            for key in keys
            if key in self.losses
            for width in self.widths
        }
        fixed = [key for key in keys if key not in self.losses]
        self._at_most(terms, sum(cost(k, self.network.uniform[k]) for k in fixed), most)

    def _limit_operations(self, most: float) -> None:
        terms: dict[int, float] = {}
        fixed = 0.0
        for number, call in enumerate(self.network.calls):
            chosen = [side for side in call.sides if side in self.losses]
            if not chosen:
                fixed += call.macs * self._fixed(call.sides[0]) * self._fixed(call.sides[1])
            elif len(chosen) == 1:
                self._add_single(terms, call, chosen[0])
            else:
                self._add_product(terms, call, number)
        self._at_most(terms, fixed, most)

    def _fixed(self, side: Key | None) -> int:
        return FLOAT if side is None else self.network.uniform[side]

    def _add_single(self, terms: dict[int, float], call: Call, side: Key) -> None:
        other = call.sides[1] if call.sides[0] == side else call.sides[0]
        for width in self.widths:
            column = self._column(side, width)
            terms[column] = terms.get(column, 0.0) + call.macs * width * self._fixed(other)

    def _add_product(self, terms: dict[int, float], call: Call, number: int) -> None:
        """z of a call: a row or a column of it sums to the x of that width."""
        pairs = {(w, a): self._column(number, w, a) for w in self.widths for a in self.widths}
        terms |= {column: call.macs * w * a for (w, a), column in pairs.items()}
        for position, side in enumerate(call.sides):
            for width in self.widths:
                row = {c: 1.0 for pair, c in pairs.items() if pair[position] == width}
                self._one({**row, self._column(side, width): -1.0}, 0.0)

    def _matrix(self) -> tuple[object, np.ndarray, np.ndarray]:
        from scipy.sparse import coo_array

        entries = [(r, c, v) for r, (terms, *_) in enumerate(self._rows) for c, v in terms.items()]
        rows, columns, values = zip(*entries, strict=True)
        shape = len(self._rows), len(self._columns)
        matrix = coo_array((values, (rows, columns)), shape=shape).tocsr()
        return matrix, *(np.array([row[i] for row in self._rows]) for i in (1, 2))

    def _costs(self) -> tuple[np.ndarray, np.ndarray]:
        """Scaled losses, and which columns are whole: where x is, z follows."""
        costs, is_whole = np.zeros(len(self._columns)), np.zeros(len(self._columns))
        most = max((abs(v) for each in self.losses.values() for v in each.values()), default=0.0)
        for key, each in self.losses.items():
            for width in self.widths:
                costs[self._column(key, width)] = each[width] * _SCALE / (most or 1.0)
                is_whole[self._column(key, width)] = 1
        return costs, is_whole
