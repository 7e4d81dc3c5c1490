"""Collecting: turns source entries into raw files, one after another, in an order that depends on names only."""

from caslon.corpus.collect.entries import load_raw, raw_files, source_paths
from caslon.corpus.collect.raw_file import Problem, RawFile

__all__ = ["Problem", "RawFile", "load_raw", "raw_files", "source_paths"]
