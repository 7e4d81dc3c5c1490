"""A text through a mixture of experts to a map of which expert each token was sent to, layer by layer, for the report."""

from collections.abc import Sequence

import torch

from caslon.model.decoder import Decoder
from caslon.model.experts import Routing
from caslon.observe.events import ExpertMap
from caslon.tokenizer.tokenizer import Tokenizer

MAP_TOKENS = 40  # as many as can be read side by side


@torch.no_grad()
def expert_map(decoder: Decoder, tokenizer: Tokenizer, ids: Sequence[int], step: int) -> ExpertMap:
    """Return the router's probabilities for the first tokens of a text, from every layer."""
    shown = list(ids)[: min(MAP_TOKENS, decoder.config.max_position_embeddings)]
    was_training = decoder.training
    routings: list[Routing] = []
    decoder.eval()(torch.tensor([shown], device=decoder.device), record=routings.append)
    decoder.train(was_training)
    layers = [routing.probabilities.T.mul(1000).round().div(1000).tolist() for routing in routings]  # [L][E][T]
    return ExpertMap(step, [tokenizer.decode([id]) for id in shown], layers)
