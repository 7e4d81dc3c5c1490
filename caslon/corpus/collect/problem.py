"""What can go wrong with one item: an exception that becomes a reject of the corpus, not an end of the work."""


class ItemProblem(Exception):
    """An item that cannot be had. `code` is a reject code: fetch_failed, robots_denied, licence_denied, too_large, ..."""

    def __init__(self, code: str, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.status = status  # the HTTP status, 0 when there was no answer


class TryAgain(Exception):
    """A failure that may pass: a broken connection, or a status such as 503. `wait_seconds` is what the server asked for."""

    def __init__(self, reason: str, wait_seconds: float | None = None, status: int = 0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
        self.status = status
