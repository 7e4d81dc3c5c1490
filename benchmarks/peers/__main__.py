"""A job, as JSON, to a trainer that takes steps when told to: `python -m peers JOB`, started by `turns.Worker`.

What the trainer prints goes to the log beside its files; the answers have the standard output for themselves.
"""

import json
import os
import sys

from peers.recipes import RECIPES
from peers.trainers import TRAINERS, versions
from peers.turns import Job, Turns


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    turns = Turns(sys.stdin, answers)
    turns.facts["versions"] = versions()
    turns.wait()
    {**TRAINERS, **RECIPES}[job.trainer](job, turns)


if __name__ == "__main__":
    main()
