"""The source `python`: turns the running interpreter's standard library into paths, read in place.

Tests, other people's packages, bundled wheels and files made at build time are left out.
"""

import os
import sysconfig
from pathlib import Path

NO_LIBRARY = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "_bundled", "bad_coding"}
)
NO_LIBRARY_FILES = ("_sysconfigdata", "python-config", "lib2to3/pgen2/grammar")


def library_folder() -> Path:
    """Return the folder of the standard library."""
    return Path(sysconfig.get_path("stdlib"))


def library_files() -> list[tuple[Path, str]]:
    """Return `(path, path relative to the library)` of every module, sorted by the latter."""
    folder = library_folder()
    names: list[str] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in NO_LIBRARY]  # site-packages may hold 100,000 files
        names += [(Path(place) / name).relative_to(folder).as_posix() for name in files if name.endswith(".py")]
    return [(folder / name, name) for name in sorted(names) if _is_library(name)]


def _is_library(name: str) -> bool:
    parts = name.split("/")
    return not NO_LIBRARY.intersection(parts[:-1]) and not any(
        name.startswith(start) or parts[-1].startswith(start) for start in NO_LIBRARY_FILES
    )
