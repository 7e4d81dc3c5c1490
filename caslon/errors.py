"""What can go wrong, as exceptions that carry the exit code a user or a script sees.

An error says what is wrong, where, and what to do. `assert` is kept for our own mistakes.
"""


class CaslonError(Exception):
    """Work that failed. `where` is a place (file, line, key, id); `fix` says what to do, `next` is the command to run then."""

    exit_code = 1
    code: str | None = None  # the word for it that clients of the API know

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix
        self.next: str | None = None

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  at: {self.where}")
        if self.code:
            lines.append(f"  code: {self.code}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        if self.next:
            lines.append(f"  next: {self.next}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _rebuild(kind: type[CaslonError], what: str, where: str | None, fix: str | None) -> CaslonError:
    return kind(what, where=where, fix=fix)


class UserError(CaslonError):
    """The user's mistake: a wrong setting, a missing file, a request that cannot be met."""

    exit_code = 2


class Stopped(CaslonError):
    """The work was asked to stop; running the same command again goes on from here."""

    exit_code = 3


class StorageError(CaslonError):
    """The disk is full, or a stored file is missing or damaged."""

    exit_code = 4


class Diverged(CaslonError):
    """Training produced numbers that are not finite, and rewinding did not help."""

    exit_code = 5


class OutOfMemory(CaslonError):
    """The work does not fit into memory even in its smallest form."""

    exit_code = 6
