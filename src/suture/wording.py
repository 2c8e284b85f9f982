"""Numbers in sentences: those of results, warnings and errors, wherever they are said."""


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] in per cent.

    >>> percent(0.048)
    '4.8 %'
    """
    return f"{100 * share:.{digits}f} %"


def several(n: int, thing: str, things: str | None = None) -> str:
    """A count with its noun.

    >>> several(1, "error"), several(3, "error"), several(2, "class", "classes")
    ('1 error', '3 errors', '2 classes')
    """
    return f"{int(n):,} {thing if n == 1 else things or thing + 's'}"
