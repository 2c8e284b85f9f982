"""The exception tree: every error says in one sentence what was wrong, where, and what to do.

Each class also subclasses the builtin it stands for, so ``except ValueError`` keeps working.
"""


class SutureError(Exception):
    """Base of everything suture raises on purpose; the command line prints it and exits with 2."""

    exit_code = 2

    def __str__(self) -> str:
        # KeyError and OSError would print the repr of their arguments instead of the sentence.
        return str(self.args[0]) if self.args else type(self).__name__


class InvalidArgumentError(SutureError, ValueError):
    """An argument or option has a value that makes no sense."""


class UnknownNameError(SutureError, KeyError):
    """A name is not in its registry; the message says what was probably meant."""


class MissingFileError(SutureError, FileNotFoundError):
    """A file or directory that was named does not exist."""


class UnsafeFileError(SutureError, ValueError):
    """A file holds code, which suture refuses to run."""


class WeightsMismatchError(SutureError, ValueError):
    """Weights do not fit the model: tensors missing, unexpected or misshapen."""


class BaseMismatchError(SutureError, ValueError):
    """A patch was made for other weights than those it is applied to."""


class DataError(SutureError, ValueError):
    """Data cannot be used: unreadable, empty, mislabelled."""


class SplitOverlapError(DataError):
    """The same example stands in two splits that must be disjoint."""


class GroupError(SutureError, ValueError):
    """A specification of groups does not partition the parameters."""


class NonFiniteError(SutureError, ArithmeticError):
    """A loss, an output or a weight became NaN or infinite."""


class ConvergenceError(SutureError, RuntimeError):
    """An iteration did not reach the accuracy that was asked for."""


class RunError(SutureError, RuntimeError):
    """A run directory is in use, incomplete, or belongs to another case."""


class RequirementError(SutureError, RuntimeError):
    """A verdict or bound the user required was not met."""

    exit_code = 3
