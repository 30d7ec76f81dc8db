"""Where things are: the repository, the binary under test, the clients that `make deps` installed."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
FOREIGN = REPO / "tests" / "foreign"
CACHE = Path(os.environ.get("TIDELOG_CACHE", Path.home() / ".cache" / "tidelog"))
NODE_MODULES = CACHE / "npm" / "node_modules"


def jars(part):
    """The class path of one part: `client`, `tools` or `server`."""
    folder = CACHE / "java" / part
    if not folder.is_dir():
        raise RuntimeError(f"no {folder}: run `make deps`")
    return f"{folder}/*"


def tidelog_binary():
    """The binary under test: TIDELOG_TEST_BINARY, else what `make build` left."""
    binary = Path(os.environ.get("TIDELOG_TEST_BINARY", REPO / "bin" / "tidelog"))
    if not binary.exists():
        raise RuntimeError(f"no {binary}: run `make build`, or name one in TIDELOG_TEST_BINARY")
    return binary
