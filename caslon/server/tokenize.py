"""POST /tokenize, /detokenize and /apply-template: what the model sees of a text or a conversation, and back."""

from typing import Any

from anyio import to_thread
from fastapi import Request
from starlette.responses import JSONResponse, Response

from caslon.server.chat_wire import TemplateRequest, TokenizeRequest
from caslon.server.conversation import plain_messages, plain_tools
from caslon.server.errors import invalid
from caslon.server.logprobs import token_text
from caslon.server.reading import read
from caslon.server.service import Service
from caslon.server.wire import DetokenizeRequest


async def tokenize(service: Service, request: Request) -> Response:
    """Answer with the token ids of a text or a conversation."""
    fields = await read(service, request, TokenizeRequest)
    return JSONResponse(await to_thread.run_sync(_tokenized, service, fields))


async def detokenize(service: Service, request: Request) -> Response:
    """Answer with the text of token ids."""
    fields = await read(service, request, DetokenizeRequest)
    return JSONResponse(await to_thread.run_sync(_detokenized, service, fields))


async def apply_template(service: Service, request: Request) -> Response:
    """Answer with the prompt that a chat request would use, as text and as ids."""
    fields = await read(service, request, TemplateRequest)
    return JSONResponse(await to_thread.run_sync(_rendered, service, fields))


def _tokenized(service: Service, fields: TokenizeRequest) -> dict[str, Any]:
    service.check_model(fields.model)
    if (fields.prompt is None) == (fields.messages is None):
        raise invalid("give either 'prompt' or 'messages'", "prompt")
    if fields.messages is not None:
        ids = service.chat_ids(
            plain_messages(fields.messages),
            add_generation_prompt=fields.add_generation_prompt,
            tools=plain_tools(fields.tools),
        )
    else:
        ids = service.tokenizer.encode(fields.prompt or "")
    answer = {"count": len(ids), "max_model_len": service.context, "tokens": ids}
    if fields.return_token_strs:
        answer["token_strs"] = [token_text(service.tokenizer, token) for token in ids]
    return answer


def _detokenized(service: Service, fields: DetokenizeRequest) -> dict[str, Any]:
    service.check_model(fields.model)
    service.check_ids(fields.tokens, "tokens")
    return {"prompt": service.tokenizer.decode(fields.tokens)}


def _rendered(service: Service, fields: TemplateRequest) -> dict[str, Any]:
    service.check_model(fields.model)
    ids = service.chat_ids(
        plain_messages(fields.messages),
        add_generation_prompt=fields.add_generation_prompt,
        tools=plain_tools(fields.tools),
        variables=fields.chat_template_kwargs,
    )
    return {"prompt": service.tokenizer.decode(ids), "count": len(ids), "tokens": ids}
