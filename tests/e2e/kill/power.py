"""Builds what makes a kill as bad as a power cut: a library that holds back what was not synced."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("unsynced.c")


def unsynced_is_lost(folder: Path) -> dict[str, str]:
    """Return the environment of a broker whose death takes with it what it had not synced.

    Args:
        folder: where to build the library.

    Raises:
        RuntimeError: there is no C compiler, or it fails.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("power loss needs a C compiler (cc, gcc or clang); install one")
    library = folder / "unsynced.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", library, _SOURCE, "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{_SOURCE.name} does not compile:\n{done.stderr}")
    return {"LD_PRELOAD": str(library.resolve())}
