"""Which Python packs, and for which: any from 3.11 on packs for one that Lambda keeps."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from infra import archive, packing
from infra.packing import Package, Python
from muster.cli.output import Failure
from tests.support.gateway import rest_event

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


def a_python(path: Path, version: str) -> str:
    """Write an interpreter that says it is of a version."""
    path.write_text(f"#!/bin/sh\necho '[\"{version}\", true]'\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("version", ["3.11", "3.14", "3.15"])
def test_without_a_python_that_lambda_keeps_this_one_packs_for_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: str
) -> None:
    here = a_python(tmp_path / "python", version)

    found = packing.find_python(here=here, known=lambda version: ())

    assert (found.path, found.runtime, found.compiles) == (here, "python3.13", False)
    assert (
        f"Python {version} packs for Lambda's 3.13, but does not compile" in capsys.readouterr().err
    )


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_a_python_that_lambda_keeps_packs_for_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: str
) -> None:
    here = a_python(tmp_path / "python", version)

    found = packing.find_python(here=here, known=lambda version: ())

    assert (found.runtime, found.compiles) == (f"python{version}", True)
    assert capsys.readouterr().err == ""


def test_one_that_lambda_keeps_is_looked_for_beside_this_one(tmp_path: Path) -> None:
    here, better = (a_python(tmp_path / f"python{one}", one) for one in ("3.11", "3.12"))

    found = packing.find_python(
        here=here, known=lambda version: [better] if version == "3.12" else []
    )

    assert found == Python(better, "3.12", ready=True, target="3.12")


def test_what_is_named_runs_on_lambda_in_its_own_version_if_lambda_has_it(tmp_path: Path) -> None:
    versions = {"3.11": "3.11", "3.12": "3.12", "3.14": "3.13"}
    named = {one: a_python(tmp_path / f"python{one}", one) for one in versions}

    assert {one: packing.find_python(path).target for one, path in named.items()} == versions


def test_one_that_is_too_old_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"does not run on Python 3\.10; it needs 3.11"):
        packing.find_python(a_python(tmp_path / "python", "3.10"))


OTHER = "3.12" if VERSION == "3.13" else "3.13"
TRY = """
import sys
sys.path.insert(0, sys.argv[1])
import json, app
import capsules, cryptography, msgspec, nacl.signing
answer = app.app(json.loads(sys.argv[2]), None)
print(json.dumps([answer["statusCode"], list(sys.version_info[:2])]))
"""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """What this Python packs for another one."""
    python = Python(sys.executable, VERSION, ready=True, target=OTHER)
    try:
        return packing.pack(tmp_path_factory.mktemp("foreign"), python, architecture=archive.here())
    except Failure as failure:
        if "registry" in str(failure):
            pytest.skip(f"needs a package registry: {failure}")
        raise


def test_what_is_packed_for_another_python_runs_on_it(foreign: Package, tmp_path: Path) -> None:
    beside = packing.candidates(OTHER)
    python = next((one for one in beside if packing.version_of(one) == OTHER), None)
    if python is None:
        pytest.skip(f"needs python{OTHER}")
    with zipfile.ZipFile(foreign.archive) as opened:
        opened.extractall(tmp_path / "task")
    event = json.dumps(rest_event("OPTIONS", "/v1/health"))
    done = subprocess.run(
        [python, "-I", "-S", "-B", "-c", TRY, tmp_path / "task", event],
        env={"MUSTER_STORE": f"sqlite:{tmp_path / 'muster.db'}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [204, list(map(int, OTHER.split(".")))]


def test_what_is_packed_for_another_python_brings_its_wheels_and_no_bytecode(
    foreign: Package,
) -> None:
    tag = f"cpython-{OTHER.replace('.', '')}"
    with zipfile.ZipFile(foreign.archive) as opened:
        names = opened.namelist()
    libraries = [name for name in names if name.endswith(".so") and "cpython" in name]

    assert libraries
    assert all(tag in name for name in libraries)
    assert not [name for name in names if name.endswith(".pyc")]
    assert {
        function["Properties"]["Runtime"]
        for function in foreign.template["Resources"].values()
        if function["Type"] == "AWS::Serverless::Function" and "Runtime" in function["Properties"]
    } >= {f"python{OTHER}"}
