"""Generate the protobuf code that is checked in, or check that it is fresh.

The pinned generator lives in a virtual environment of its own (`make setup` builds it): it caps
protobuf below what users get, so it must not share the environment that the tests run in.
"""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GENERATOR = ROOT / ".tools" / "proto"
# Where each proto package's generated code belongs: the proto path equals the Python path.
HOMES = {"riverrun": ROOT / "client", "riverrun_server": ROOT / "server"}
# The public API as reflection serves it: generated code holds no comments and no JSON names.
PUBLIC = Path("riverrun", "v1")
DESCRIPTORS = Path("riverrun_server", "rpc", "riverrun.v1.binpb")


def generate(into: Path) -> None:
    """Compile every .proto file into `into`, and the public ones into one set of descriptors.

    Stubs for services are made only where a file has one.
    """
    sources = sorted((ROOT / "proto").rglob("*.proto"))
    python = GENERATOR / "bin" / "python"
    includes = next((GENERATOR / "lib").glob("python*/site-packages/grpc_tools/_proto"))
    base = [str(python), "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"-I{includes}"]
    plugins = [
        f"--plugin=protoc-gen-mypy={GENERATOR / 'bin' / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={GENERATOR / 'bin' / 'protoc-gen-mypy_grpc'}",
    ]
    run([*base, *plugins, f"--python_out={into}", f"--mypy_out={into}", *map(str, sources)])
    services = [path for path in sources if "\nservice " in path.read_text()]
    run(
        [*base, *plugins, f"--grpc_python_out={into}", f"--mypy_grpc_out={into}"]
        + [str(path) for path in services]
    )
    (into / DESCRIPTORS).parent.mkdir(parents=True)
    # In the order of the sources, so the same protos give the same bytes.
    public = [str(path) for path in sources if path.is_relative_to(ROOT / "proto" / PUBLIC)]
    flags = ["--include_imports", "--include_source_info"]
    run([*base, *flags, f"--descriptor_set_out={into / DESCRIPTORS}", *public])


def run(command: list[str]) -> None:
    """Run the generator quietly; its own words are shown only when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def generated(tree: Path) -> set[Path]:
    """Return the relative paths of all generated files below `tree`."""
    patterns = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi", "*.binpb")
    return {path.relative_to(tree) for pattern in patterns for path in tree.rglob(pattern)}


def main() -> None:
    """Write the generated code, or with --check fail when the checked-in code is stale."""
    check = "--check" in sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        stale = []
        for package, home in HOMES.items():
            here = {path for path in generated(home) if path.parts[0] == package}
            made = {path for path in generated(fresh) if path.parts[0] == package}
            for path in sorted(here | made):
                if path in made and path in here and filecmp.cmp(fresh / path, home / path, False):
                    continue
                stale.append(str((home / path).relative_to(ROOT)))
                if not check and path in made:
                    (home / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(fresh / path, home / path)
                elif not check:
                    (home / path).unlink()
    if check and stale:
        sys.exit("stale generated code, run `make proto`:\n  " + "\n  ".join(stale))
    print(f"{'checked' if check else 'wrote'} {len(stale)} stale files" if stale else "fresh")


if __name__ == "__main__":
    main()
