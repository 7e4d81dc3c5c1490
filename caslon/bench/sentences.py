"""What the figures say, in sentences made from the figures: no word here is about one result or another."""

from collections.abc import Iterator, Sequence

from caslon.bench.summary import Change, Entry, Summary, percent

MINUS = "−"


def signed(value: float) -> str:
    """Return a change in percent with its sign: +0.8 %, −43.8 %."""
    rounded = round(value, 1) or 0.0
    return f"{MINUS if rounded < 0 else '+'}{abs(rounded):.1f} %"


def three(entry: Entry) -> str:
    """Return the three figures that belong together."""
    return f"{entry.output_throughput:,.2f} tok/s, TTFT {entry.ttft_ms:,.2f} ms, TPOT {entry.tpot_ms:,.2f} ms"


def on_leaders(summary: Summary) -> Iterator[str]:
    """Yield for each load who leads, and by how much over the best lane of another model."""
    for profile in summary.entries:
        best = summary.best_of_models(profile)
        if not best:
            continue
        text = f"On {profile}, {best[0].label} leads with {three(best[0])}"
        if len(best) > 1:
            lead = percent(best[1].output_throughput, best[0].output_throughput)
            text += f", {lead:.1f} % more tok/s than {best[1].label}"
        yield text + "."


def on_devices(summary: Summary) -> Iterator[str]:
    """Yield for each load what one device gives at best."""
    for profile in summary.entries:
        best = summary.most_per_device(profile)
        if best:
            named = ", ".join(f"{entry.label} {entry.per_device:,.1f}" for entry in best)
            yield f"Per device on {profile}, in tok/s: {named}."


def on_change(change: Change) -> str:
    """Return what more devices change on one load."""
    before, after = change.before, change.after
    return (
        f"{change.model} from {change.devices[0]} to {change.devices[1]} devices on {change.profile}: tok/s "
        f"{before.output_throughput:,.2f} → {after.output_throughput:,.2f} ({signed(change.output_throughput)}), "
        f"TTFT {before.ttft_ms:,.2f} → {after.ttft_ms:,.2f} ms ({_speed(change.ttft_ms)}), "
        f"TPOT {before.tpot_ms:,.2f} → {after.tpot_ms:,.2f} ms ({_speed(change.tpot_ms)})."
    )


def on_sizes(changes: Sequence[Change]) -> Iterator[str]:
    """Yield for each step in size how often fewer devices gave more tok/s, over models measured at both sizes."""
    steps = dict.fromkeys(change.devices for change in changes)
    for step in steps:
        pairs = [change for change in changes if change.devices == step]
        ahead = sum(change.output_throughput < 0 for change in pairs)
        models = list(dict.fromkeys(change.model for change in pairs))
        yield (
            f"{step[0]}x is ahead of {step[1]}x in {ahead} of {len(pairs)} pairs of "
            f"{len(models)} {'model' if len(models) == 1 else 'models'} ({', '.join(models)})."
        )


def on_law(summary: Summary) -> Iterator[str]:
    """Yield how well the figures of all rows fit together."""
    entries = [entry for rows in summary.entries.values() for entry in rows]
    values = [entry.law for entry in entries if entry.law is not None]
    uncorrected = [entry.law_uncorrected for entry in entries if entry.law_uncorrected is not None]
    if values:
        yield (
            f"In {len(values)} rows, rate, TTFT and TPOT fit together: the law gives {min(values):.3f} to {max(values):.3f} "
            f"(without its correction for the last wave {min(uncorrected):.3f} to {max(uncorrected):.3f})."
        )


def _speed(change: float) -> str:
    """Return a change of a time, with its meaning."""
    if round(change, 1) == 0:
        return "unchanged"
    return f"{signed(change)}, {'faster' if change < 0 else 'slower'}"
