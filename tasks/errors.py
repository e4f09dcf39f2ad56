"""Errors that are for people: one line, no traceback."""

from typing import ClassVar


class RefitError(Exception):
    """Base of every error Refit raises on purpose. `is_resumable`: what is finished is kept, and the same command goes on."""

    is_resumable: ClassVar[bool] = False


class InputError(RefitError):
    """Bad input from the user: the command line ends with exit code 2.

    `where` names the file and, when there is one, the dotted key, row or column; `problem` gives the offending value and what is allowed.
    """

    def __init__(self, where: object, problem: str):
        self.where, self.problem = str(where), " ".join(problem.split())
        super().__init__(self.where, self.problem)  # both, so that the error survives a process boundary

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class SourceChangedError(InputError):
    """The source of a plugin was edited while it ran, so that nothing it computes from now on belongs to its identity."""


class MisspeltHookError(TypeError):
    """A class defines a name that is nearly the name of a hook of its base class, so that it would never be called."""


class GivenBack(RefitError):  # noqa: N818  (a wish, not a fault)
    """A training was asked to stop where it is, and is stored."""
