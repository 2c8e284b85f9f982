"""Tables in Markdown, for the pages of the benches."""

from collections.abc import Sequence


def pipes(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A heading and rows of as many cells."""
    lines = [list(head), ["---"] * len(head), *(list(line) for line in body)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
