"""A small client of the OpenAI protocol, free of torch: for the terminal, the serve stage, retrieval and agents.

Works against caslon's own server, vLLM, llama-server, Ollama or a hosted model.
Source: https://platform.openai.com/docs/api-reference
"""

import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

from caslon.errors import CaslonError, UserError

CONNECT_TIMEOUT_SECONDS = 10.0
READ_TIMEOUT_SECONDS = 600.0

Message = Mapping[str, Any]


class ServerRefused(UserError):
    """The server answered with an error; `status` and `code` say which."""

    def __init__(self, message: str, *, status: int, code: str | None, where: str) -> None:
        super().__init__(message, where=where)
        self.status = status
        self.code = code


class ServerUnreachable(CaslonError):
    """No answer, or half of one."""


class Client:
    """Asks one server. Use it as a context manager, or close it."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout_seconds: float = READ_TIMEOUT_SECONDS) -> None:
        self.url = _base_url(url)
        self._http = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS),
            # A proxy from the environment cannot reach this machine's own loopback address.
            trust_env=not is_loopback(self.url),
        )

    def models(self) -> list[str]:
        """Return the names of the models the server offers."""
        return [card["id"] for card in self.get_json("/v1/models")["data"]]

    def only_model(self) -> str:
        """Return the name of the server's model; `UserError` when it offers several or none."""
        names = self.models()
        if len(names) == 1:
            return names[0]
        raise UserError(
            f"the server offers {len(names)} models: {', '.join(names)}",
            where=self.url,
            fix="name one: --model-name NAME",
        )

    def complete(self, model: str, prompt: str | Sequence[int], **fields: Any) -> dict[str, Any]:
        """Return the server's answer to a text completion, as OpenAI shapes it."""
        return self.post_json("/v1/completions", {"model": model, "prompt": prompt, **fields})

    def chat(self, model: str, messages: Sequence[Message], **fields: Any) -> dict[str, Any]:
        """Return the server's answer to a conversation, as OpenAI shapes it."""
        return self.post_json("/v1/chat/completions", {"model": model, "messages": list(messages), **fields})

    def stream_completion(self, model: str, prompt: str, **fields: Any) -> Iterator[dict[str, Any]]:
        """Yield the pieces of a text completion. Closing the iterator stops the server's work."""
        return self._stream("/v1/completions", {"model": model, "prompt": prompt, **fields})

    def stream_chat(self, model: str, messages: Sequence[Message], **fields: Any) -> Iterator[dict[str, Any]]:
        """Yield the pieces of an answer to a conversation. Closing the iterator stops the server's work."""
        return self._stream("/v1/chat/completions", {"model": model, "messages": list(messages), **fields})

    def get_json(self, path: str) -> dict[str, Any]:
        """Return the JSON object at a path."""
        return _object(self._request("GET", path), path)

    def get_text(self, path: str) -> str:
        """Return the text at a path."""
        return self._request("GET", path).text

    def post_json(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON object a path answers with."""
        return _object(self._request("POST", path, body), path)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return _checked(response)

    def _stream(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        try:
            with self._http.stream("POST", path, json={**body, "stream": True}) as response:
                if response.is_error:
                    response.read()
                yield from _events(_checked(response))
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> CaslonError:
        reason = str(error) or type(error).__name__
        return ServerUnreachable(
            f"no answer from the server: {reason}",
            where=self.url,
            fix="is it running? start it with: caslon serve MODEL",
        )


def is_loopback(url: str) -> bool:
    """Return whether a URL leads to this very machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"'{url}' is no server address", fix="give one like http://127.0.0.1:8000")
    # Both http://host:8000 and http://host:8000/v1 are in use for the same server.
    return url.rstrip("/").removesuffix("/v1")


def _checked(response: httpx.Response) -> httpx.Response:
    if not response.is_error:
        return response
    try:
        error = response.json()["error"]
        message, code = error["message"], error.get("code")
    except (ValueError, KeyError, TypeError):  # another server's page, or a proxy's
        message, code = f"HTTP {response.status_code} {response.reason_phrase}", None
    raise ServerRefused(message, status=response.status_code, code=code, where=str(response.url))


def _object(response: httpx.Response, path: str) -> dict[str, Any]:
    try:
        value = response.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ServerUnreachable("the server's answer is not a JSON object", where=path)
    return value


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yield the JSON of each server-sent event up to [DONE]; a stream that ends without it was broken off."""
    for line in _lines(response.iter_bytes()):
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        value = json.loads(data)
        if error := value.get("error"):
            raise ServerRefused(
                error["message"], status=response.status_code, code=error.get("code"), where=str(response.url)
            )
        yield value
    raise ServerUnreachable("the answer broke off", where=str(response.url))


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield lines split at line feeds only: text may hold other characters that Unicode calls line ends."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    yield rest
