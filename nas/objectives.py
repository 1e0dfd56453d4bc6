"""One objective made of several."""

from __future__ import annotations

from nas.calls import explained
from nas.checks import as_plain, check_number

__all__ = ["weighted_product"]


@explained()
def weighted_product(
    accuracy: float, latency: float, target: float, alpha: float = -0.07, beta: float = -0.07
) -> float:
    """The reward of MnasNet (Tan et al. 2019, arXiv 1807.11626, equation 2): two objectives in one, to be maximised.

    `accuracy * (latency / target) ** w`, where w is `alpha` within the target and `beta` past it. The defaults are the
    paper's soft constraint (5 % more accuracy is worth twice the latency); `alpha=0, beta=-1` is its hard one.

    Args:
        accuracy: or another measure of quality, not negative.
        latency: or another cost, above 0, in any unit.
        target: the cost that is aimed at, in the same unit.
        alpha, beta: the exponents within the target and past it.

    Raises:
        NasValueError: a latency or a target that is not above 0, or a negative accuracy.

    Example:
        >>> weighted_product(0.9, latency=10.0, target=20.0, alpha=0.0, beta=-1.0)
        0.9
        >>> weighted_product(0.9, latency=40.0, target=20.0, alpha=0.0, beta=-1.0)
        0.45
    """
    where = "weighted_product"
    for name, number in (("latency", latency), ("target", target)):
        check_number(name, as_plain(number), above=0, infinite=True, where=where)
    check_number("accuracy", as_plain(accuracy), least=0, infinite=True, where=where)
    for name, number in (("alpha", alpha), ("beta", beta)):
        check_number(name, as_plain(number), where=where)
    return float(accuracy * (latency / target) ** (alpha if latency <= target else beta))
