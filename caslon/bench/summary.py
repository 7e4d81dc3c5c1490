"""Lanes to a summary: who leads, what more devices change, and what each device gives. Every figure of the report is made here.

Three figures always stand together (tok/s, TTFT, TPOT): one alone hides what it was paid with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from caslon.bench.lanes import Lane, scaling_pairs, status_of
from caslon.bench.profiles import CONTRACT
from caslon.bench.results import Result

LEADERS = 3


@dataclass(frozen=True)
class Entry:
    """One lane's figures on one load."""

    label: str
    model: str
    shape: str
    output_throughput: float
    ttft_ms: float
    tpot_ms: float
    per_device: float | None
    law: float | None
    law_uncorrected: float | None
    notes: str


@dataclass(frozen=True)
class Change:
    """What going from fewer to more devices changes on one load, in percent, and the figures before and after."""

    model: str
    smaller: str
    larger: str
    devices: tuple[int, int]
    profile: str
    before: Entry
    after: Entry

    @property
    def output_throughput(self) -> float:
        """Change of tok/s."""
        return percent(self.before.output_throughput, self.after.output_throughput)

    @property
    def ttft_ms(self) -> float:
        """Change of TTFT; below zero is faster."""
        return percent(self.before.ttft_ms, self.after.ttft_ms)

    @property
    def tpot_ms(self) -> float:
        """Change of TPOT; below zero is faster."""
        return percent(self.before.tpot_ms, self.after.tpot_ms)


@dataclass(frozen=True)
class Summary:
    """What a set of lanes says. `ranked` are the lanes that may be compared; `entries` their figures by load, best first."""

    lanes: Sequence[Lane]
    ranked: Sequence[Lane]
    entries: Mapping[str, Sequence[Entry]]
    changes: Sequence[Change]
    statuses: Mapping[str, str]

    def leaders(self, profile: str) -> Sequence[Entry]:
        """Return the three lanes with the most tok/s on a load."""
        return self.entries[profile][:LEADERS]

    def best_of_models(self, profile: str) -> Sequence[Entry]:
        """Return the best lane of each model on a load, best first."""
        best: dict[str, Entry] = {}
        for entry in self.entries[profile]:
            best.setdefault(entry.model, entry)
        return list(best.values())

    def most_per_device(self, profile: str) -> Sequence[Entry]:
        """Return the best lane of each model by tok/s of one device, best first; the three best."""
        known = sorted(self.entries[profile], key=lambda entry: -(entry.per_device or 0))
        best: dict[str, Entry] = {}
        for entry in known:
            if entry.per_device is not None:
                best.setdefault(entry.model, entry)
        return list(best.values())[:LEADERS]

    @property
    def refusals(self) -> Mapping[str, Sequence[str]]:
        """Why lanes were left out of the ranking."""
        return {lane.label: lane.refusals for lane in self.lanes if lane.refusals}

    def to_json(self) -> dict[str, Any]:
        """Return every figure of the summary."""
        return {
            "leaders": {name: [asdict(entry) for entry in self.leaders(name)] for name in self.entries},
            "leaders_one_per_model": {
                name: [asdict(entry) for entry in self.best_of_models(name)[:LEADERS]] for name in self.entries
            },
            "most_per_device": {name: [asdict(entry) for entry in self.most_per_device(name)] for name in self.entries},
            "entries": {name: [asdict(entry) for entry in entries] for name, entries in self.entries.items()},
            "scaling": [
                {
                    "model": change.model,
                    "from": change.smaller,
                    "to": change.larger,
                    "profile": change.profile,
                    "output_throughput_percent": change.output_throughput,
                    "ttft_percent": change.ttft_ms,
                    "tpot_percent": change.tpot_ms,
                }
                for change in self.changes
            ],
            "statuses": dict(self.statuses),
            "refusals": {label: list(reasons) for label, reasons in self.refusals.items()},
        }


def percent(before: float, after: float) -> float:
    """Return a change in percent of the value before."""
    return 100 * (after / before - 1)


def summary_of(lanes: Sequence[Lane]) -> Summary:
    """Return the summary of lanes of one kind: one's own or the published ones, never both."""
    ranked = [lane for lane in lanes if not lane.refusals]
    entries = {
        profile.name: sorted(
            (entry_of(lane, lane.by_profile[profile.name]) for lane in ranked),
            key=lambda entry: -entry.output_throughput,
        )
        for profile in CONTRACT
    }
    changes = [_change(small, large, profile.name) for small, large in scaling_pairs(ranked) for profile in CONTRACT]
    statuses = {lane.label: status_of(lane, lanes) for lane in lanes}
    return Summary(lanes, ranked, entries, changes, statuses)


def entry_of(lane: Lane, result: Result) -> Entry:
    """Return a lane's figures on one load."""
    data, law, devices = result.data, result.law, lane.devices
    return Entry(
        label=lane.label,
        model=lane.model,
        shape=lane.shape,
        output_throughput=data["output_throughput"],
        ttft_ms=data["mean_ttft_ms"],
        tpot_ms=data["mean_tpot_ms"],
        per_device=data["output_throughput"] / devices if devices else None,
        law=law[0] if law else None,
        law_uncorrected=law[1] if law else None,
        notes=lane.notes,
    )


def _change(small: Lane, large: Lane, profile: str) -> Change:
    assert small.devices is not None
    assert large.devices is not None
    before, after = (entry_of(lane, lane.by_profile[profile]) for lane in (small, large))
    return Change(small.model, small.label, large.label, (small.devices, large.devices), profile, before, after)
