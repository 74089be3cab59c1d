"""When the mass matrix is learned: Stan's three phases with doubling windows."""

from __future__ import annotations

__all__ = ["window_ends"]


def window_ends(num_steps: int) -> tuple[int, list[int]]:
    """Lay the windows of warm-up.

    A first phase lets the chains find the typical set; a series of windows, each twice as long as
    the one before, learns the mass matrix; a last phase settles the step size. 75, 25 and 50 steps
    as in Stan, or 15, 75 and 10 % of a warm-up too short for them; but ten steps at least settle
    the step size, whose first steps after a new mass matrix are large.

    Parameters
    ----------
    num_steps : int
        Length of warm-up.

    Returns
    -------
    start : int
        The first step whose draw counts for the mass matrix.
    ends : list of int
        Each window's last step, exclusive.

    Examples
    --------
    >>> window_ends(1000)
    (75, [100, 150, 250, 450, 950])
    >>> window_ends(100)
    (15, [90])
    >>> window_ends(20)
    (3, [10])
    """
    if num_steps < 20:
        return num_steps, []
    first, width, last = 75, 25, 50
    if num_steps < first + width + last:
        first, last = int(0.15 * num_steps), max(10, int(0.1 * num_steps))
        width = num_steps - first - last
    ends: list[int] = []
    start, stop = first, num_steps - last
    while start < stop:
        end = start + width
        # A next window that would not fit is joined to this one.
        if end + 2 * width > stop:
            end = stop
        ends.append(end)
        start, width = end, 2 * width
    return first, ends
