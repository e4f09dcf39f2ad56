"""The errors that Refit raises on purpose. The command line prints such an error as one line, without a traceback."""

from typing import ClassVar


class RefitError(Exception):
    """Base of every error that Refit raises on purpose.

    `is_resumable` is true if finished work stays in the store, so that the same command resumes the run.
    """

    is_resumable: ClassVar[bool] = False


class InputError(RefitError):
    """Bad input from the user: the command line ends with exit code 2.

    `where` names the file and, if there is one, the dotted key, row or column; `problem` gives the offending value and
    what is allowed.
    """

    def __init__(self, where: object, problem: str):
        self.where, self.problem = str(where), " ".join(problem.split())
        super().__init__(self.where, self.problem)  # pickle calls __init__ with these arguments

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class SourceChangedError(InputError):
    """The source of a plugin was edited during the run.

    Identities contain the digest of the source. Results of the edited source would be stored under the identity of the
    old source, so the run must stop.
    """


class MisspeltHookError(TypeError):
    """A class defines a name that is nearly the name of a hook of its base class, and would therefore never be called."""


class GivenBack(RefitError):  # noqa: N818  (a request, not a fault)
    """A worker stopped its retrain because the driver requested it (`Backend.give_back`), after storing a snapshot of the training."""
