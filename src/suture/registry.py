"""Name → thing, with "did you mean": how localizers, tasks, treatments and causes are extended."""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from suture.errors import InvalidArgumentError, UnknownNameError

T = TypeVar("T")

LISTED = 30  # names in an error message before it is cut


def suggest(name: str, known: list[str]) -> str:
    """``"; did you mean 'a'?"`` for a near miss, else the list of what exists."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    listed = ", ".join(known[:LISTED]) or "none"
    return f"there are {listed}" + (f" and {len(known) - LISTED} more" if len(known) > LISTED else "")


class Registry(Mapping[str, T]):
    """A mapping that is filled by decorating and that refuses to be overwritten.

    A class or function that is defined once more, as when a notebook's cell is run again, takes its own place.

    >>> shapes = Registry("shape")
    >>> @shapes.register("circle")
    ... def circle(): ...
    >>> shapes["circel"]
    Traceback (most recent call last):
    suture.errors.UnknownNameError: no shape is called 'circel'; did you mean 'circle'?
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds a thing under a name.

        Raises:
            InvalidArgumentError: the name is taken.
        """

        def add(thing: T) -> T:
            if name in self._things and not _redefined(self._things[name], thing):
                raise InvalidArgumentError(f"a {self.kind} called '{name}' exists already; choose another name")
            self._things[name] = thing
            return thing

        return add

    def __getitem__(self, name: str) -> T:
        try:
            return self._things[name]
        except KeyError:
            raise UnknownNameError(f"no {self.kind} is called '{name}'; {suggest(name, list(self._things))}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)


def _redefined(old: Any, new: Any) -> bool:
    """Whether both are the class or function of one place."""
    places = [
        (getattr(thing, "__module__", None), getattr(thing, "__qualname__", None))
        for thing in map(inspect.unwrap, (old, new))
    ]
    return places[0] == places[1] and None not in places[0]
