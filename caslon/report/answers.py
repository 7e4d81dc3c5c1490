"""What a tuned or served model answered, as blocks of a page: questions, answers, and what was expected."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from caslon.report.blocks import Block, Fact, Facts, Samples, SampleText, Table
from caslon.report.record import cell

SHOWN_ANSWERS = 20
COLUMN_NAMES = MappingProxyType({"f1": "word F1", "before": "before fine-tuning", "ended": "ended by itself"})

Json = Mapping[str, Any]


def answer_blocks(totals: Json, answers: Sequence[Json]) -> list[Block]:
    """Return what share of all answers ended by itself, and twenty of them, good and bad; every field is a column."""
    facts = []
    if "questions" in totals:
        facts.append(Fact("Unseen questions", totals["questions"]))
    if "answers_ended_share" in totals:
        facts.append(
            Fact("Ended by themselves", f"{totals['answers_ended_share']:.0%}", "", "at the end-of-turn token")
        )
    if "mean_word_f1" in totals:
        facts.append(Fact("Overlap with the expected answer", round(totals["mean_word_f1"], 3), "", "mean F1 of words"))
    columns = list(dict.fromkeys(key for answer in answers for key in answer))
    rows = [[cell(answer.get(key)) for key in columns] for answer in answers[:SHOWN_ANSWERS]]
    caption = f"{len(rows)} answers, good and bad"
    table = Table([COLUMN_NAMES.get(column, column.replace("_", " ")) for column in columns], rows, caption=caption)
    return [*([Facts(facts)] if facts else []), table]


def transcript_block(transcript: Json) -> Samples | None:
    """Return the completions and chat turns of a transcript one below the other, or None when there are none."""
    completions = [SampleText("", item["prompt"], item["answer"]) for item in transcript.get("completions", [])]
    chats = [SampleText("", f"{item['question']}\n→ ", item["answer"]) for item in transcript.get("chats", [])]
    return Samples([*completions, *chats]) if completions or chats else None
