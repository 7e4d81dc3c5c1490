"""The published results of the recipes that are shipped, beside ours, with a verdict whether the two can be compared.

A loss per token means something only on the same text with the same tokenizer. Neither was published with these results, so what
can be set beside ours is the loss in bits per byte, as a range, and what was claimed of one model against another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from caslon.report.blocks import Block, Notice, Table

ENGLISH_TOKENS_PER_BYTE = (0.24, 0.30)  # of 30,000 to 50,000 entries on English prose
BITS_PER_NAT = 1.4426950408889634


@dataclass(frozen=True)
class Published:
    """What was published of a run, and on what."""

    data: str
    val_loss: float
    train_loss: float
    claim: str  # what was said of it beside another model
    tokens_per_byte: tuple[float, float] | None = ENGLISH_TOKENS_PER_BYTE

    @property
    def val_bpb(self) -> tuple[float, float] | None:
        """The validation loss in bits per byte, as a range, since the tokens of a byte are not known exactly."""
        if self.tokens_per_byte is None:
            return None
        low, high = self.tokens_per_byte
        return self.val_loss * BITS_PER_NAT * low, self.val_loss * BITS_PER_NAT * high


LONDON = "historical London, 30,000 tokens; the text is not published"
STORIES = "children's stories, 32,001 tokens; the split is not published"
SLM = Published(LONDON, 3.44089, 2.74369, "better on unseen text than the model of three times its size")
REGULAR = Published(LONDON, 3.61921, 2.70315, "worse on unseen text than the model of a third of its size")
LLAMA = Published(STORIES, 6.046, 6.216, "worse than the feed-forward model beside it (4.458)", tokens_per_byte=None)
PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "slm": SLM,
        "slm-small": SLM,
        "london": SLM,
        "regular": REGULAR,
        "regular-small": REGULAR,
        "london-regular": REGULAR,
        "llama-188": LLAMA,
        "llama-188-small": LLAMA,
    }
)


def published_blocks(recipe: str, totals: Mapping[str, Any]) -> list[Block]:
    """Return the published figures beside those of a training, and the verdict; nothing for a recipe without any."""
    found = PUBLISHED.get(recipe)
    if found is None:
        return []
    bits = found.val_bpb
    rows: list[list[Any]] = [
        ["validation loss, nats per token", found.val_loss, totals.get("val_loss"), "no: other text, other tokens"],
        [
            "validation, bits per byte",
            f"{bits[0]:.2f} to {bits[1]:.2f}" if bits else None,
            totals.get("val_bpb"),
            "roughly: another text of the same kind" if bits else "no: not published",
        ],
    ]
    verdict = f"Published of this model: {found.claim}. Its data: {found.data}."
    return [Table(["result", "published", "ours", "comparable"], rows, caption="Published and ours"), Notice(verdict)]
