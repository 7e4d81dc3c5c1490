"""The same bag of words with its gradient left to torch: what proves that the back-propagation written by hand is right."""

import torch
import torch.nn.functional as F

from caslon.ladder.cbow import Real, Weights


def loss_and_gradients(
    weights: Weights, contexts: torch.Tensor, targets: torch.Tensor
) -> tuple[float, dict[str, Real]]:
    """Return the mean cross-entropy in nats and its gradient, for contexts `[B, C]` and targets `[B]` of byte values."""
    parameters = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}
    mean = F.embedding(contexts, parameters["E"]).mean(dim=1)  # [B, D]
    hidden = torch.relu(mean + parameters["b1"])
    loss = F.cross_entropy(hidden @ parameters["W2"] + parameters["b2"], targets)
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    return float(loss.detach()), {name: value.numpy() for name, value in zip(parameters, gradients, strict=True)}
