"""`response_format` to the form that answers are held to; what would break it is refused beforehand."""

from caslon.engine import form as forms
from caslon.engine.form import AnswerForm, InvalidSchema
from caslon.server.errors import Refused, invalid, refused_from
from caslon.server.wire import ResponseFormat, SamplingFields

# Each could end an answer before its form is whole.
BREAKS_FORMS = ("stop", "stop_token_ids", "ignore_eos")
NEEDED = {"json_schema": "json_schema", "regex": "regex", "choice": "choice", "grammar": "grammar"}


def form_of(fields: SamplingFields) -> AnswerForm | None:
    """Return the form a request asks for; None for free text. `Refused` (400) names what is wrong with it."""
    wanted = fields.response_format
    if wanted is None or wanted.type == "text":
        return None
    for name in BREAKS_FORMS:
        if getattr(fields, name):
            raise invalid(f"'{name}' cannot go with 'response_format': it would break the form", name)
    try:
        return _form(wanted)
    except InvalidSchema as error:
        raise refused_from(error) from None


def _form(wanted: ResponseFormat) -> AnswerForm:
    for kind, name in NEEDED.items():
        if (wanted.type == kind) != (getattr(wanted, name) is not None):
            raise _mismatch(wanted.type, name)
    if wanted.json_schema is not None:
        schema = wanted.json_schema.schema_
        return forms.json_schema(True if schema is None else schema)
    if wanted.regex is not None:
        return forms.regex(wanted.regex)
    if wanted.choice is not None:
        return forms.choice(wanted.choice)
    if wanted.grammar is not None:
        return forms.grammar(wanted.grammar)
    return forms.json_object()


def _mismatch(kind: str, name: str) -> Refused:
    message = f"'response_format.{name}' goes with type '{name}', and only with it; the type is '{kind}'"
    return invalid(message, f"response_format.{name}")
