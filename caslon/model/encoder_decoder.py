"""T5's layout: an encoder that reads a text with holes and a decoder that fills them (arXiv:1910.10683).

Legend: `B` rows, `S` tokens of a source, `T` tokens of a target, `D` width, `V` vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from caslon.model.encoder_config import RELATIVE_BUCKETS, RELATIVE_DISTANCE, EncoderDecoderConfig
from caslon.model.transformers_model import TransformersModel, transformers_module
from caslon.tokenizer.tokenizer import Tokenizer


class EncoderDecoder(TransformersModel):
    """`T5ForConditionalGeneration` with one table for source, target and head."""

    config: EncoderDecoderConfig

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__(config)
        library = transformers_module()
        settings = library.T5Config(
            vocab_size=config.vocab_size,
            d_model=config.hidden_size,
            d_kv=config.head_dim,
            d_ff=config.intermediate_size,
            num_layers=config.num_hidden_layers,
            num_decoder_layers=config.num_hidden_layers,
            num_heads=config.num_attention_heads,
            relative_attention_num_buckets=RELATIVE_BUCKETS,
            relative_attention_max_distance=RELATIVE_DISTANCE,
            dropout_rate=config.dropout,
            feed_forward_proj="relu",
            tie_word_embeddings=True,
            attn_implementation="sdpa",
        )
        self.inner = library.T5ForConditionalGeneration(settings)

    def initialise(self, seed: int) -> None:
        """Draw the weights as T5 does: its scores are not divided by the root of the head size, so the weights must be."""
        draws = torch.Generator(device="cpu").manual_seed(seed)
        width, inner, heads = self.config.hidden_size, self.config.intermediate_size, self.config.num_attention_heads
        deviations = {
            "shared": 1.0,  # the head is scaled by the root of the width
            "q": (width * self.config.head_dim) ** -0.5,
            "o": (heads * self.config.head_dim) ** -0.5,
            "wo": inner**-0.5,
        }
        with torch.no_grad():
            for name, parameter in self.inner.named_parameters():
                if parameter.ndim < 2:
                    parameter.fill_(1.0)
                else:
                    deviation = deviations.get(name.split(".")[-2], width**-0.5)
                    parameter.copy_(torch.empty(parameter.shape).normal_(0.0, deviation, generator=draws))

    def forward(self, ids: Tensor, decoder_ids: Tensor, attended: Tensor | None = None) -> Tensor:
        """Return states `[B, T, D]` whose products with the head's weight are the logits; `attended` `[B, S]` marks real ids."""
        source = self.inner.encoder(input_ids=ids, attention_mask=attended).last_hidden_state
        states: Tensor = self.inner.decoder(
            input_ids=decoder_ids, encoder_hidden_states=source, encoder_attention_mask=attended, use_cache=False
        ).last_hidden_state
        scale: float = self.config.hidden_size**-0.5  # a tied head is scaled
        return states * scale

    @property
    def head_weight(self) -> Tensor:
        """The head's weight `[V, D]`, which is the table."""
        weight: Tensor = self.inner.lm_head.weight
        return weight

    def token_ids(self, tokenizer: Tokenizer) -> dict[str, int]:
        """Return the special ids for config.json; a target starts from the padding id."""
        return {**super().token_ids(tokenizer), "decoder_start_token_id": tokenizer.pad_id}

    def generation_config(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Return a generation_config.json that says where to start and stop."""
        return self.token_ids(tokenizer)
