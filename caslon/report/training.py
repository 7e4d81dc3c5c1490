"""A stage that trained to key figures of its report: where the time went, how often it saw its text, its best step, its cost."""

from caslon.folders import StageFolder
from caslon.report.blocks import Block, Fact, Facts
from caslon.report.numbers import readable_seconds, share
from caslon.report.summary import training_summary

LOG = "events.jsonl"


def training_facts(stage: StageFolder, many_epochs: float) -> list[Block]:
    """Return the facts as one block; nothing for a stage that trained nothing. More than `many_epochs` are remarked on."""
    found = training_summary(stage.path / LOG)
    if found is None:
        return []
    whole, manifest = sum(found.seconds.values()), stage.manifest
    facts = [
        Fact(f"Time for {name}", share(seconds, whole), "", readable_seconds(seconds))
        for name, seconds in found.seconds.items()
        if seconds
    ]
    if (epochs := manifest.totals.get("epochs")) is not None:
        note = f"more than {many_epochs:g}: expect over-fitting" if epochs > many_epochs else "times the text was seen"
        facts.append(Fact("Epochs", epochs, "", note))
    if found.best_step is not None:
        facts.append(Fact("Best step", found.best_step, "", "lowest validation loss"))
    if (price := manifest.settings.get("price_per_hour")) is not None:
        facts.append(Fact("Cost", round(found.cost(price), 2), "", f"at {price:g} an hour"))
    return [Facts(facts)] if facts else []
