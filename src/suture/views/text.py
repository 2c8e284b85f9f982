"""Numbers and foreign strings as text: the same in the terminal, on the page and in figures."""

import math
from typing import Any

from suture import wording
from suture.wording import plain

NOTHING = "–"  # what stands where no value is known

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def known(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def number(value: Any, digits: int = 3) -> str:
    """`digits` significant digits.

    >>> number(20.0), number(0.014771), number(1234567.0), number(float("nan"))
    ('20.0', '0.0148', '1,234,567', '–')
    """
    if value is None or not known(float(value)):
        return NOTHING
    value = float(value)
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4 or magnitude > 8:
        return _scientific(value, digits)
    return _minus(f"{value:,.{max(digits - 1 - magnitude, 0)}f}")


def count(value: Any) -> str:
    """A whole number with its thousands apart."""
    return _minus(f"{round(value):,}") if value is not None and known(float(value)) else NOTHING


def signed(value: Any) -> str:
    """A whole number with its sign.

    >>> signed(78), signed(-3), signed(0)
    ('+78', '−3', '0')
    """
    if value is None or not known(float(value)):
        return NOTHING
    return _minus(f"{round(value):+,}") if round(value) else "0"


def percent(share: Any, digits: int = 1) -> str:
    r"""A share in [0, 1] in per cent; the space does not break.

    >>> percent(0.80647)
    '80.6\xa0%'
    """
    if share is None or not known(float(share)):
        return NOTHING
    rounded = round(float(share), digits + 2) + 0.0  # no minus before a zero
    return _minus(wording.percent(rounded, digits).replace(" ", "\N{NO-BREAK SPACE}"))


def points(change: Any) -> str:
    """A difference of two shares in percentage points.

    >>> points(0.0394), points(-0.001), points(0.0)
    ('+3.9 points', '−0.1 points', '0.0 points')
    """
    if change is None or not known(float(change)):
        return NOTHING
    tenths = round(1000 * change)
    return _minus(f"{tenths / 10:+.1f} points") if tenths else "0.0 points"


def p_value(p: Any) -> str:
    """A probability of a test.

    >>> p_value(5.53e-9), p_value(0.0312), p_value(1.0)
    ('5.5 × 10⁻⁹', '0.031', '1')
    """
    if p is None or not known(float(p)):
        return NOTHING
    if p == 0:
        return "< 10⁻³⁰⁰"
    if p < 1e-3:
        return _scientific(p, 2)
    return f"{p:.2g}"


def seconds(duration: Any) -> str:
    """A duration in units one can picture.

    >>> seconds(0.25), seconds(12.2), seconds(200), seconds(7300)
    ('0.2 s', '12 s', '3 min 20 s', '2 h 1 min')
    """
    if duration is None or not known(float(duration)):
        return NOTHING
    if duration < 10:
        return f"{duration:.1f} s"
    whole = round(duration)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def flops(operations: Any) -> str:
    """A number of floating-point operations with its prefix.

    >>> flops(704293448704.0)
    '704 GFLOP'
    """
    if not operations or not known(float(operations)):
        return NOTHING
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if operations >= 10**power:
            return f"{number(operations / 10**power)} {prefix}FLOP"
    return f"{count(operations)} FLOP"


def ratio(fixed: int, broken: int) -> str:
    """Fixed to broken, per broken one.

    >>> ratio(129, 51), ratio(12, 0), ratio(0, 0)
    ('2.5 : 1', 'nothing broke', 'nothing moved')
    """
    if broken:
        return f"{fixed / broken:.1f} : 1"
    return "nothing broke" if fixed else "nothing moved"


def listed(names: list[str], limit: int = 8) -> str:
    """Names in a sentence, the rest counted.

    >>> listed(["a", "b", "c"]), listed(["a", "b", "c"], 2)
    ('a, b and c', 'a, b and 1 more')
    """
    shown = [plain(name, 60) for name in names[:limit]]
    if len(names) > limit:
        return f"{', '.join(shown)} and {len(names) - limit} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _scientific(value: float, digits: int) -> str:
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return _minus(f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}")


def _minus(text: str) -> str:
    return text.replace("-", "−")
