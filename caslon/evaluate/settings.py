"""The `[evaluate]` table of a recipe."""

from typing import Annotated, Literal

from pydantic import Field

from caslon.settings import Settings, side_effect_only

Task = Literal["bits_per_byte", "baselines", "samples", "spans"]
TASKS: tuple[Task, ...] = ("bits_per_byte", "baselines", "samples", "spans")


class EvaluateSettings(Settings):
    """What is measured, on how much text, and what the model is asked to write."""

    tasks: tuple[Task, ...] = Field(TASKS, min_length=1, description="what to measure; spans needs samples")
    split: Literal["validation", "test"] = Field("test", description="the documents to score")
    max_bytes: int = Field(1_000_000, ge=0, description="bytes of that split, whole documents drawn at random; 0: all")
    stride: float = Field(
        0.5, gt=0, le=1, description="how far windows move in long documents, as a share of the context"
    )
    max_train_bytes: int = Field(
        32_000_000,
        ge=0,
        description="bytes of training text for baselines and spans, drawn like the scored ones; 0: all",
    )
    ngram_orders: tuple[Annotated[int, Field(ge=1, le=8)], ...] = Field((3, 4, 5, 6), min_length=1)
    compressors: tuple[Literal["gzip -9", "bzip2 -9", "xz -9e", "zstd -19"], ...] = (
        "gzip -9",
        "bzip2 -9",
        "xz -9e",
        "zstd -19",
    )
    prompts: tuple[str, ...] = Field((), description="what the model goes on from; none: openings of unseen documents")
    prompt_count: int = Field(4, ge=1, le=100, description="how many openings, when no prompts are given")
    temperatures: tuple[Annotated[float, Field(ge=0, le=2)], ...] = Field((0.0, 0.3, 0.7, 1.0, 1.3), min_length=1)
    top_p: float = Field(1.0, gt=0, le=1)
    sample_tokens: int = Field(128, ge=1, description="new tokens of a sample, at most")
    span_words: int = Field(8, ge=1, description="words a span must have to count as copied (spec of spans: 8)")
    workers: int = Field(2, ge=1, description="threads that compress", json_schema_extra=side_effect_only())
