"""A request's body to its shape, off the event loop; fields that a lenient server leaves out are named in a header."""

from typing import TypeVar

from anyio import to_thread
from fastapi import Request

from caslon.server.service import Service
from caslon.server.wire import Wire, parse

Body = TypeVar("Body", bound=Wire)


async def read(service: Service, request: Request, shape: type[Body]) -> Body:
    """Return the body of a request as a shape; `Refused` (400) names the first field that is wrong."""
    body = await request.body()
    ignored: list[str] | None = [] if service.settings.lenient else None
    fields = await to_thread.run_sync(parse, shape, body, ignored)
    request.state.ignored = ignored or []  # the outermost middleware puts it into the header
    return fields
