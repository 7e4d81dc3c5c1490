"""Shapes of published teaching models to their parameter counts, worked out on paper. Imports no torch.

The models are the steps from a feed-forward network to a Llama in which several parts are larger than they need be: the norm is a
square matrix, every head is as wide as the model, SwiGLU multiplies two square maps and learns its beta. They are not built here;
the counts let an ablation put its own models beside the published ones.

Legend: `V` vocabulary, `d` width, `L` layers, `H` heads, `h` width inside the feed-forward part.
"""

HEADS, INNER_WIDTH = 6, 768  # of the published models


def feed_forward(vocabulary: int, width: int) -> int:
    """Return the parameters of embedding, one hidden layer and head: V d + (d² + d) + (d V + V)."""
    return vocabulary * width + _linear(width, width) + _linear(width, vocabulary)


def square_norm(width: int) -> int:
    """Return the parameters of a norm that multiplies by a square matrix."""
    return width**2


def wide_attention(width: int, heads: int = HEADS) -> int:
    """Return the parameters of attention whose heads are each as wide as the model, and of the map back."""
    return 3 * heads * width**2 + _linear(heads * width, width)


def swiglu(width: int) -> int:
    """Return the parameters of two square maps, one of them gated with a beta that is learnt."""
    return 2 * _linear(width, width) + 1


def simple_llama(
    vocabulary: int, width: int, layers: int, *, heads: int = HEADS, inner_width: int = INNER_WIDTH
) -> int:
    """Return the parameters of the whole model: embedding, blocks, and a head with a hidden layer of its own."""
    block = square_norm(width) + wide_attention(width, heads)
    block += _linear(width, inner_width) + swiglu(inner_width) + _linear(inner_width, width)
    head = _linear(width, width) + swiglu(width) + _linear(width, vocabulary)
    return vocabulary * width + layers * block + head


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs
