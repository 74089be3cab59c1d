"""The choice of generators: families that move as few weights as they can.

Scales of one space can be combined, and each combination would do as well. Where one of them
moves incoming weights alone (a norm forgets them), or running statistics alone, it has to be
among the generators: the minimum of mass is judged generator by generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from pyro_bnn.symmetry.group import Family, SymmetryGroup, Term
from pyro_bnn.symmetry.translation import null_blocks

Row = dict[Term, Fraction]


def sparse(group: SymmetryGroup) -> SymmetryGroup:
    """Return the same group with families of scales that move fewer blocks of weights.

    Families of one space are added to one another as long as that shortens one of them; blocks
    to which anything may be added, and running statistics, count last.
    """
    families = dict(group.families)
    scales = group.kind("scale")
    for space in dict.fromkeys((family.space, family.size) for family in scales.values()):
        own = {n: f for n, f in scales.items() if (f.space, f.size) == space}
        rows = {name: _row(family) for name, family in own.items()}
        if _shortened(group, rows):
            families |= {name: _family(own[name], row) for name, row in rows.items()}
    return replace(group, families=families)


def _shortened(group: SymmetryGroup, rows: dict[str, Row]) -> bool:
    """Add rows to one another in place while that shortens one; say whether any did."""
    null = null_blocks(group)

    def length(row: Row) -> tuple[int, int]:
        told = [t for t in row if t.site not in group.statistics and (t.site, t.block) not in null]
        return len(told), len(row)

    changed, going = False, True
    while going:
        going = False
        for name in rows:
            for other in rows:
                if other == name:
                    continue
                for term in [term for term in rows[name] if term in rows[other]]:
                    share = -rows[name][term] / rows[other][term]
                    shorter = _sum(rows[name], rows[other], share)
                    if length(shorter) < length(rows[name]):
                        rows[name] = shorter
                        changed = going = True
                        break
    return changed


def _sum(row: Mapping[Term, Fraction], other: Mapping[Term, Fraction], share: Fraction) -> Row:
    total = {t: row.get(t, Fraction(0)) + share * other.get(t, 0) for t in (*row, *other)}
    return {term: exponent for term, exponent in total.items() if exponent}


def _row(family: Family) -> Row:
    row: Row = {}
    for term in family.terms:
        key = replace(term, exponent=1.0)
        exponent = Fraction(term.exponent).limit_denominator()
        row[key] = row.get(key, Fraction(0)) + exponent
    return {key: exponent for key, exponent in row.items() if exponent}


def _family(family: Family, row: Row) -> Family:
    """Return a family with other terms; its first exponent is positive."""
    first = next(iter(row.values()))
    turn = 1 if first > 0 else -1
    terms = tuple(replace(term, exponent=float(turn * e)) for term, e in row.items())
    return replace(family, terms=terms)
