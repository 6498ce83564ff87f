"""Print the tree with each module's sentence, keep it in ARCHITECTURE.md, and name what is too long.

`--write` puts the tree between the markers of ARCHITECTURE.md, `--check` fails when it is not the
one that stands there.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- map -->", "<!-- /map -->"
# What is drawn; generated code is not.
TREES = ("client/riverrun", "server/riverrun_server", "tools")
MODULE_LINES_MAX = 400
TEST_LINES_MAX = 600


def sentence(module: Path) -> str:
    """Return the first line of a module's docstring, or nothing."""
    docstring = ast.get_docstring(ast.parse(module.read_text()))
    return docstring.splitlines()[0] if docstring else ""


def modules(tree: str) -> list[Path]:
    """Return the hand-written modules below a folder, in order."""
    found = (ROOT / tree).rglob("*.py")
    return sorted(path for path in found if not path.stem.endswith(("_pb2", "_pb2_grpc")))


def draw(folder: Path, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield (indented name, sentence) of a folder and everything in it."""
    package = folder / "__init__.py"
    name = str(folder.relative_to(ROOT)) if depth == 0 else folder.name
    yield "  " * depth + name + "/", sentence(package) if package.exists() else ""
    inside = {path for path in modules(str(folder.relative_to(ROOT))) if path != package}
    for path in sorted(path for path in inside if path.parent == folder):
        yield "  " * (depth + 1) + path.name, sentence(path)
    children = {folder / path.relative_to(folder).parts[0] for path in inside}
    for child in sorted(child for child in children if child.is_dir()):
        yield from draw(child, depth + 1)


def tree() -> str:
    """Return the whole map."""
    lines = [line for root in TREES for line in draw(ROOT / root)]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}".rstrip() for name, text in lines)


def too_long() -> list[str]:
    """Return a line for each module that has outgrown its bound."""
    bounds = dict.fromkeys(TREES, MODULE_LINES_MAX) | {"tests": TEST_LINES_MAX}
    found = []
    for folder, bound in bounds.items():
        for path in modules(folder):
            lines = len(path.read_text().splitlines())
            if lines > bound:
                found.append(f"{path.relative_to(ROOT)}: {lines} lines, at most {bound}")
    return found


def main() -> None:
    """Print, write or check the map."""
    block = f"{BEGIN}\n```\n{tree()}\n```\n{END}"
    if not {"--write", "--check"} & set(sys.argv[1:]):
        print(tree())
        print("\n".join(["", *too_long()]).rstrip())
        return
    page = PAGE.read_text() if PAGE.exists() else ""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"{PAGE.name} has no place for the map: write {BEGIN} and {END} where it belongs")
    fresh = before + block + after
    if "--write" in sys.argv[1:]:
        PAGE.write_text(fresh)
    elif fresh != page:
        sys.exit(f"the map in {PAGE.name} is stale, run `make map-write`")


if __name__ == "__main__":
    main()
