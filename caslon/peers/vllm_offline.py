"""vLLM as a program of a comparison: its offline engine, which schedules all prompts of a load by itself.

At most `most` sequences (an option, 32) run at once, whatever a load says: that is set when vLLM loads a model.
"""

import os
from collections.abc import Sequence

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; by itself it asks for more than a small machine has
os.environ.setdefault(
    "VLLM_ENABLE_V1_MULTIPROCESSING", "0"
)  # its processes wait for each other by spinning, on few cores for ever

import vllm

from caslon.peers.peer import Ids, Setting


class VllmOffline:
    """A model loaded by `vllm.LLM`, without its prefix cache, so that a repeated round computes its prompts again."""

    def __init__(self, setting: Setting) -> None:
        self._llm = vllm.LLM(
            model=str(setting.folder),
            dtype=setting.dtype,
            enable_prefix_caching=False,
            distributed_executor_backend="uni",
            enforce_eager=setting.options.get("eager", "yes") == "yes",
            max_num_seqs=int(setting.options.get("most", 32)),
            max_model_len=int(setting.options.get("context", 2304)),
        )
        self.version = vllm.__version__
        self.dtype = setting.dtype

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: Sequence[int], batch: int) -> Ids:
        """Answer each prompt greedily with exactly its number of tokens."""
        asked = [vllm.inputs.TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        params = [
            vllm.SamplingParams(max_tokens=new, temperature=0, ignore_eos=True, detokenize=False) for new in new_tokens
        ]
        return [list(output.outputs[0].token_ids) for output in self._llm.generate(asked, params, use_tqdm=False)]
