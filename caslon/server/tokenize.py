"""POST /tokenize and /detokenize: what the model sees of a text or a conversation, and back."""

from typing import Any

from anyio import to_thread
from fastapi import Request
from starlette.responses import JSONResponse, Response

from caslon.server.chat import plain_messages
from caslon.server.errors import invalid
from caslon.server.logprobs import token_text
from caslon.server.service import Service
from caslon.server.wire import DetokenizeRequest, TokenizeRequest, parse


async def tokenize(service: Service, request: Request) -> Response:
    """Answer with the token ids of a text or a conversation."""
    body = await request.body()
    return JSONResponse(await to_thread.run_sync(_tokenized, service, body))


async def detokenize(service: Service, request: Request) -> Response:
    """Answer with the text of token ids."""
    body = await request.body()
    return JSONResponse(await to_thread.run_sync(_detokenized, service, body))


def _tokenized(service: Service, body: bytes) -> dict[str, Any]:
    fields = parse(TokenizeRequest, body)
    service.check_model(fields.model)
    if (fields.prompt is None) == (fields.messages is None):
        raise invalid("give either 'prompt' or 'messages'", "prompt")
    if fields.messages is not None:
        messages = plain_messages(fields.messages)
        ids = service.chat_ids(messages, add_generation_prompt=fields.add_generation_prompt)
    else:
        ids = service.tokenizer.encode(fields.prompt or "")
    answer = {"count": len(ids), "max_model_len": service.context, "tokens": ids}
    if fields.return_token_strs:
        answer["token_strs"] = [token_text(service.tokenizer, token) for token in ids]
    return answer


def _detokenized(service: Service, body: bytes) -> dict[str, Any]:
    fields = parse(DetokenizeRequest, body)
    service.check_model(fields.model)
    service.check_ids(fields.tokens, "tokens")
    return {"prompt": service.tokenizer.decode(fields.tokens)}
