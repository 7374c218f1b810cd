"""`muster plan`, `deploy` and `destroy` from end to end, against an emulated account.

What answers calls there is the AWS host behind the emulated gateway, on the tables that
the deployment made.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capsules import CERTIFIED_DAYS
from chalicelib.community import key_files, keyring
from infra import cloud_keys, parameters
from infra.cloud import Names, connect
from tests.support import aws, gateway, roles, serving
from tests.support.account import ACCOUNT, REGION, Account

NAMES = Names("dev", ACCOUNT, REGION)
ITEM_ACTIONS = (
    "BatchGetItem",
    "BatchWriteItem",
    "DeleteItem",
    "GetItem",
    "PutItem",
    "Query",
    "Scan",
    "UpdateItem",
)
PYTHON = ("--python", sys.executable)


def muster(home: Path, *words: str, expect: int = 0, says: str = "") -> str:
    """Run the command as a user does; return what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "muster.cli", *words],
        env=os.environ | {"MUSTER_HOME": str(home), "COLUMNS": "200", "PYTHONUTF8": "1"},
        input=says,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    if "registry" in done.stderr:
        pytest.skip(f"needs a package registry: {done.stderr}")
    if done.returncode != expect:
        pytest.fail(f"{words} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


@pytest.fixture
def served(emulated: Account) -> Iterator[Account]:
    """The account, with the AWS host at what will be its base URL."""
    with contextlib.ExitStack() as opened:
        made, variables = opened.enter_context(gateway.running())
        tables = dict(zip(("PRESENCE", "MAIL", "GUARD"), NAMES.tables, strict=True))
        named = {f"MUSTER_TABLE_{key}": name for key, name in tables.items()}
        mine = {"AWS_ENDPOINT_URL_DYNAMODB": emulated.url} | dict.fromkeys(
            ("AWS_REGION", "AWS_DEFAULT_REGION"), REGION
        )
        opened.enter_context(aws.environ(variables | named | mine))
        made.start()
        emulated.base_url = opened.enter_context(serving.serving(made))
        os.environ["MUSTER_WEBSOCKET_URL"] = (
            f"ws{emulated.base_url.removeprefix('http')}/v1/relay/ws"
        )
        yield emulated


def secret(emulated: Account, name: str) -> Any:
    return emulated.client("ssm").get_parameter(Name=name, WithDecryption=True)["Parameter"]


def test_what_cloudfront_shows_the_service_is_made_with_the_edge_and_kept(
    emulated: Account, tmp_path: Path
) -> None:
    cloud, root = connect("dev"), tmp_path / "root.key"
    assert cloud_keys.find(cloud, root).edge == ""

    made = cloud_keys.find(cloud, root, edge=True)
    cloud_keys.keep(cloud, made)

    assert "a secret for CloudFront, kept in Systems Manager" in made.fresh
    assert secret(emulated, NAMES.edge)["Value"] == made.edge
    for edge in (True, False):
        again = cloud_keys.find(cloud, root, edge=edge)
        assert (again.edge, again.new_edge) == (made.edge, False)


def test_a_deployment_reaches_only_what_its_role_allows(served: Account, tmp_path: Path) -> None:
    home = tmp_path / "home"
    planned = muster(home, "plan", *PYTHON)

    assert "APIHandler" in planned
    assert "publishing keys, kept in Systems Manager" in planned
    assert "a secret for CloudFront" not in planned, "there is none"
    assert "a month" in planned
    assert served.changed == [], "a plan touches nothing"
    assert not home.exists()

    first = muster(home, "deploy", "--yes", *PYTHON)

    assert "made the root key" in first
    assert "PresenceTable" in first
    assert "create complete" in first
    assert "two nodes register" in first, "the doctor was there"
    assert served.base_url in first
    assert "ServiceKey" in first
    root = home / "root-dev.key"
    assert root.stat().st_mode & 0o077 == 0
    keys = secret(served, NAMES.keys)
    assert (keys["Type"], keys["Version"]) == ("SecureString", 1)
    published = keyring.parse(keys["Value"].encode())
    assert keyring.root_key(published).to_base64() in first

    named, role = dict(zip(NAMES.tables, roles.TABLES, strict=True)), roles.Role("ServiceRole")
    items = [
        found._replace(table=named[found.table])
        for found in served.touched
        if found.action in ITEM_ACTIONS
        and not (
            found.action == "PutItem" and found.keys == {"access"}
        )  # who deploys lets the doctor in
    ]
    denied = [found for found in items if not role.allows(found)]
    assert denied == [], "the role allows what the doctor made the service do"
    assert {found.table for found in items} == set(roles.TABLES)

    functions = served.client("lambda")
    made = functions.get_function_configuration(FunctionName="muster-dev-service")
    variables = made["Environment"]["Variables"]
    assert made["Handler"] == "app.serve"
    assert variables["MUSTER_TABLE_MAIL"] == NAMES.tables[1]
    assert variables["MUSTER_ACCESS"] == "closed"
    assert variables["MUSTER_EDGE_SECRET"] == "", "there is no CloudFront that shows it"
    assert variables["MUSTER_GREET_FUNCTION"] == "muster-dev-service"

    told = json.loads(
        muster(home, "plan", "--json", *PYTHON, "--param", "TableReadUnits=77").splitlines()[0]
    )
    assert told["new"] is False
    usual = parameters.declared()["TableReadUnits"]["Default"]
    assert told["parameters"]["TableReadUnits"] == [str(usual), "77"]
    assert {"GuardTable", "MailTable", "PresenceTable"} <= {c["name"] for c in told["changes"]}
    assert told["makes"] == []

    rotated = json.loads(muster(home, "rotate", "--revoke", "--json"))
    now = keyring.parse(secret(served, NAMES.keys)["Value"].encode())
    assert keyring.certificate(now).verify_key.key_id == rotated["key_id"]
    assert keyring.revoked(now) == (keyring.certificate(published).verify_key.to_base64(),)


def test_a_worst_month_can_be_chosen(emulated: Account, tmp_path: Path) -> None:
    shown = muster(tmp_path, "plan", "--json", *PYTHON, "--max-usd", "200").splitlines()[0]

    assert json.loads(shown)["price"]["worst_usd"] <= 200


def test_keys_of_a_root_made_before_are_certified_by_it(emulated: Account, tmp_path: Path) -> None:
    root = tmp_path / "my-root.key"
    muster(tmp_path, "keygen", "root", "--out", str(root))

    muster(tmp_path, "deploy", "--yes", "--no-doctor", *PYTHON, "--root", str(root))

    kept = keyring.parse(secret(emulated, NAMES.keys)["Value"].encode())
    assert keyring.root_key(kept) == key_files.read_root(root).verify_key
    assert not (tmp_path / "root-dev.key").exists()


def test_keys_that_a_deployment_makes_last_as_long_as_all_others(
    emulated: Account, tmp_path: Path
) -> None:
    made = cloud_keys.find(connect("dev"), tmp_path / "root.key").new_keys
    assert made is not None
    found = keyring.certificate(made)

    assert found.expires_at - found.not_before == CERTIFIED_DAYS * keyring.DAY_S
