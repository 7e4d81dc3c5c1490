"""One training loop into N processes: who this process is, what is its own share, and what all decide or add up together.

`Processes()` is a run of one, in which every method does nothing, so the loop has one path. Started by torchrun there are more,
each with a whole model, whose gradients are added up once a step (DDP, arXiv:2006.15704); `sharded.py` has the other way.
Sums of losses are divided once by the targets of all, so that the number of processes changes nothing.

Unusual: only what belongs to a step goes through collectives, which give up after a time. Work that one process does alone (a
save, a sample, a whole stage before) is waited for at torchrun's store, as long as it takes.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

from caslon.errors import CaslonError, Stopped, UserError
from caslon.model.decoder import Decoder
from caslon.train.batches import Batch
from caslon.train.plan import TrainPlan
from caslon.train.precision import Compute, available_cores
from caslon.train.settings import Parallel

BUCKET_BYTES = 25 << 20  # of gradients added up at once, as in torch's DDP (arXiv:2006.15704)
POLL = timedelta(seconds=2)  # between two looks whether a signal came while waiting
RANK_SEED = 0x9E3779B97F4A7C15  # keeps the dropout of processes apart; the first keeps the seed of a run of one

T = TypeVar("T")
SomeTensor = TypeVar("SomeTensor", bound=Tensor)


class EndedElsewhere(CaslonError):
    """Another process of this run failed, and says why itself."""


@dataclass
class Processes:
    """The processes of one run as one of them sees it."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    store: Store | None = None
    _messages: int = field(default=0, init=False)

    @staticmethod
    def from_environment() -> "Processes":
        """Return what torchrun started: its variables say who this process is; a run of one where there are none."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return Processes()
        store, rank, world = next(rendezvous("env://"))
        return Processes(rank, world, int(os.environ["LOCAL_RANK"]), store)

    @property
    def is_first(self) -> bool:
        """Whether this process prints, tracks and works on folders for all."""
        return self.rank == 0

    @property
    def part(self) -> tuple[int, int]:
        """Which part of every tensor lies here, and of how many: (0, 1) where it is the whole."""
        return 0, 1

    @property
    def can_repeat(self) -> bool:
        """Whether a pass that fails in one process may be repeated by all: nobody waits for it within the pass."""
        return True

    # Setting up

    @contextmanager
    def collectives(
        self, name: str, *, parallel: Parallel, cpu_offload: bool, timeout_seconds: float
    ) -> Iterator["Processes"]:
        """Join the processes for one piece of work: NCCL between GPUs, gloo for what lies in host memory."""
        if self.world == 1:
            yield self
            return
        assert self.store is not None
        store = PrefixStore(name, self.store)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=PrefixStore("collectives", store),
            rank=self.rank,
            world_size=self.world,
            timeout=timedelta(seconds=timeout_seconds),
        )
        try:
            if parallel == "fsdp":
                from caslon.train.sharded import ShardedProcesses

                yield ShardedProcesses(self.rank, self.world, self.local_rank, store, cpu_offload=cpu_offload)
            else:
                yield replace(self, store=store)
        except Stopped:  # together, after a save
            self.agree(False)
            raise
        self.agree(False)  # the first process may hold the store: it stays until all have heard what it told
        dist.destroy_process_group()  # not after an error: it would wait for processes that are gone

    def threads(self, chosen: int) -> int:
        """Return how many threads this process computes with: its share of the cores where the setting is 0."""
        return chosen if self.world == 1 else chosen or max(1, available_cores() // self.world)

    def micro_batch(self, plan: TrainPlan) -> int:
        """Return how many rows a process computes at once of its share of a batch; `UserError` when nothing divides."""
        share, rest = divmod(plan.batch, self.world)
        if rest:
            fits = [size for size in (plan.batch - rest, plan.batch + self.world - rest) if size]
            raise UserError(
                f"batch {plan.batch} does not divide by {self.world} processes",
                fix=f"set batch = {' or '.join(map(str, fits))}",
            )
        micro_batch = min(plan.micro_batch, share)
        if share % micro_batch:
            fits = [size for size in range(1, share + 1) if share % size == 0]
            raise UserError(
                f"micro_batch {micro_batch} does not divide the {share} rows that each of {self.world} processes has",
                fix=f"set micro_batch to one of {', '.join(map(str, fits))}",
            )
        return micro_batch

    def build(self, make: Callable[[], T], config: object) -> T:
        """Return the new model that `make` makes, or only one of its shape where the first process shares out its own."""
        del config  # says the shape
        return make()

    def load(self, decoder: Decoder, read: Callable[[], dict[str, Any]]) -> None:
        """Give a decoder that was spread the weights that `read` returns."""
        decoder.load_state_dict(read())

    def spread(self, decoder: Decoder, compute: Compute) -> Decoder:
        """Return the decoder this process trains, on its device."""
        return decoder.to(compute.device)

    def own_part(self, tensor: SomeTensor) -> SomeTensor:
        """Return what lies here of a tensor or parameter that was spread, as a plain one in the same memory."""
        return tensor

    # A step

    def seed(self, seed: int) -> int:
        """Return this process's own seed of the random numbers of a step."""
        return (seed + self.rank * RANK_SEED) % 2**63

    def share(self, batch: Batch) -> tuple[Batch, bool]:
        """Return this process's rows of a batch; false where none is left and the first one is computed for nothing."""
        if self.world == 1:
            return batch, True
        parts = list(batch.split(-(-batch.ids.size(0) // self.world)))
        return (parts[self.rank], True) if self.rank < len(parts) else (next(batch.split(1)), False)

    def sum(self, *values: float) -> list[float]:
        """Return the sums of each value over all processes, in double precision, in the same order everywhere."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return [float(value) for value in total]

    def total(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums of tensors over all processes, in double precision where there are several."""
        if self.world == 1:
            return dict(values)
        flat = torch.cat([value.detach().double().flatten().cpu() for value in values.values()])
        dist.all_reduce(flat)
        parts = torch.split(flat, [value.numel() for value in values.values()])
        return {name: part.view(value.shape) for (name, value), part in zip(values.items(), parts, strict=True)}

    def agree(self, flag: bool) -> bool:
        """Return whether any process says yes, so that all do the same."""
        return self.sum(float(flag))[0] > 0

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes."""
        if self.world == 1:
            return
        gradients = [_gradient(parameter) for parameter in parameters if parameter.requires_grad]
        waiting = []
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            waiting.append((dist.all_reduce(flat, async_op=True), flat, bucket))
        for work, flat, bucket in waiting:
            work.wait()
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            torch._foreach_copy_(bucket, [part.view_as(gradient) for part, gradient in zip(parts, bucket, strict=True)])

    def each_matrix(self, function: Callable[[Tensor], Tensor], matrices: Tensor, rows: int) -> Tensor:
        """Return a function of `[K, M, N]` matrices, each computed by one process. Given and returned is what lies here.

        `rows` is `M`, of which a process may hold a part.
        """
        if self.world == 1:
            return function(matrices)
        count = -(-matrices.size(0) // self.world)
        own = function(_padded(matrices, count * self.world)[self.rank * count : (self.rank + 1) * count])
        found = own.new_empty((count * self.world, *own.shape[1:]))
        dist.all_gather(list(found.chunk(self.world)), own.contiguous())
        return found[: matrices.size(0)]

    def clip(self, parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
        """Scale the gradients down to a global norm of at most `largest`; return the norm before."""
        return nn.utils.clip_grad_norm_(parameters, largest)

    def rest(self, decoder: Decoder) -> None:
        """Let go of what a forward pass without a backward pass gathered from other processes."""

    def whole(self, decoder: Decoder) -> Decoder:
        """Return the whole decoder on the first process, for which all must ask; on the others it may be without weights."""
        return decoder

    # One does, all wait

    def first(self, work: Callable[[], T]) -> T:
        """Return what `work` returns on the first process (a JSON value), to all; it may take any time."""
        if not self.is_first:
            return self.hear()  # type: ignore[no-any-return]
        try:
            result = work()
        except BaseException:
            self.tell(None, failed=True)
            raise
        self.tell(result)
        return result

    def tell(self, value: Any, *, failed: bool = False) -> None:
        """Leave a JSON value for the other processes."""
        if self.store is not None:
            self.store.set(self._next_message(), json.dumps({"value": value, "failed": failed}))

    def hear(self) -> Any:
        """Return the next value the first process tells, whenever that is; `EndedElsewhere` when it fails instead."""
        assert self.store is not None
        key = self._next_message()
        try:
            while not self.store.check([key]):
                with suppress(dist.DistStoreError):  # the time is over: look again, after any signal was heard
                    self.store.wait([key], POLL)
            message = json.loads(self.store.get(key))
        except dist.DistNetworkError as error:
            raise EndedElsewhere("process 0 has ended") from error
        if message["failed"]:
            raise EndedElsewhere("process 0 failed, and says why")
        return message["value"]

    def _next_message(self) -> str:
        self._messages += 1
        return f"message {self._messages}"


ALONE = Processes()


@cache
def joined() -> Processes:
    """Return the processes of this program, which are joined once."""
    return Processes.from_environment()


def idle_gpus_note(processes: Processes, compute: Compute, max_gpus: int) -> str | None:
    """Return a hint for a run of one process that leaves GPUs idle which it may use (`max_gpus`; 0 = all)."""
    count = torch.cuda.device_count() if compute.device.type == "cuda" else 1
    if processes.world > 1 or count == 1 or max_gpus == 1:
        return None
    command = shlex.join(["torchrun", f"--nproc_per_node={count}", "-m", "caslon", *sys.argv[1:]])
    return f"this machine has {count} GPUs and one of them is used; for all: {command}"


def _gradient(parameter: nn.Parameter) -> Tensor:
    """Return a parameter's gradient; zeros where only other processes had use for it."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    filled = 0
    for tensor in tensors:
        if bucket and (filled + tensor.nbytes > BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, filled = [], 0
        bucket.append(tensor)
        filled += tensor.nbytes
    if bucket:
        yield bucket


def _padded(matrices: Tensor, count: int) -> Tensor:
    missing = count - matrices.size(0)
    return torch.cat([matrices, matrices.new_zeros((missing, *matrices.shape[1:]))]) if missing else matrices
