"""What could not be done to check a package: the package is good as far as it was looked at, and this says how far that is."""

from packhouse.records import Record


class Caveat(Record):
    """In a word or two what is missing, such as ``not built``; why; and what to do about it."""

    what: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        """All of it in one line."""
        return f"{self.what}: {self.reason}; {self.remedy}"
