"""Every error that Packhouse raises on purpose.

    PackhouseError
    ├── InputError            the configuration, a candidate or the data is wrong; nothing was started
    ├── EvaluationFailed      one candidate could not be evaluated on one accelerator; the others go on
    ├── PackagingFailed       one package could not be made; the others go on
    ├── RegistrationFailed    one package could not be published; the others go on
    ├── ArtifactError         the artifact store lost bytes, or it or the output folder cannot take them
    └── VerificationFailed    a package is not what it says it is

An error says what happened, where, and what to do about it. Its `is_transient` says whether trying the same again may help.
"""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

NO_ROOM, NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), (errno.EACCES, errno.EPERM, errno.EROFS)


class PackhouseError(Exception):
    """Base of all errors raised by Packhouse; `is_transient` says that the cause may pass, so that trying again may help."""

    def __init__(self, message: str = "", *, is_transient: bool = False) -> None:
        """Keep the message, and whether the cause may pass."""
        self.is_transient = is_transient
        super().__init__(message)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the input: where it is, what is wrong, and the remedy."""

    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        """Return one line: place, finding, remedy."""
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line} → {self.remedy}" if self.remedy else line


class InputError(PackhouseError):
    """The input is wrong in one or more places, all of them listed in `problems`."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep the problems and make the message one line per problem."""
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def at(cls, where: str, what: str, remedy: str = "") -> Self:
        """Make an error with a single problem."""
        return cls([Problem(where, what, remedy)])


class EvaluationFailed(PackhouseError):
    """A candidate could not be evaluated on an accelerator; the message is the reason."""


class PackagingFailed(PackhouseError):
    """A package could not be made; the message is the reason and the remedy."""


class RegistrationFailed(PackhouseError):
    """A package could not be published; the message is the reason and the remedy, `logs` has what was written there."""

    def __init__(self, message: str, *, is_transient: bool = False, logs: Mapping[str, str] | None = None) -> None:
        """Keep the message, whether the cause may pass, and logs by their names."""
        super().__init__(message, is_transient=is_transient)
        self.logs = dict(logs or {})


class ArtifactError(PackhouseError):
    """The artifact store cannot give back the bytes of a digest, or it or the output folder cannot take bytes."""


class VerificationFailed(PackhouseError):
    """A package was opened and is not what its manifest says."""


def explained(error: OSError) -> str:
    """Return what the system refused to do, and what to do about it where a disk is the cause."""
    if error.errno in NO_ROOM:
        return f"{error}; free space on that disk and run again"
    if error.errno in NOT_WRITABLE:
        return f"{error}; make it accessible to who runs this and run again"
    return str(error)
