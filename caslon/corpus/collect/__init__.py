"""Collecting: turns source entries into raw files, from this machine or out of the store that collectors fill."""

from caslon.corpus.collect.entries import load_raw, raw_files, source_paths
from caslon.corpus.collect.parts import Limits
from caslon.corpus.collect.raw_file import Problem, RawFile
from caslon.corpus.collect.store import Store, StoredFile

__all__ = ["Limits", "Problem", "RawFile", "Store", "StoredFile", "load_raw", "raw_files", "source_paths"]
