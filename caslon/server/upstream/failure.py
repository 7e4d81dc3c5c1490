"""What can go wrong with an upstream, and what of it the client is told: never the upstream's words about our key."""

from caslon.server.errors import SERVER_ERROR, Refused

# Each is a label of the error counter, so there are few.
REASONS = {
    "unreachable": "it cannot be reached",
    "timeout": "it was silent for too long",
    "busy": "it has too much to do",
    "failed": "it failed",
    "cut": "it broke the answer off",
    "garbled": "it sent something that cannot be read",
    "unauthorized": "it does not accept the key it was shown",
    "refused": "it refuses the request",
}


class UpstreamFailure(Exception):
    """An upstream did not answer. `may_retry`: the same one may be asked again, in `retry_seconds` where it said so."""

    def __init__(
        self, reason: str, *, may_retry: bool = False, retry_seconds: float | None = None, message: str = ""
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_retry = may_retry
        self.retry_seconds = retry_seconds
        self.message = message

    @property
    def is_callers(self) -> bool:
        """Whether the request itself was refused: nobody else need be asked."""
        return self.reason == "refused"

    def refused(self, model: str) -> Refused:
        """Return what the client is told."""
        if self.is_callers:
            return Refused(
                400, f"the server behind '{model}' refuses the request: {self.message}", code="upstream_refused"
            )
        headers = {"retry-after": str(max(1, round(self.retry_seconds or 5)))}
        message = f"the server behind '{model}' gave no whole answer: {REASONS[self.reason]}"
        return Refused(503, message, code=f"upstream_{self.reason}", kind=SERVER_ERROR, headers=headers)


def garbled(value: object) -> UpstreamFailure:
    """Return the failure of an upstream that sent something of a wrong type."""
    return UpstreamFailure("garbled", message=f"unexpected {type(value).__name__}")
