"""Writes the same prompts under many settings and sets the outputs side by side, with figures of each.

Distinct-1 and distinct-2 are the share of different tokens and pairs among all (arXiv:1510.03055); repetition is the
share of four-token runs that came before. All are of tokens, not words.
"""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import product
from typing import Any

from caslon.ui.terminal import LocalModel

FIGURES = ("tokens", "repetition", "distinct_1", "distinct_2", "mean_logprob")
STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem}table{border-collapse:collapse}"
    "td,th{border:1px solid #8886;padding:.4rem .6rem;vertical-align:top;text-align:left}"
    "td.text{white-space:pre-wrap;min-width:22rem}td.figure{text-align:right}"
)


def grid_rows(
    model: LocalModel, prompts: Sequence[str], params: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    """Return a row for each prompt and each combination of the axes' values, all answered together."""
    from caslon.engine.branches import mean_logprob

    cells = [(prompt, dict(zip(axes, values, strict=True))) for prompt in prompts for values in product(*axes.values())]
    chosen = [model.engine.params(**{"seed": 0, **params, **settings, "logprobs": 0, "n": 1}) for _, settings in cells]
    completions = model.engine.generate([model.prompt_ids(prompt) for prompt, _ in cells], chosen)
    return [
        {
            "prompt": prompt,
            **settings,
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "tokens": len(completion.ids),
            "repetition": round(1 - distinct(completion.ids, 4), 4),
            "distinct_1": round(distinct(completion.ids, 1), 4),
            "distinct_2": round(distinct(completion.ids, 2), 4),
            "mean_logprob": round(mean_logprob(completion), 4),
        }
        for (prompt, settings), completion in zip(cells, completions, strict=True)
    ]


def distinct(ids: Sequence[int], size: int) -> float:
    """Return the share of different runs of `size` tokens among all; 1 where there is none."""
    runs = [tuple(ids[start : start + size]) for start in range(len(ids) - size + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0


def grid_page(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Return the rows as one HTML page that needs nothing from outside."""
    columns = list(rows[0])
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(_cell(name, row[name]) for name in columns) + "</tr>" for row in rows)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
        f"<h1>{escape(title)}</h1><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></html>\n"
    )


def _cell(name: str, value: Any) -> str:
    kind = "text" if name in ("text", "prompt") else "figure" if name in FIGURES else ""
    return f'<td class="{kind}">{escape(str(value))}</td>'
