"""The layers of a decoder into compiled code, and out of it where the compiler fails."""

from contextlib import AbstractContextManager, nullcontext

import torch

from caslon.model.decoder import Decoder


class CompiledLayers:
    """Each layer's forward and backward pass compiled at its first call, when `wanted`; all layers share one compiled code."""

    def __init__(self, decoder: Decoder, *, wanted: bool) -> None:
        self.decoder, self.on = decoder, wanted
        if wanted:
            for layer in decoder.model.layers:
                layer.compile()

    def failed(self, error: BaseException) -> bool:
        """Return whether an error comes from torch.compile and not from what it compiled."""
        if not self.on:
            return False
        from torch._dynamo.exc import TorchDynamoException

        return isinstance(error, TorchDynamoException)

    def give_up(self, error: BaseException) -> str:
        """Go on without compiled code; return the one warning that says so."""
        self.on = False
        for layer in self.decoder.model.layers:
            layer._compiled_call_impl = None
        return f"going on without compiled layers: {type(error).__name__}: {str(error).strip().splitlines()[0]}"

    def paused(self) -> AbstractContextManager[object]:
        """Return a context without compiled code, for shapes other than a step's: each would cost half a minute."""
        return torch.compiler.set_stance("force_eager") if self.on else nullcontext()
