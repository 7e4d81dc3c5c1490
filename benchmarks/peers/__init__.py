"""Trainers of several projects, each in a process of its own, to steps taken in turns: what `training_peers.py` measures."""
