"""What a stage is: a module in this folder that reads finished folders and writes one.

A stage module states `VERSION`, `READS`, `WRITES`, a `Settings` class, and `run(context)`; optional are `sources(settings, base)`
(outside files it reads; relative paths start at `base`), `NAMES_MATTER` (False: those files are known by their content alone),
`plan(context)` (what it will do and cost), `reads(settings)` and `writes(settings)` (what it needs and makes, where settings
decide), `NEEDS` (optional libraries: module name -> caslon's extra) and `SEVERAL_PROCESSES` (True: of a run that torchrun started
every process calls `run`, else only the first). The module itself imports nothing heavy: `run` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from caslon.folders import StageFolder
from caslon.observe.events import EventLog
from caslon.settings import Settings

if TYPE_CHECKING:
    from caslon.train.distributed import Processes

THIS = "this"  # the device caslon runs on, in a plan
KINDS = ("corpus", "tokenizer", "pretrain", "finetune", "evaluate", "quantize", "export", "index", "serve")
NAMED_KINDS = ("finetune", "evaluate", "quantize", "export", "index", "serve")  # a recipe may hold several of these


@dataclass(frozen=True)
class PlanRow:
    """One line of `caslon plan`: a value, its unit and where it came from (setting, derived from depth, measured...)."""

    name: str
    value: Any
    unit: str = ""
    origin: str = ""


@dataclass(frozen=True)
class PlanContext:
    """What a stage may look at when it plans. Inputs that are not built yet are missing from `inputs`."""

    name: str
    settings: Any
    seed: int
    inputs: Mapping[str, StageFolder]
    recipe_settings: Mapping[str, Settings]  # all tables of the recipe by stage name
    base: Path  # where relative paths in settings start: the folder the command was given in
    device: str = THIS  # what the plan is for: this machine, or a name of `train/devices.py`
    price_per_hour: float | None = None  # of that device, in whatever currency
    may_measure: bool = False  # whether the plan may take seconds of computing to be better


@dataclass(frozen=True)
class StageContext:
    """What a stage gets to do its work. It writes below `folder` only and may be killed and called again at any time."""

    name: str  # as in the recipe: "pretrain", "finetune.sft"
    settings: Any  # an instance of the stage module's Settings
    seed: int
    folder: Path  # the partial folder; holds what an interrupted call left there
    inputs: Mapping[str, StageFolder]  # by kind of thing: "text", "tokens", "model"
    events: EventLog
    base: Path  # where relative paths in settings start: the folder the command was given in
    allow_change: bool = False  # whether begun work may go on although settings were changed on purpose
    processes: "Processes | None" = None  # of the run, where torchrun started several


class Stage(Protocol):
    """A stage module."""

    VERSION: ClassVar[int]
    READS: ClassVar[Sequence[str]]  # kinds of thing it needs
    WRITES: ClassVar[str | None]  # kind of thing it makes, None for a stage that only reports
    Settings: ClassVar[type[Settings]]

    def run(self, context: StageContext) -> dict[str, Any]:
        """Do the work; return totals (figures with units in their names) for the manifest."""
        ...
