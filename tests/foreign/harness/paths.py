"""Where things are: the repository, the binary under test, the clients that `make deps` installed."""

import os
import re
import shutil
import subprocess
from glob import glob
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


def java(at_least):
    """A Java of this release or newer, None if there is none: the one of the path, of JAVA_HOME, or of where Debian has them."""
    candidates = ["java", f"{os.environ.get('JAVA_HOME', '/none')}/bin/java", *sorted(glob("/usr/lib/jvm/*/bin/java"))]
    for candidate in filter(shutil.which, candidates):
        told = subprocess.run([candidate, "-version"], capture_output=True, text=True).stderr
        if (found := re.search(r'version "(\d+)', told)) and int(found[1]) >= at_least:
            return candidate
    return None


def tidelog_binary():
    """The binary under test: TIDELOG_TEST_BINARY, else what `make build` left."""
    binary = Path(os.environ.get("TIDELOG_TEST_BINARY", REPO / "bin" / "tidelog"))
    if not binary.exists():
        raise RuntimeError(f"no {binary}: run `make build`, or name one in TIDELOG_TEST_BINARY")
    return binary
