"""Every failure that a user can cause or meet: one line that names the problem and the fix.

The exit code belongs to the kind of error, so that scripts can tell them apart (docs/cli.md).
"""


class DclipError(Exception):
    """A problem to be told in one line.

    Args:
        message: what is wrong, naming the offending value.
        fix: what to do about it, as a command where one exists.
    """

    exit_code = 1

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class BadInput(DclipError):
    """An option, file, prompt or config that cannot be used."""

    exit_code = 2


class MissingArtifact(DclipError):
    """A stage needs an artifact that the store does not hold."""

    exit_code = 3


class CorruptArtifact(DclipError):
    """An artifact, checkpoint or manifest whose content is not what it should be."""

    exit_code = 4


class StoreBusy(DclipError):
    """Another process is writing the same artifact."""

    exit_code = 5


class StoreError(DclipError):
    """The store cannot be written or read: full disk, read-only, newer format."""

    exit_code = 6
