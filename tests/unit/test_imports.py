import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
CLIENT = {"httpx2", "rich", "websockets"}
SERVER = {"prometheus_client", "uvicorn"}
SLOW = {"boto3", "cryptography", "jsonschema", "sqlite3"}


def imported_with(module: str) -> set[str]:
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", program]
    unmeasured = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    done = subprocess.run(
        command, cwd=ROOT, env=unmeasured, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_cold_start_imports_no_client_no_server_and_nothing_slow() -> None:
    assert not imported_with("app") & (CLIENT | SERVER | SLOW)


def test_the_aws_host_does_not_know_the_other_host() -> None:
    assert not {
        name for name in imported_with("app") if name.startswith(("chalicelib.local", "infra"))
    }


def test_a_cold_start_loads_neither_what_publishes_nor_assist() -> None:
    late = ("chalicelib.assist", "chalicelib.aws.publishing", "chalicelib.community.publisher")
    assert not {name for name in imported_with("app") if name.startswith(late)}


@pytest.mark.parametrize("wire", ["muster.felund", "muster.felund.records", "muster.felund.frames"])
def test_the_wire_protocol_starts_without_the_client_and_the_service(wire: str) -> None:
    assert not imported_with(wire) & (CLIENT | SERVER | SLOW | {"chalicelib", "infra", "app"})


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-dev.txt", "requirements-serve.txt"]
)
def test_every_pin_has_its_hash_and_names_no_index(name: str) -> None:
    text = (ROOT / name).read_text()
    pins = [line for line in text.splitlines() if "==" in line and not line.startswith((" ", "#"))]

    assert pins
    assert all(line.endswith(" \\") for line in pins)
    assert "://" not in text


def test_lambda_gets_neither_chalice_nor_an_sdk() -> None:
    pins = (ROOT / "requirements.txt").read_text()

    assert not [name for name in ("boto", "chalice", "pip==") if name in pins]


def test_npm_packages_are_locked_without_naming_a_registry() -> None:
    lock = json.loads((ROOT / "tests" / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}

    assert packages
    assert all("integrity" in entry and "resolved" not in entry for entry in packages.values())


def test_no_file_imports_itself_by_way_of_others() -> None:
    """An import circle ties files into one that cannot be read, moved or loaded by halves."""
    graph = grimp.build_graph(
        *("capsules", "muster", "chalicelib", "infra", "tools"), exclude_type_checking_imports=True
    )
    followed = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}

    assert list(circles(followed)) == []


def test_a_circle_would_be_found() -> None:
    assert [*circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})] == [{"a", "b", "c"}]


def circles(followed: dict[str, set[str]]) -> Iterator[set[str]]:
    """Yield each set of files that reach one another, by what each of them imports."""
    reached = {name: _reached(name, followed) for name in followed}
    seen: set[str] = set()
    for name in sorted(followed):
        if name in reached[name] and name not in seen:
            circle = {other for other in reached[name] if name in reached[other]}
            seen |= circle
            yield circle


def _reached(start: str, followed: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = [start]
    while todo:
        for name in followed.get(todo.pop(), ()):
            if name not in found:
                found.add(name)
                todo.append(name)
    return found
