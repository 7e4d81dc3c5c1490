"""Whatever goes wrong while a request is answered, as OpenAI's error body: `{"error": {message, type, param, code}}`."""

from typing import Any

from caslon.errors import CaslonError, UserError

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
# How the API's description shows them.
ERROR_DESCRIPTION: dict[str, Any] = {
    "description": "what is wrong: a message, a type, a code and the field",
    "content": {"application/json": {"schema": {"type": "object", "required": ["error"]}}},
}


class Refused(Exception):
    """A request that gets an error answer, with the HTTP status and what the client may read."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        kind: str = INVALID_REQUEST,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Return the error in OpenAI's shape."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


class HookRefusal(Exception):
    """Raised by a program's own code to refuse a request; its text is told to the client."""


def invalid(message: str, param: str | None, code: str = "invalid_parameter") -> Refused:
    """Return a 400 about one field."""
    return Refused(400, message, code=code, param=param)


def refused_from(error: BaseException) -> Refused:
    """Return what a client may know about an error: all of its own mistakes, nothing of our inside."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, HookRefusal):
        return Refused(400, str(error), code="refused_by_hook")
    if isinstance(error, UserError):
        message = f"{error.what} ({error.fix})" if error.fix else error.what
        return invalid(message, getattr(error, "field", None), getattr(error, "code", None) or "invalid_parameter")
    if isinstance(error, CaslonError):
        return Refused(500, error.what, code="internal_error", kind=SERVER_ERROR)
    return Refused(500, "the server failed to answer; its log has the cause", code="internal_error", kind=SERVER_ERROR)
