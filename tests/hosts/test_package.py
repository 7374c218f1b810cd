"""Is everything in the package that Lambda is given? `chalice package` does not say."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from chalicelib.routes import PATHS
from infra.package import build
from muster.cli.output import Failure
from tests.support.gateway import rest_event

ZIP_BYTES = 8_000_000

TRY = """
import sys
sys.path.insert(0, sys.argv[1])
import json, app
import capsules, cryptography, msgspec, muster.felund.frames, nacl.signing
answer = app.app(json.loads(sys.argv[2]), None)
print(json.dumps([answer["statusCode"], app.__file__]))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack the AWS side as `make package` does."""
    made = tmp_path_factory.mktemp("package")
    try:
        build(made)
    except Failure as failure:
        if "registry" not in str(failure):
            raise
        pytest.skip("needs a package registry: what Lambda is to have could not be fetched")
    return made


@pytest.fixture(scope="module")
def template(package: Path) -> Any:
    return json.loads((package / "sam.json").read_text())


@pytest.mark.timeout(180)
def test_the_package_runs_by_itself_and_is_small(package: Path, tmp_path: Path) -> None:
    archive = package / "deployment.zip"
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path)

    event = json.dumps(rest_event("OPTIONS", "/v1/health"))
    environment = {"MUSTER_STORE": f"sqlite:{tmp_path / 'muster.db'}"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", TRY, str(tmp_path), event],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [204, str(tmp_path / "app.py")]
    assert archive.stat().st_size <= ZIP_BYTES
    assert not (tmp_path / "botocore").exists(), "Lambda has it"


ADVISE = """
import sys
sys.path.insert(0, sys.argv[1])
import json, app
before = sorted(name for name in sys.modules if "assist" in name)
answer = app.app(json.loads(sys.argv[2]), None)
pq = json.loads(answer["body"])["pq"]
print(json.dumps([answer["statusCode"], len(pq["kem_public_hex"]), before, "ssl" in sys.modules]))
"""


@pytest.mark.timeout(180)
def test_assist_runs_in_the_package_and_is_loaded_when_it_is_called(
    package: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(package / "deployment.zip") as opened:
        opened.extractall(tmp_path)
        assert not [name for name in opened.namelist() if "raptorq" in name]

    event = json.dumps(rest_event("GET", "/api/p2p/assist"))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ADVISE, str(tmp_path), event],
        env={
            "MUSTER_STORE": f"sqlite:{tmp_path / 'muster.db'}",
            "MUSTER_ASSIST_OPEN": "allow",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    status, digits, before, ssl = json.loads(done.stdout)
    assert (status, digits) == (200, 2 * 1184)
    assert before == [], "no other call pays for it"
    assert not ssl, "where nothing is probed, no sockets are"


def test_the_template_has_every_path_and_function(template: Any) -> None:
    resources = template["Resources"]
    handlers = {
        resource["Properties"]["Handler"]
        for resource in resources.values()
        if resource["Type"] == "AWS::Serverless::Function"
    }
    api = resources["RestAPI"]["Properties"]["DefinitionBody"]

    assert {"app.app", "app.on_connect", "app.on_message", "app.on_disconnect"} <= handlers
    assert {"app.greet", "app.sweep", "app.publish"} <= handlers
    assert set(api["paths"]) == set(PATHS)
