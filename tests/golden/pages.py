"""The tables of the documentation that are made of measured rows: what stands below ``<!-- table: FILE NAME -->``."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from suture.bench import natural, repairs, scores

DOCS = Path(__file__).parents[2] / "docs"
TABLES: dict[str, Callable[..., str]] = repairs.TABLES | natural.TABLES | scores.TABLES
TABLE = re.compile(r"<!-- table: (\S+) (\w+) -->\n(?:\|.*\n)*")


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of a file, by its path in docs, as a study wrote them; None where a cell is empty."""
    found = pd.read_csv(DOCS / name, keep_default_na=False, na_values=[""])
    return [
        {str(key): None if pd.isna(value) else value for key, value in row.items()} for row in found.to_dict("records")
    ]


def rewritten(page: str) -> str:
    """A page with its tables as the rows say now."""
    return TABLE.sub(lambda at: f"<!-- table: {at[1]} {at[2]} -->\n{TABLES[at[2]](rows_of(at[1]))}\n", page)


def pages() -> Iterator[Path]:
    """The pages that have such a table."""
    return (path for path in sorted(DOCS.glob("*.md")) if TABLE.search(path.read_text(encoding="utf-8")))


def rewrite() -> Iterator[Path]:
    """Rewrite every page that has such a table, and say which."""
    for path in pages():
        path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
        yield path
