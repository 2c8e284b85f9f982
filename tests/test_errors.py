"""The exception tree: sentences, builtins, exit codes."""

import builtins
import inspect

import pytest

from suture import errors
from suture.errors import MissingFileError, RequirementError, SutureError, UnknownNameError

TREE = [thing for _, thing in inspect.getmembers(errors, inspect.isclass) if thing.__module__ == errors.__name__]
LEAVES = [kind for kind in TREE if kind is not SutureError]


def test_there_is_a_tree() -> None:
    assert len(LEAVES) >= 12
    assert all(issubclass(kind, SutureError) for kind in TREE)


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_each_is_also_the_builtin_it_stands_for(kind: type[SutureError]) -> None:
    stands_for = [base for base in kind.__mro__ if getattr(builtins, base.__name__, None) is base]
    assert set(stands_for) - {Exception, BaseException, object}


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_each_says_when_it_is_raised_and_prints_its_sentence(kind: type[SutureError]) -> None:
    assert kind.__doc__
    assert kind.__name__ == "SutureError" or kind.__name__.endswith("Error")
    assert str(kind("there is no 'x'; did you mean 'y'?")) == "there is no 'x'; did you mean 'y'?"
    assert str(kind()) == kind.__name__


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_exit_codes_tell_bad_input_from_a_requirement_that_was_not_met(kind: type[SutureError]) -> None:
    assert kind.exit_code == (3 if kind is RequirementError else 2)


def test_code_that_knows_only_builtins_can_catch_them() -> None:
    for kind, builtin in ((UnknownNameError, KeyError), (MissingFileError, FileNotFoundError)):
        with pytest.raises(builtin):
            raise kind("a sentence")
