"""caslon's own engine as a program of a comparison. Options are fields of its settings."""

from collections.abc import Sequence

import caslon
from caslon.engine.engine import Engine
from caslon.engine.settings import EngineSettings
from caslon.model.folder import ModelFolder
from caslon.peers.peer import Ids, Setting
from caslon.settings import checked


class CaslonEngine:
    """An engine for each batch size in turn, over one loaded decoder: `max_running` is what may run at once."""

    def __init__(self, setting: Setting) -> None:
        settings = {
            "prefix_cache": False,  # a repeated round must compute its prompts again
            "device": setting.device,
            "dtype": setting.dtype,
            "threads": setting.threads,
            **setting.options,
        }
        self._settings = checked(EngineSettings, **settings)
        self._folder = ModelFolder.open(setting.folder)
        self._engine = Engine.load(setting.folder, self._settings)
        self.version = caslon.__version__
        self.dtype = self._engine.description["dtype"]
        quantisation = self._engine.description["quantization"]
        if quantisation != "none":
            self.dtype += f", weights {quantisation}"

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: Sequence[int], batch: int) -> Ids:
        """Answer each prompt greedily with exactly its number of tokens."""
        self._run_at_most(batch)
        params = [self._engine.params(max_tokens=count, temperature=0, ignore_eos=True) for count in new_tokens]
        return [list(completion.ids) for completion in self._engine.generate(prompts, params)]

    def _run_at_most(self, batch: int) -> None:
        if self._settings.max_running == batch:
            return
        self._engine.close()
        self._settings = self._settings.model_copy(update={"max_running": batch})
        decoder, tokenizer = self._engine.decoder, self._engine.tokenizer
        del self._engine  # its cache goes before the next one comes
        self._engine = Engine(decoder, tokenizer, self._settings, self._folder.generation_config)
