"""Settings of the engine, shared by the `[serve]` table, the command line and every stage that generates. Free of torch."""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from caslon.settings import Settings, side_effect_only

NumberFormat = Literal["auto", "float32", "bfloat16", "float16"]
FIRST_TOKENS = 4  # that a window keeps beside the newest (StreamingLLM, arXiv:2309.17453)


@dataclass(frozen=True)
class Retention:
    """Which tokens of a sequence the cache keeps: all ("full"), the first and the newest, or those most looked at."""

    kind: Literal["full", "window", "heavy_hitter"]
    tokens: int = 0

    @property
    def first_tokens(self) -> int:
        """How many tokens at the start are always kept."""
        return FIRST_TOKENS if self.kind == "window" else 0

    @property
    def kept_tokens(self) -> int:
        """How many tokens of a sequence are kept when others are forgotten."""
        return self.first_tokens + self.tokens

    @property
    def is_full(self) -> bool:
        """Whether nothing is forgotten."""
        return self.kind == "full"


class EngineSettings(Settings):
    """How much runs at once and how much memory the key-value cache may take.

    No field but `weights`, `dtype`, `kv_dtype` and `retention` changes a greedy answer (without `batch_invariant`, ties within
    1e-6 aside). The defaults are for a CPU:
    16 sequences keep two cores busy, and a step of 512 tokens keeps the wait of a running answer short while a long
    prompt is read.
    """

    block_tokens: int = Field(16, ge=8, le=128, description="tokens per block of the cache; a power of two")
    max_running: int = Field(16, ge=1, description="sequences that run at once")
    max_step_tokens: int = Field(512, ge=2, description="most tokens one step computes; more than max_running")
    max_model_tokens: int | None = Field(None, ge=1, description="longest prompt and answer; default: the model's own")
    kv_memory_gib: float | None = Field(None, gt=0, description="size of the cache; default: what fits and is useful")
    prefix_cache: bool = Field(True, description="reuse blocks of earlier prompts that begin alike")
    batch_invariant: bool = Field(
        True, description="same bits whatever runs beside a request (float32, CPU); off: one lone answer comes faster"
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N; auto is a GPU where one is"
    )
    dtype: NumberFormat = Field(
        "auto", description="what is computed in; auto: as stored, where the device computes it"
    )
    weights: Literal["auto", "int8", "int4", "nf4"] = Field(
        "auto", description="how the layers' weights are kept: as stored, or made int8, int4 or nf4 at load"
    )
    kernels: Literal["auto", "compiled", "torch"] = Field(
        "auto", description="what computes a step; auto: compiled where the processor and the model allow it"
    )
    kv_dtype: Literal["auto", "int8", "int4"] = Field(
        "auto",
        description="how keys and values are kept; int8 and int4 spare the newest 64 tokens, and no prefix is reused",
    )
    retention: str = Field(
        "full",
        pattern=r"^(full|(window|heavy_hitter):[1-9]\d{0,8})$",
        description="tokens kept of a sequence: full, window:N or heavy_hitter:N; the latter two change answers",
    )
    max_adapters: int = Field(8, ge=1, description="adapters kept in memory; the least recently used leaves first")
    speculate: str = Field(
        "off",
        pattern="^(off|ngram|draft:.+)$",
        description="guess tokens ahead: off, ngram or draft:FOLDER; no answer changes",
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads; default: torch's own choice", json_schema_extra=side_effect_only()
    )

    @property
    def kept(self) -> Retention:
        """`retention` taken apart."""
        kind, _, tokens = self.retention.partition(":")
        return Retention(kind, int(tokens or 0))  # type: ignore[arg-type]  # the pattern allows no other

    @property
    def cache_is_exact(self) -> bool:
        """Whether the cache keeps all tokens as they were computed."""
        return self.kv_dtype == "auto" and self.kept.is_full

    @property
    def most_held_tokens(self) -> int | None:
        """The most tokens of a sequence that the cache ever holds; None where it holds all."""
        if self.kept.is_full:
            return None
        return self.kept.kept_tokens + self.block_tokens + self.max_step_tokens

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.block_tokens & (self.block_tokens - 1):
            raise ValueError(f"block_tokens must be a power of two, not {self.block_tokens}")
        if self.speculate != "off" and not self.cache_is_exact:
            raise ValueError(
                "speculate needs a cache that keeps all tokens as computed: leave kv_dtype and retention out"
            )
        if self.max_step_tokens <= self.max_running:
            raise ValueError(
                f"max_step_tokens ({self.max_step_tokens}) must be larger than max_running ({self.max_running})"
            )
        if self.kv_dtype != "auto" and not self.kept.is_full:
            raise ValueError(f"kv_dtype = {self.kv_dtype} and retention = {self.retention} do not go together")
        return self
