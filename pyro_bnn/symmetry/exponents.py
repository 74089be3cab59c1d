"""Sparse homogeneous linear systems: the exponents that a computation lets through.

Scaling exponents live over the rationals, sign exponents over the field of two elements;
the equations are the same. The null space is the group.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from fractions import Fraction

Row = dict[Hashable, Fraction]


class LinearSystem:
    """A homogeneous linear system, solved as its equations arrive.

    Parameters
    ----------
    modulus : int
        0 for rational coefficients, 2 for the field of two elements.
    """

    def __init__(self, modulus: int = 0) -> None:
        self.modulus = modulus
        self._solved: dict[Hashable, Row] = {}
        self._order: dict[Hashable, int] = {}

    def declare(self, variable: Hashable, priority: int) -> None:
        """Register a variable; of an equation the one of highest priority is solved for."""
        self._order.setdefault(variable, priority)

    def add(self, equation: Mapping[Hashable, int | Fraction]) -> bool:
        """Add the equation that a combination of declared variables is zero.

        Returns
        -------
        bool
            Whether the equation says anything new.
        """
        row = self.reduce({v: Fraction(c) for v, c in equation.items()})
        if not row:
            return False
        pivot = max(row, key=lambda v: self._order[v])
        scale = row.pop(pivot)
        self._solved[pivot] = {v: self._field(-c / scale) for v, c in row.items()}
        return True

    def reduce(self, row: Mapping[Hashable, Fraction]) -> Row:
        """Return a combination of variables in terms of the free ones."""
        result: Row = {}
        for variable, coefficient in row.items():
            for free, share in self.value(variable).items():
                total = self._field(result.get(free, Fraction(0)) + coefficient * share)
                if total:
                    result[free] = total
                else:
                    result.pop(free, None)
        return result

    def value(self, variable: Hashable) -> Row:
        """Return one variable in terms of the free ones."""
        solution = self._solved.get(variable)
        if solution is None:
            return {variable: Fraction(1)}
        if any(v in self._solved for v in solution):
            solution = self.reduce(solution)
            self._solved[variable] = solution
        return solution

    def _field(self, number: Fraction) -> Fraction:
        if not self.modulus:
            return number
        return Fraction(number.numerator * number.denominator % self.modulus)
