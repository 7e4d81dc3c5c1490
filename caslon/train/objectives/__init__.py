"""What a model is trained on: an objective turns rows into its own batches, and a batch into a sum of losses and a count.

Never a mean: the trainer divides once by the count of the whole step, so that accumulation and unequal padding change nothing.
Objectives are known by name in `objective_kinds`; adding one changes nothing in the loop.
"""

from caslon.train.objectives.head_loss import HeadCrossEntropy, hidden_is_half
from caslon.train.objectives.next_token import NextToken
from caslon.train.objectives.objective import CollatedBatches, LossSum, Objective, add_metrics, bits_per_byte

__all__ = [
    "CollatedBatches",
    "HeadCrossEntropy",
    "LossSum",
    "NextToken",
    "Objective",
    "add_metrics",
    "bits_per_byte",
    "hidden_is_half",
]
