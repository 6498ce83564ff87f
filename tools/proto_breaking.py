"""Refuse changes of the public API that break clients of the last release.

A release is a tag v1.2.3; the API of the newest one that is an ancestor of what is checked out is
compared with the working tree by buf's rules (WIRE_JSON, see buf.yaml). Only the public package is
promised to anyone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUF = ROOT / ".tools" / "proto" / "bin" / "buf"
PUBLIC = "proto/riverrun"


def newest_release(tags: list[str]) -> str | None:
    """Return the highest of the tags that name a release."""
    versions = {
        tuple(map(int, found.groups())): tag
        for tag in tags
        if (found := re.fullmatch(r"v(\d+)\.(\d+)\.(\d+)", tag))
    }
    return versions[max(versions)] if versions else None


def git(*arguments: str) -> bytes:
    """Return what git prints.

    Raises:
        subprocess.CalledProcessError: git failed, its own words are on standard error.
    """
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def main() -> None:
    """Compare with the last release."""
    release = newest_release(git("tag", "--merged", "HEAD").decode().split())
    if release is None:
        print("no release yet: nothing that the API could break")
        return
    with tempfile.TemporaryDirectory() as folder:
        old, new = Path(folder, "old"), Path(folder, "new")
        old.mkdir()
        archive = git("archive", "--format=tar", release, "buf.yaml", PUBLIC)
        subprocess.run(["tar", "-x", "-C", old], input=archive, check=True)  # noqa: S607 - of PATH
        shutil.copytree(ROOT / PUBLIC, new / PUBLIC)
        shutil.copy(ROOT / "buf.yaml", new)
        command = [str(BUF), "breaking", "new", "--against", "old"]
        done = subprocess.run(command, cwd=folder, check=False)
    if done.returncode:
        sys.exit(f"the public API breaks clients of {release}; see above")
    print(f"the public API keeps clients of {release} working")


if __name__ == "__main__":
    main()
