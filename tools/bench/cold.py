"""Cold starts: how long the packaged zip takes from nothing to its first answers.

AWS's own runtime client runs it, over dynalite, beside an ordinary variant: the same
service as Chalice packs it, with boto3 imported eagerly, as most functions do. The SDK
is the runtime's own and precompiled, in its zip for the size only. Both are measured in
turns in one run, so that their ratio holds on any machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra import archive, packing
from tools.bench.members import circle
from tools.bench.units import NOWHERE

RUNS = 7
AIM_S, LATER_S = 0.3, 0.12
AIM_MB = 8.0

EAGER = """
import boto3
boto3.client("dynamodb")
from chalicelib import aws
from chalicelib.store import dynamodb_http
dynamodb_http.from_environment = lambda environment, **waits: None
"""
"""What an ordinary function does when it is imported: the whole SDK, and a client."""

FIGURES = ("init_s", "first_stored_s", "until_stored_s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print JSON; on a terminal also a table."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.cold", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help="cold starts of each (%(default)s)")
    chosen = parser.parse_args(arguments)
    report = measure(runs=max(1, chosen.runs))
    print(json.dumps(report, indent=2))
    if sys.stderr.isatty():
        print("\n".join(lines(report)), file=sys.stderr)
    return 0


def measure(*, runs: int) -> dict[str, Any]:
    """Start both variants *runs* times each, in turns."""
    from tests.support import aws, dynalite

    os.environ.update(NOWHERE)
    with tempfile.TemporaryDirectory() as name, dynalite.running() as url:
        ours, eager = _variants(Path(name))
        variables = aws.dynamodb(url) | {"MUSTER_ACCESS": "open"}
        times: dict[str, list[dict[str, float]]] = {"muster": [], "eager_boto3": []}
        for _ in range(runs):
            for variant, tree in (("muster", ours), ("eager_boto3", eager)):
                times[variant].append(_start(tree, variables))
        archives = {"muster": Path(name) / "ours.zip", "eager_boto3": Path(name) / "eager.zip"}
        megabytes = {one: path.stat().st_size / 1e6 for one, path in archives.items()}
    results = {
        variant: {
            **{figure: _median(runs_of, figure) for figure in FIGURES},
            "best_until_stored_s": round(min(one["until_stored_s"] for one in runs_of), 4),
            "zip_mb": round(megabytes[variant], 2),
        }
        for variant, runs_of in times.items()
    }
    ours_, beside = results["muster"], results["eager_boto3"]
    return {
        "python": sys.version.split()[0],
        "runs": runs,
        "how": "median of cold starts in turns, a process each, by AWS's runtime client "
        "over dynalite",
        "results": results,
        "ratio": {
            figure: round(beside[figure] / ours_[figure], 2)
            for figure in (*FIGURES, "zip_mb")
            if ours_[figure]
        },
        "aim": f"at most {AIM_S} s to the first stored answer and {AIM_MB:g} MB; later {LATER_S} s",
        "reached": ours_["until_stored_s"] <= AIM_S and ours_["zip_mb"] <= AIM_MB,
        "later_reached": ours_["until_stored_s"] <= LATER_S,
    }


def lines(report: Mapping[str, Any]) -> list[str]:
    """Return the report as a table."""
    what = {
        "init_s": "until it takes events",
        "first_stored_s": "its first event, a signed registration",
        "until_stored_s": "all together",
        "zip_mb": "zip, MB",
    }
    results, ratio = report["results"], report["ratio"]
    found = [f"{'cold start, seconds':<38}{'muster':>9}{'eager':>9}{'ratio':>8}"]
    for figure, name in what.items():
        ours, eager = results["muster"][figure], results["eager_boto3"][figure]
        found.append(f"{name:<38}{ours:>9.3f}{eager:>9.3f}{ratio.get(figure, 0):>7.1f}x")
    reached = "reached" if report["reached"] else "missed"
    return [*found, f"aim: {report['aim']}: {reached}"]


def _variants(folder: Path) -> tuple[Path, Path]:
    """Unpack the zip, and make the ordinary variant of it."""
    python, architecture = packing.find_python(sys.executable), archive.here()
    packed = packing.pack(folder / "package", python, architecture=architecture)
    shutil.copyfile(packed.archive, folder / "ours.zip")
    ours, eager = folder / "ours", folder / "eager"
    with zipfile.ZipFile(packed.archive) as opened:
        opened.extractall(ours)
    raw = packing.chalice(folder, python, architecture=architecture)
    with zipfile.ZipFile(raw / packing.ARCHIVE) as opened:
        opened.extractall(eager)
    archive.Wheels(python.path, python.target, architecture).bring(eager)
    app = eager / "app.py"
    future = "from __future__ import annotations\n"
    app.write_text(app.read_text().replace(future, future + EAGER, 1))
    bundled = folder / "bundled"
    shutil.copytree(eager, bundled)
    _add_sdk(bundled)
    archive.write(bundled, folder / "eager.zip")
    return ours, eager


def _add_sdk(tree: Path) -> None:
    """Put boto3 into the zip, as a requirements.txt that names it does."""
    import boto3

    from tests.support.runtime_api import SDK

    installed = Path(boto3.__file__).parents[1]
    for name in SDK:
        source = installed / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source.with_suffix(".py"), (tree / name).with_suffix(".py"))


def _start(tree: Path, variables: Mapping[str, str]) -> dict[str, float]:
    """Start a function once, and let it keep a registration."""
    from tests.support import runtime_api
    from tests.support.gateway import rest_event

    (member,) = circle(1)
    ready = member.register()
    event = rest_event(ready.method, ready.path, headers=[*ready.headers.items()], body=ready.body)
    with runtime_api.running(tree, "app.serve", variables) as function:
        init = function.await_init()
        begun = time.perf_counter()
        answer = function.run(event)
        stored = time.perf_counter() - begun
    if answer["statusCode"] != 200:
        raise RuntimeError(answer["body"])
    return {"init_s": init, "first_stored_s": stored, "until_stored_s": init + stored}


def _median(runs: Sequence[Mapping[str, float]], figure: str) -> float:
    return round(statistics.median(run[figure] for run in runs), 4)


if __name__ == "__main__":
    sys.exit(main())
