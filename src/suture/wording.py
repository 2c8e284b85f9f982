"""Numbers and names in sentences: those of results, warnings and errors, wherever they are said."""

import re

# Control characters would make an SVG invalid and could steer a terminal; lone surrogates cannot be written
# as UTF-8; bidirectional overrides let a name rearrange the sentence it stands in.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")


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


def plain(thing: object, limit: int | None = None) -> str:
    """A foreign string on one line, without characters that act; shortened in the middle beyond `limit`.

    >>> plain("a\\nb"), plain("abcdefghij", 5)
    ('a b', 'ab…ij')
    """
    text = _UNSAFE.sub("\ufffd", re.sub(r"[\t\r\n]+", " ", str(thing)))
    if limit is None or len(text) <= limit:
        return text
    head = limit // 2
    return f"{text[:head]}…{text[len(text) - (limit - head - 1) :]}"
