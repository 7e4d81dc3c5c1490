"""The API's description: whole, and what it describes holds under bodies made from it."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from caslon.engine.engine import Engine
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings

POSTED = {
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/generate",
    "/tokenize",
    "/detokenize",
    "/apply-template",
}


def references(value) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_every_reference_leads_somewhere(url: str) -> None:
    description = httpx.get(f"{url}/openapi.json").json()
    assert {path for path, methods in description["paths"].items() if "post" in methods} >= POSTED
    for reference in references(description):
        found = description
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def run_schemathesis(url: str, folder: Path, examples: int) -> None:
    """Throw bodies made from the description at every path; the checks are that the server never fails and keeps its types."""
    pytest.importorskip("schemathesis")
    config = folder / "schemathesis.toml"
    config.write_text("", encoding="utf-8")
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "--config-file",
        str(config),
        "run",
        f"{url}/openapi.json",
        "--checks",
        "not_a_server_error,content_type_conformance",
        "--max-examples",
        str(examples),
        "--phases",
        "examples,coverage,fuzzing",
        "--exclude-path-regex",
        "admin",
        "--seed",
        "1",
        "--request-timeout",
        "60",
        "--no-color",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, cwd=folder)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_bodies_made_from_the_description(short_engine: Engine, tmp_path: Path) -> None:
    with running_server(short_engine, "tiny", ServerSettings(page=False, max_queue=64)) as url:
        run_schemathesis(url, tmp_path, 25)
        assert httpx.get(f"{url}/health/live").status_code == 200


@pytest.mark.slow
@pytest.mark.promise("server", "The evaluation harness of others (lm-eval) runs against the server unchanged")
def test_lm_eval_scores_over_http(tiny_engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    pytest.importorskip("tenacity", reason="lm-eval asks over HTTP with it: pip install 'lm-eval[api]'")
    import lm_eval
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    documents = tmp_path / "questions.jsonl"
    rows = [{"question": f"the quick brown {word}", "answer": " fox"} for word in ("fox", "dog", "cat")]
    documents.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tiny_engine.tokenizer.save(tmp_path / "tokenizer")
    with running_server(tiny_engine, "tiny", ServerSettings(page=False)) as url:
        model = LocalCompletionsAPI(
            model="tiny",
            base_url=f"{url}/v1/completions",
            tokenizer=str(tmp_path / "tokenizer"),
            tokenizer_backend="huggingface",
            num_concurrent=1,
            max_retries=1,
            max_length=512,
        )
        requests = [
            lm_eval.api.instance.Instance("loglikelihood", row, (row["question"], row["answer"]), 0) for row in rows
        ]
        found = model.loglikelihood(requests, disable_tqdm=True)
        texts = model.generate_until(
            [
                lm_eval.api.instance.Instance(
                    "generate_until", rows[0], ("the fox", {"until": ["\n"], "max_gen_toks": 5}), 0
                )
            ],
            disable_tqdm=True,
        )
    for row, (logprob, _) in zip(rows, found, strict=True):
        before = tiny_engine.tokenizer.encode(row["question"])
        ids = before + tiny_engine.tokenizer.encode(row["answer"])
        [scores] = tiny_engine.score([ids])
        assert logprob == pytest.approx(sum(scores[len(before) - 1 :]), abs=1e-4)
    assert len(texts) == 1
