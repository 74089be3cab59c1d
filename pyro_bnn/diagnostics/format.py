"""Numbers as people read them."""

from __future__ import annotations

import math
from typing import Any

ABSENT = "\N{EN DASH}"


def number(value: Any, fixed: bool = False) -> str:
    """Write a number in three or four significant digits, thousands separated.

    Parameters
    ----------
    value
        A number, a string (returned as it is), or None.
    fixed
        Three decimals always, for columns of R-hat.

    Returns
    -------
    str
        An en dash for None and NaN.

    Examples
    --------
    >>> number(0.97531), number(1234567), number(1.0123, fixed=True), number(float("nan"))
    ('0.9753', '1,234,567', '1.012', '–')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ABSENT
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if isinstance(value, float) and abs(value) >= 1e9:
        return f"{value:.1e}"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    if fixed:
        return f"{value:.3f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:.4g}" if abs(value) < 10 else f"{value:.3g}"


def percent(share: float) -> str:
    """Write a share in whole percent, 99 and 1 rather than a false 100 and 0.

    Examples
    --------
    >>> [percent(share).replace(chr(160), " ") for share in (0.756, 0.9999, 1.0)]
    ['76 %', '99 %', '100 %']
    """
    whole = round(100 * share)
    if 0 < share < 1:
        whole = min(max(whole, 1), 99)
    return f"{whole}\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """Write seconds as people say them.

    Examples
    --------
    >>> duration(73.2), duration(9.87), duration(7320), duration(float("nan"))
    ('1 min 13 s', '9.9 s', '2 h 2 min', '–')
    """
    if math.isnan(seconds):
        return ABSENT
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
