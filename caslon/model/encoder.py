"""BERT's layout: post-norm layers that see both sides, and a head that names masked tokens (arXiv:1810.04805).

Rows are packed documents, as a decoder's: positions restart and attention ends at the end token, which stands for BERT's [SEP]
and, at the start of a row, for its [CLS].

Legend: `B` rows, `T` tokens of a row, `N` places that are scored, `D` width, `V` vocabulary.
"""

import math

import torch
from torch import Tensor, nn

from caslon.model.encoder_config import EncoderConfig
from caslon.model.transformers_model import TransformersModel, transformers_module

INITIAL_STD = 0.02
RESIDUAL_PROJECTIONS = ("attention.output.dense", "output.dense")


class Encoder(TransformersModel):
    """`BertForMaskedLM`, or `BertForPreTraining` where it has the next-sentence head."""

    config: EncoderConfig

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        library = transformers_module()
        settings = library.BertConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_position_embeddings,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            attn_implementation="sdpa",
        )
        kind = library.BertForPreTraining if config.next_sentence else library.BertForMaskedLM
        self.inner = kind(settings)

    def initialise(self, seed: int) -> None:
        """Draw normal weights of deviation 0.02, smaller by the root of the residual branches where those end."""
        draws = torch.Generator(device="cpu").manual_seed(seed)
        residual = INITIAL_STD / math.sqrt(2 * self.config.num_hidden_layers)
        for name, parameter in self.inner.named_parameters():
            ends_branch = name.removesuffix(".weight").endswith(RESIDUAL_PROJECTIONS)
            _draw(name, parameter, residual if ends_branch else INITIAL_STD, draws)

    def forward(
        self, ids: Tensor, positions: Tensor, document_ids: Tensor | None = None, segments: Tensor | None = None
    ) -> Tensor:
        """Return the hidden states `[B, T, D]`; where `document_ids` are given attention stays within a document."""
        mask = None if document_ids is None else (document_ids[:, None, :, None] == document_ids[:, None, None, :])
        found: Tensor = self.inner.bert(
            input_ids=ids, position_ids=positions, attention_mask=mask, token_type_ids=segments, use_cache=False
        ).last_hidden_state
        return found

    def predictor(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return states `[N, D + 1]` and a weight `[V, D + 1]` whose products are the logits: the last column is the bias."""
        head = self.inner.cls.predictions
        states: Tensor = head.transform(hidden)
        ones = torch.ones_like(states[:, :1])
        return torch.cat([states, ones], dim=1), torch.cat([head.decoder.weight, head.decoder.bias[:, None]], dim=1)

    def belongs_together(self, hidden: Tensor) -> Tensor:
        """Return two logits for each row of hidden states: the second part follows the first, or is of another text."""
        found: Tensor = self.inner.cls.seq_relationship(self.inner.bert.pooler(hidden))
        return found


@torch.no_grad()
def _draw(name: str, parameter: nn.Parameter, deviation: float, draws: torch.Generator) -> None:
    if parameter.ndim < 2:
        parameter.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
    else:
        parameter.copy_(torch.empty(parameter.shape).normal_(0.0, deviation, generator=draws))
