"""Commands about a service: serve a model, make and revoke keys, check the audit log."""

import re
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caslon.commands.models import Device, KvFormat, NumberFormat, Retention, Weights
from caslon.commands.output import JsonOption, figure, group, print_json, print_table, say
from caslon.errors import CaslonError, UserError

if TYPE_CHECKING:
    from caslon.server.keys import Key, KeyStore
    from caslon.server.run import Ready

app = group()
keys_app = group(help="Keys of a service: who may ask, for what, and how much.")
audit_app = group(help="The audit log of a service.")

StateOption = Annotated[Path, typer.Option("--state", help="the folder of the service's keys, limits and audit log")]
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.command()
def serve(
    model: Annotated[
        str,
        typer.Argument(help="a model, stage or run folder; the word reload replaces running replicas", metavar="MODEL"),
    ] = "",
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 picks a free one")] = 8000,
    name: Annotated[str | None, typer.Option(help="the name clients ask for")] = None,
    page: Annotated[bool, typer.Option(help="the web page at /")] = True,
    state: Annotated[
        Path | None, typer.Option(help="folder of keys, limits and the audit log; left out: nothing is written")
    ] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="listen beyond this machine without a key")] = False,
    limit: Annotated[
        list[str],
        typer.Option(help="WHO:WHAT=NUMBER (repeatable), as in key:requests_per_minute=60; WHO is key, address or all"),
    ] = [],  # noqa: B006  typer copies it
    limit_by: Annotated[
        str, typer.Option(help="token_bucket, sliding_log, fixed_window or leaky_bucket")
    ] = "token_bucket",
    record_content: Annotated[
        bool, typer.Option("--record-content", help="keep the texts of requests and answers in the state folder")
    ] = False,
    retention_days: Annotated[float, typer.Option(help="days a record is kept; 0 for ever")] = 30.0,
    redact: Annotated[list[str], typer.Option(help="an expression whose matches are not recorded (repeatable)")] = [],  # noqa: B006  typer copies it
    traces: Annotated[str | None, typer.Option(help="OTLP collector's URL, or a file, for OpenTelemetry spans")] = None,
    hook: Annotated[
        list[str], typer.Option(help="package.module:name of code to run around requests (repeatable)")
    ] = [],  # noqa: B006  typer copies it
    max_running: Annotated[int, typer.Option(help="answers written at once")] = 16,
    max_queue: Annotated[int | None, typer.Option(help="answers that may wait; default: 4 x max-running")] = None,
    queue_timeout: Annotated[float, typer.Option(help="seconds an answer may wait for its turn")] = 30.0,
    request_timeout: Annotated[float, typer.Option(help="seconds after which an answer ends with what it has")] = 600.0,
    drain_timeout: Annotated[float, typer.Option(help="seconds running answers get after SIGTERM")] = 60.0,
    lenient: Annotated[bool, typer.Option("--lenient", help="leave out unknown fields, named in a header")] = False,
    request_timings: Annotated[bool, typer.Option("--request-timings", help="add times to every answer")] = False,
    further: Annotated[
        list[str], typer.Option("--model", help="NAME=FOLDER: a further model beside the first (repeatable)")
    ] = [],  # noqa: B006  typer copies it
    load: Annotated[str, typer.Option(help="further models: eager (at the start) or on_demand")] = "eager",
    keep_alive: Annotated[float, typer.Option(help="on_demand: idle seconds after which a model is unloaded")] = 300.0,
    max_loaded: Annotated[int | None, typer.Option(help="models in memory at once, the first one included")] = None,
    adapter: Annotated[
        list[str], typer.Option(help="NAME=FOLDER: a PEFT adapter for the first model (repeatable)")
    ] = [],  # noqa: B006  typer copies it
    admin_host: Annotated[
        list[str], typer.Option(help="address, beside this machine, from which admin calls are taken (repeatable)")
    ] = [],  # noqa: B006  typer copies it
    upstream: Annotated[
        list[Path], typer.Option(help="file of [[serve.upstream]] tables: other servers, whose models are offered too")
    ] = [],  # noqa: B006  typer copies it
    cors_origin: Annotated[list[str], typer.Option(help="web origin whose pages may ask (repeatable)")] = [],  # noqa: B006
    tls_cert: Annotated[Path | None, typer.Option(help="certificate chain (PEM): serve HTTPS")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="the certificate's private key (PEM)")] = None,
    weights: Weights = "auto",
    dtype: NumberFormat = "auto",
    device: Device = "auto",
    kv_dtype: KvFormat = "auto",
    retention: Retention = "full",
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
    replicas: Annotated[int, typer.Option(min=1, help="processes behind the one port, without the page")] = 1,
    simulate: Annotated[
        str | None, typer.Option(help="no model: answer with the times of a published row (MODEL/8x/PROFILE)")
    ] = None,
    simulate_speed: Annotated[float, typer.Option(min=0.001, help="how many times faster than the row")] = 1.0,
    simulate_fault: Annotated[
        list[str], typer.Option(help="short:5 = every fifth answer; also refused, stall, garbage (repeatable)")
    ] = [],  # noqa: B006  typer copies it
) -> None:
    """Serve a model behind an OpenAI-compatible API, with a web page, until Ctrl-C."""
    if model == "reload":
        _reload(state)
        return
    if not (model or simulate or upstream):
        raise UserError("no model to serve", fix="give a model folder: caslon serve runs/NAME/STAGE/model")
    from caslon.engine.settings import EngineSettings
    from caslon.server.run import serve as serve_folder
    from caslon.server.settings import ServerSettings
    from caslon.server.upstream.settings import upstreams_of
    from caslon.settings import checked

    settings = checked(
        ServerSettings, host=host, port=port, model_name=name, page=page, state=state, no_auth=no_auth,
        limits=tuple(limit), limit_by=limit_by, max_queue=max_queue, queue_timeout_seconds=queue_timeout,
        lenient=lenient, request_timings=request_timings, cors_origins=tuple(cors_origin), tls_cert=tls_cert,
        tls_key=tls_key, upstream=tuple(one for file in upstream for one in upstreams_of(file)),
        models=_named(further, "--model"), load=load, keep_alive_seconds=keep_alive, max_loaded=max_loaded,
        adapters=_named(adapter, "--adapter"), admin_hosts=tuple(admin_host),
        request_timeout_seconds=request_timeout, drain_timeout_seconds=drain_timeout, record_content=record_content,
        retention_days=retention_days, redact=tuple(redact), traces=traces, hooks=tuple(hook),
    )  # fmt: skip
    if simulate is not None:
        from caslon.bench.simulation import parsed_faults, simulation_of
        from caslon.server.simulated_engine import serve_simulated

        simulation = simulation_of(simulate, speed=simulate_speed, faults=parsed_faults(simulate_fault))
        settings = settings.model_copy(update={"page": False})  # nobody talks with it
        serve_simulated(simulation, name or simulate, settings, on_ready=lambda ready: _say_ready(ready, False))
        return
    if not model:
        if further or adapter or replicas > 1:
            raise UserError("--model, --adapter and --replicas need a first model", fix="caslon serve MODEL ...")
        from caslon.server.gateway import serve_upstreams

        serve_upstreams(settings, on_ready=lambda ready: _say_ready(ready, False))
        return
    from caslon.run_list import model_folder_of

    folder = model_folder_of(Path(model))
    engine_settings = checked(
        EngineSettings,
        max_running=max_running,
        threads=threads,
        weights=weights,
        dtype=dtype,
        device=device,
        kv_dtype=kv_dtype,
        retention=retention,
    )
    if replicas > 1:
        from caslon.server.supervise import serve_replicas

        serve_replicas(folder, settings, engine_settings, replicas, on_ready=lambda ready: _say_ready(ready, False))
        return
    serve_folder(folder, settings, engine_settings, on_ready=lambda ready: _say_ready(ready, page))


@app.command()
def monitoring(folder: Annotated[Path, typer.Argument(help="where to write them", metavar="FOLDER")]) -> None:
    """Write a Grafana dashboard and alert rules for Prometheus."""
    from importlib import resources

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("dashboard.json", "alerts.yml"):
        content = resources.files("caslon.server").joinpath("monitoring", name).read_text(encoding="utf-8")
        (folder / name).write_text(content, encoding="utf-8")
        say(f"{folder / name}")


@app.command()
def replay(
    record: Annotated[str, typer.Argument(help="the x-request-id of a recorded request", metavar="RECORD")],
    state: StateOption,
    url: Annotated[str, typer.Option(help="the server to ask")] = "http://127.0.0.1:8000",
    api_key: Annotated[str | None, typer.Option("--api-key", envvar="CASLON_API_KEY", help="key of the server")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a recorded request again and show the first token that differs. Exit 1 if one does though nothing changed."""
    from dataclasses import asdict

    from caslon.client import Client
    from caslon.server.records import records_of
    from caslon.server.replay import replayed

    with Client(url, api_key=api_key) as client:
        found = replayed(records_of(state).get(record), client)
    if as_json:
        print_json(asdict(found))
    else:
        same = "same model and engine" if found.same_fingerprint else "another model or engine than recorded"
        say(f"{found.answers} answers, {found.tokens} tokens; {same}")
        for difference in found.differences:
            say(
                f"answer {difference.answer} differs at token {difference.token}: "
                f"recorded {difference.recorded!r}, now {difference.found!r}"
            )
        if not found.differences:
            say("every token is the same")
    if found.differences and found.same_fingerprint:
        raise typer.Exit(1)


@keys_app.command()
def create(
    name: Annotated[str, typer.Option(help="whose key it is, for you to recognise")],
    state: StateOption,
    scopes: Annotated[str, typer.Option(help="of infer, embed, metrics, admin")] = "infer",
    models: Annotated[str, typer.Option(help="models it may ask for; all if left out")] = "",
    adapters: Annotated[str, typer.Option(help="adapters it may ask for; all if left out")] = "",
    expires: Annotated[str | None, typer.Option(help="after 90d, 12h, 30m")] = None,
    limit: Annotated[
        list[str], typer.Option(help="WHAT=NUMBER (repeatable), as in tokens_per_day=100000; goes before the server's")
    ] = [],  # noqa: B006  typer copies it
    weight: Annotated[int, typer.Option(min=1, help="its turns in a round of the queue")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, this once."""
    from caslon.server.allowance import allowance_of
    from caslon.server.keys import KeyStore

    key, shown = KeyStore.made(state).create(
        name,
        scopes=_words(scopes),
        models=_words(models),
        adapters=_words(adapters),
        allowance=allowance_of(limit, "--limit"),
        weight=weight,
        expires=None if expires is None else time.time() + _seconds(expires),
    )
    _show_once(key, shown, as_json)


@keys_app.command("list")
def list_keys(state: StateOption, as_json: JsonOption = False) -> None:
    """List all keys, never what they are shown as."""
    found = _store(state).all()
    if as_json:
        print_json([_described(key) for key in found])
        return
    columns = ("id", "name", "state", "scopes", "models", "expires", "limits")
    print_table(columns, ([row[column] for column in columns] for row in map(_described, found)))


@keys_app.command()
def revoke(key: Annotated[str, typer.Argument(help="its id", metavar="ID")], state: StateOption) -> None:
    """Let a key in no more: within a second, running answers included."""
    say(f"revoked {_store(state).revoke(key).name} ({key})")


@keys_app.command()
def rotate(
    key: Annotated[str, typer.Argument(help="its id", metavar="ID")], state: StateOption, as_json: JsonOption = False
) -> None:
    """Replace a key by a new one with the same rights and account; the old one is valid for 24 hours more."""
    new, shown = _store(state).rotate(key)
    _show_once(new, shown, as_json)


@keys_app.command()
def usage(state: StateOption, as_json: JsonOption = False) -> None:
    """Show what each key used, by day (UTC)."""
    from caslon.server.accounts import ACCOUNTS_FILE, Accounts

    names = {f"key:{key.holder}": key.name for key in _store(state).all()}
    used = []
    if (state / ACCOUNTS_FILE).is_file():
        with closing(Accounts(state)) as accounts:
            used = accounts.usage()
    rows = [
        {
            "key": row.holder.removeprefix("key:"), "name": names.get(row.holder, ""), "day": row.day,
            "requests": row.requests, "prompt_tokens": row.prompt_tokens, "completion_tokens": row.completion_tokens,
        }
        for row in used
    ]  # fmt: skip
    if as_json:
        print_json(rows)
        return
    columns = ("key", "name", "day", "requests", "prompt_tokens", "completion_tokens")
    print_table(columns, ([figure(row[column]) for column in columns] for row in rows))


@audit_app.command()
def verify(
    state: StateOption,
    head: Annotated[str | None, typer.Option(help="LINES:HASH that you kept elsewhere")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that no line was edited, removed or moved."""
    from caslon.server.audit import Head, verify_audit

    kept = None
    if head is not None:
        lines, _, digest = head.partition(":")
        if not lines.isdigit() or not re.fullmatch("[0-9a-f]{64}", digest):
            raise UserError(f"'{head}' is no head", where="--head", fix="give what an earlier verify printed")
        kept = Head(int(lines), digest)
    found = verify_audit(state, kept)
    if as_json:
        print_json({"lines": found.lines, "head": f"{found.lines}:{found.digest}"})
        return
    say(f"{found.lines:,} lines, each follows the one before it\nhead {found.lines}:{found.digest}")


def _reload(state: Path | None) -> None:
    if state is None:
        raise UserError("which service?", where="reload", fix="caslon serve reload --state DIR")
    from caslon.server.supervise import reload

    found = reload(state)
    if found["rolled_back"]:
        raise CaslonError(f"{found['reloaded']} of {found['of']} replicas were replaced, the others go on as they were: "
                          f"{found['reason']}")  # fmt: skip
    say(f"{found['reloaded']} replicas were replaced")


def _store(state: Path) -> "KeyStore":
    from caslon.server.keys import KeyStore

    return KeyStore(state)


def _show_once(key: "Key", shown: str, as_json: bool) -> None:
    if as_json:
        print_json({"id": key.id, "key": shown})
        return
    say(f"key  {shown}\nid   {key.id}\nkeep it now: it is stored nowhere and not shown again")


def _described(key: "Key") -> dict[str, Any]:
    state = "valid" if key.is_valid(time.time()) else "revoked" if key.revoked else "expired"
    expires = None if key.expires is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(key.expires))
    limits = {name: value for name, value in vars(key.allowance).items() if value is not None}
    return {
        "id": key.id, "name": key.name, "state": state, "scopes": ",".join(key.scopes),
        "models": ",".join((*key.models, *key.adapters)) or "all", "expires": expires or "never",
        "limits": ", ".join(f"{name}={value}" for name, value in limits.items()) or "the server's",
    }  # fmt: skip


def _named(given: list[str], option: str) -> dict[str, Path]:
    """Return folders by the names they are given."""
    found: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder or name in found:
            raise UserError(
                f"'{text}' is no name and folder, or the name is taken", where=option, fix="write NAME=FOLDER"
            )
        found[name] = Path(folder)
    return found


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[,\s]+", text) if word)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None or not int(match[1]):
        raise UserError(f"'{text}' is no time", where="--expires", fix="write 90d, 12h, 30m or 45s")
    return float(match[1]) * SECONDS[match[2]]


def _say_ready(ready: "Ready", page: bool) -> None:
    web = f"web page   {ready.url}/\n" if page else ""
    others = f"also       {', '.join(ready.others)}\n" if ready.others else ""
    engine = f"engine     {ready.computed}, {ready.kv_blocks:,} blocks of cache: {ready.longest_at_once} answers of full length\n"
    context = f"context {ready.context_tokens:,} tokens, " if ready.kv_blocks else ""
    path, body = "completions", '"prompt": "def ", "max_tokens": 32'
    if not ready.kv_blocks:  # another server's
        path, body = "chat/completions", '"messages": [{"role": "user", "content": "Hello"}]'
    say(
        f"{web}API        {ready.url}/v1   (model {ready.model_name}, {context}"
        f"{'key needed' if ready.with_key else 'no key'}, ready in {ready.seconds:.1f} s)\n"
        f"{others}{engine if ready.kv_blocks else ''}"
        f"try        curl {ready.url}/v1/{path} -H 'Content-Type: application/json' "
        f'-d \'{{"model": "{ready.model_name}", {body}}}\'\nstop       Ctrl-C'
    )
    sys.stdout.flush()
