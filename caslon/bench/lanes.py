"""Results to lanes: what one set-up gave on each load. Put together by what the results say of themselves, not by file names."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from caslon.bench.gate import reasons_against, suspicion
from caslon.bench.profiles import CONTRACT
from caslon.bench.results import Result

COMPLETED = "completed"
FALLBACK = "completed on fallback shape"
UNRELIABLE = "blocked or unreliable"
SINGLE = "single-shape only"
LOADED = CONTRACT[1]
STATUSES = (COMPLETED, FALLBACK, UNRELIABLE, SINGLE)
SET_UP = (
    "source", "model", "served_model_name", "engine", "engine_version", "image", "dtype", "quantization", "tp", "pp", "dp",
    "ep", "gpus", "eager", "cluster_label", "result_tag",
)  # fmt: skip


@dataclass(frozen=True)
class Lane:
    """One set-up and its results. `label` names it in tables; `others` are its loads beside the contract's."""

    label: str
    results: Sequence[Result]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What all of its results say of the set-up."""
        return self.results[0].metadata

    @property
    def model(self) -> str:
        """The model that was served."""
        return str(self.metadata["model"])

    @property
    def shape(self) -> str:
        """Devices and how the model was spread over them, such as `16x TP8 PP2`."""
        return shape_of(self.metadata)

    @property
    def devices(self) -> int | None:
        """How many devices worked on it."""
        return self.results[0].devices

    @property
    def is_published(self) -> bool:
        """Whether these are published results, which are shown and ranked apart."""
        return self.metadata.get("source") == "published"

    @cached_property
    def by_profile(self) -> Mapping[str, Result]:
        """Its results on the loads of the contract; one whose answers were of a single token has no TPOT and is none."""
        return {
            result.profile.name: result
            for result in self.results
            if result.has_figures and result.data.get("mean_tpot_ms") is not None and not result.profile.scaled
        }

    @cached_property
    def others(self) -> Sequence[Result]:
        """Its results on other loads, which are never in a table with the contract's."""
        return [result for result in self.results if result.has_figures and result.profile.scaled]

    @cached_property
    def refusals(self) -> Sequence[str]:
        """Every reason why it may not be compared; none when it may."""
        return reasons_against(self.results)

    @property
    def notes(self) -> str:
        """What stands beside the figures: version, image, caveat."""
        metadata = self.metadata
        engine = " ".join(filter(None, (metadata.get("engine"), metadata.get("engine_version"))))
        image = f"image {metadata['image']}" if metadata.get("image") else ""
        eager = "eager" if metadata.get("eager") else ""
        caveats = dict.fromkeys(result.metadata.get("caveat") or "" for result in self.results)
        return "; ".join(filter(None, (engine, image, eager, *caveats)))


def shape_of(metadata: Mapping[str, Any]) -> str:
    """Return the shape a set-up ran on."""
    gpus = metadata.get("gpus")
    if gpus is None:
        return "shape not known"
    parts = [f"{name.upper()}{metadata[name]}" for name in ("tp", "pp", "dp") if (metadata.get(name) or 1) > 1]
    return " ".join([f"{gpus}x" if gpus else "CPU", *parts, *(["EP"] if metadata.get("ep") else [])])


def lanes_of(results: Iterable[Result]) -> list[Lane]:
    """Return the lanes in the order of their first results; labels that would be equal get their tags."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(_set_up(result), []).append(result)
    labels = [f"{group[0].metadata['model']} {shape_of(group[0].metadata)}" for group in groups.values()]
    return [
        Lane(
            label if labels.count(label) == 1 else f"{label} ({group[0].metadata.get('result_tag') or 'no tag'})", group
        )
        for label, group in zip(labels, groups.values(), strict=True)
    ]


def _set_up(result: Result) -> tuple[Any, ...]:
    hardware = result.metadata.get("hardware")
    return (
        *(result.metadata.get(key) for key in SET_UP),
        hardware.get("name") if isinstance(hardware, dict) else hardware,
    )


def status_of(lane: Lane, lanes: Sequence[Lane]) -> str:
    """Return a lane's status among all: completed, on a fallback shape, unreliable, or the only shape of its model."""
    if (not lane.by_profile and not lane.others) or any(
        one.metadata.get("status") == "blocked" for one in lane.results
    ):
        return UNRELIABLE
    if any(suspicion(result) for result in lane.by_profile.values()):
        return UNRELIABLE
    if lane.metadata.get("status") == "fallback":
        return FALLBACK
    shapes = {other.shape for other in lanes if other.model == lane.model and (other.by_profile or other.others)}
    return SINGLE if len(shapes) == 1 else COMPLETED


def scaling_pairs(lanes: Sequence[Lane]) -> Iterator[tuple[Lane, Lane]]:
    """Yield the lanes of one model on fewer and on more devices, sizes next to each other; of one size the fastest under load."""
    by_model: dict[str, dict[int, Lane]] = {}
    for lane in sorted(lanes, key=_loaded_throughput):
        if lane.devices is not None:
            by_model.setdefault(lane.model, {})[lane.devices] = lane
    for model in dict.fromkeys(lane.model for lane in lanes):
        yield from pairwise(lane for _, lane in sorted(by_model.get(model, {}).items()))


def _loaded_throughput(lane: Lane) -> float:
    throughput: float = lane.by_profile[LOADED.name].data["output_throughput"]
    return throughput
