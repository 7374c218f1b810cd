"""The Dockerfile, which cannot be built here: it is read, and its steps run in a clean place."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import venv
from pathlib import Path

import pytest

from tests.cli.terminal import Running
from tests.support.local import ROOT

DOCKERFILE = ROOT / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Return what the file says, a line of it for each instruction."""
    text = re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE.read_text()).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.split(None, 1)[0], " ".join(line.split(None, 1)[1].split())) for line in lines]


def said(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


def test_it_is_built_in_two_stages_from_a_named_python() -> None:
    bases = [base.split()[0] for base in said("FROM")]

    assert len(bases) == 2
    assert set(bases) == {"python:3.13-slim-bookworm"}
    assert said("COPY")[-1] == "--from=build /opt/muster /opt/muster"


def test_it_does_not_run_as_root() -> None:
    names = [name for name, _ in instructions()]

    assert said("USER") == ["8787:8787"]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "--uid 8787" in said("RUN")[-1]


def test_it_keeps_data_in_a_volume_and_says_whether_it_is_well() -> None:
    assert said("VOLUME") == ["/data"]
    assert said("STOPSIGNAL") == ["SIGTERM"]
    assert "/v1/health" in said("HEALTHCHECK")[0]
    assert said("ENTRYPOINT")[0].startswith('["muster", "serve"')


def test_nothing_is_fetched_but_checked_packages() -> None:
    steps = " ".join(said("RUN"))

    assert not said("ADD")
    assert not re.search(r"\b(curl|wget|apt-get|git)\b", steps)
    assert "--require-hashes --only-binary=:all:" in steps


def test_what_is_copied_is_there_and_not_ignored() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = {
        source
        for rest in said("COPY")
        if not rest.startswith("--from")
        for source in rest.split()[:-1]
    }

    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.slow
def test_its_steps_make_a_service_that_is_well(tmp_path: Path) -> None:
    """The same commands in an empty folder; only places and the port are other ones."""
    prefix, data = tmp_path / "opt" / "muster", tmp_path / "data"
    source = Path(said("WORKDIR")[0].replace("/opt/muster", str(prefix)))
    source.mkdir(parents=True)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV", "COV", "MUSTER"))
    }
    for name, rest in instructions()[: _second_stage()]:
        if name == "COPY":
            *files, target = rest.split()
            for file in files:
                name = Path(file).name if target.endswith("/") else ""
                _copy(ROOT / file, source / target / name)
        elif name == "RUN":
            _run(rest.replace("/opt/muster", str(prefix)), source, environment)

    command = [str(prefix / "bin" / "muster"), *_entrypoint(data)[1:]]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
    running = Running(process)
    try:
        port = running.until(r"listens on http://\S+:(\d+)")[1]
        check = re.findall(r'"([^"]*)"', said("HEALTHCHECK")[0])[1:]
        python = [str(prefix / "bin" / "python"), check[0], check[1].replace("8787", port)]
        assert subprocess.run(python, env=environment, timeout=20, check=False).returncode == 0
        for path in ("/app/muster/index.js", "/app/", "/app/sw.js"):
            file = python[2].replace("/v1/health", path)
            done = subprocess.run([*python[:2], file], env=environment, check=False)
            assert done.returncode == 0, path
        refused = [*python[:2], python[2].replace(port, "1")]
        done = subprocess.run(refused, env=environment, capture_output=True, check=False)
        assert done.returncode != 0
        mine = environment | {"MUSTER_HOME": str(tmp_path / "home")}
        base, folder = f"http://127.0.0.1:{port}", command[command.index("--data") + 1]
        words = [command[0], "circle", "new", "--felund", base, "--json"]
        made = json.loads(subprocess.run(words, env=mine, capture_output=True, check=True).stdout)
        words = [command[0], "access", "allow", made["circle_hint"], "--data", folder]
        subprocess.run(words, env=mine, capture_output=True, check=True)
        doctor = [command[0], "doctor", base, "--circle", made["circle"]]
        done = subprocess.run(doctor, env=mine, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        code = running.end(signal.SIGTERM)
    assert code == 0
    assert not list(prefix.rglob("pip/__init__.py"))


def _second_stage() -> int:
    stages = [number for number, (name, _) in enumerate(instructions()) if name == "FROM"]
    return stages[1]


def _entrypoint(data: Path) -> list[str]:
    words = re.findall(r'"([^"]*)"', said("ENTRYPOINT")[0])
    places = {"/data": str(data), "8787": "0", "0.0.0.0": "127.0.0.1"}  # noqa: S104 - replaced
    return [places.get(word, word) for word in words]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)


def _run(step: str, where: Path, environment: dict[str, str]) -> None:
    for command in step.split("&&"):
        words = shlex.split(command)
        if words[:3] == ["python", "-m", "venv"]:
            venv.create(words[3], with_pip=True)
            continue
        done = subprocess.run(
            words, cwd=where, env=environment, capture_output=True, text=True, check=False
        )
        if "No matching distribution" in done.stderr or "Could not fetch" in done.stderr:
            pytest.skip("needs a package registry: what the image is to have could not be fetched")
        assert done.returncode == 0, (command, done.stdout, done.stderr)
