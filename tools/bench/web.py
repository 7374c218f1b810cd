"""The browser library beside others: how large it is, and how long a small payload takes.

    python -m tools.bench.web [--count 1000]

What it is measured beside comes from npm, in exact versions, into build/bench (tools/bench/npm
has the lock file); those are run as the programs they are. The size is what esbuild and gzip
make of them. Latencies are measured by one process, in turns through the servers of all, which
share this machine with it: our one-machine host, peerjs-server, y-webrtc's signalling server,
and a bare server that does nothing but pass on, whose figures are those of the machine.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.support import node
from tools.bench import servers
from tools.bench.figures import latencies, rounded

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "web" / "muster"
APP = ROOT / "web" / "app" / "packed"
SCRIPTS = Path(__file__).with_name("npm")
INSTALLED = ROOT / "build" / "bench"
HERE = "127.0.0.1"
BYTES = 300
"""As large as an ICE candidate in the frames of PeerJS."""
WARM = 20
PATIENCE_S = 300

HOW_LARGE = (
    "bundled and minified by esbuild for es2022, each file compressed by gzip -9; ours is all that "
    "index.js imports statically, of the others what an app imports and all that it needs"
)
HOW_LONG = (
    "{count} payloads of {size} bytes, to another client and back, one by one and in turns; each "
    "client is a socket of the same implementation (ws) in one process. muster_signal is signed, "
    "sealed, opened and verified by the library and kept by the service; the others are neither"
)


def measure(*, count: int) -> dict[str, Any]:
    """Measure both."""
    install()
    return {"web_size": size(), "web_latency": latency(count=count)}


def install() -> None:
    """Install from npm what the lock file names, unless it is there."""
    ready = INSTALLED / ".ready"
    lock = (SCRIPTS / "package-lock.json").read_bytes()
    if not ready.exists() or ready.read_bytes() != lock:
        shutil.rmtree(INSTALLED, ignore_errors=True)
        INSTALLED.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SCRIPTS / name, INSTALLED)
        flags = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        _output(node.npm("ci", *flags))
        ready.write_bytes(lock)
    for script in SCRIPTS.glob("*.mjs"):
        shutil.copy(script, INSTALLED)  # imports are looked up from where a script is


def size() -> dict[str, Any]:
    """Weigh the library, the others, and the packed app."""
    found: dict[str, Any] = json.loads(_node("size.mjs", str(LIBRARY)))
    for name in ("app.js", "app.css", "later.js"):
        packed = (APP / name).read_bytes()
        sizes = {"min_bytes": len(packed), "gzip_bytes": len(gzip.compress(packed, 9))}
        found["sizes"][f"muster, app: {name}"] = sizes
    return {"workload": HOW_LARGE} | found


def latency(*, count: int) -> dict[str, Any]:
    """Send payloads through all servers, in turns."""
    ports = {name: servers.free_port() for name in ("bare", "peerjs", "y_webrtc")}
    packages = INSTALLED / "node_modules"
    commands: dict[str, list[str | Path]] = {
        "bare": [INSTALLED / "bare.mjs", str(ports["bare"])],
        "peerjs": [
            *(packages / "peer" / "dist" / "bin" / "peerjs.js", "--host", HERE),
            *("--port", str(ports["peerjs"])),
        ],
        "y_webrtc": [packages / "y-webrtc" / "bin" / "server.js"],
    }
    with ExitStack() as stack:
        for name, command in commands.items():
            environment = {"HOST": HERE, "PORT": str(ports[name])}
            stack.enter_context(
                servers.program(
                    [node.executable(), *command], port=ports[name], environment=environment
                )
            )
        ours = stack.enter_context(servers.muster())
        given = ports | {
            "library": str(LIBRARY),
            "muster": f"http://{HERE}:{ours.port}#{_service_id(ours.port)}",
            "count": count,
            "warm": WARM,
            "bytes": BYTES,
        }
        load = os.getloadavg()[0]
        found: dict[str, list[float]] = json.loads(_node("latency.mjs", json.dumps(given)))
    ways = {name: _told(took) for name, took in found.items()}
    bare = ways["bare"]
    return {
        "workload": HOW_LONG.format(count=count, size=BYTES),
        "count": count,
        "payload_bytes": BYTES,
        "round_trips": ways,
        "machine": {
            "cpus": os.cpu_count(),
            "processor": _processor(),
            "node": _output([node.executable(), "--version"]).strip(),
            "load_before": round(load, 2),
        },
        "noise": {"bare_p99_by_p50": rounded(bare["p99_ms"] / bare["p50_ms"])},
    }


def _told(took: list[float]) -> dict[str, float]:
    times = latencies([ms / 1000 for ms in took])
    return {name: rounded(value) for name, value in times.items()}


def _service_id(port: int) -> str:
    line = http.client.HTTPConnection(HERE, port, 30)
    try:
        line.request("GET", "/v2/info")
        return str(json.loads(line.getresponse().read())["service_id"])
    finally:
        line.close()


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def _node(script: str, *arguments: str) -> str:
    return _output([node.executable(), INSTALLED / script, *arguments])


def _output(command: list[str | Path]) -> str:
    done = subprocess.run(  # noqa: S603 - our own scripts, and npm
        command,
        cwd=INSTALLED,
        env=node.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout)[-2000:])
    return done.stdout


def main() -> int:
    """Print both as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.web", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000, help="payloads each way sends")
    print(json.dumps(measure(count=parser.parse_args().count), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
