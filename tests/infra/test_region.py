"""Which region is meant, and who says so: each way by itself, as people use them."""

import re
from pathlib import Path

import pytest

from infra.cloud import connect
from muster.cli.output import Misuse
from tests.support.account import REGION, Account

WAYS = ("AWS_REGION", "AWS_DEFAULT_REGION")


@pytest.fixture(autouse=True)
def nowhere(emulated: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No region is set, and no profile is there."""
    for name in WAYS:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


@pytest.mark.parametrize("name", WAYS)
def test_either_variable_alone_says_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, REGION)

    cloud = connect("dev")

    assert cloud.region == REGION
    assert cloud.client("cloudformation").meta.region_name == REGION
    assert f"{REGION} (as {name} says)" in cloud.told


def test_the_variable_that_all_other_tools_read_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_REGION", REGION)

    assert connect("dev").region == REGION


def test_what_is_named_goes_before_every_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")

    cloud = connect("dev", region=REGION)

    assert (cloud.region, cloud.region_from) == (REGION, "--region")


def test_a_profile_says_it_where_nothing_else_does(tmp_path: Path) -> None:
    keys = "aws_access_key_id = testing\naws_secret_access_key = testing\n"
    (tmp_path / "aws_config_file").write_text(f"[profile friends]\nregion = {REGION}\n{keys}")

    cloud = connect("dev", profile="friends")

    assert (cloud.region, cloud.region_from) == (REGION, "the profile friends")


def test_nobody_says_it() -> None:
    with pytest.raises(Misuse, match="no region is chosen; name one with --region or AWS_REGION"):
        connect("dev")


@pytest.mark.parametrize("region", ["cn-north-1", "us-gov-west-1"])
def test_a_partition_of_its_own_is_refused_before_anybody_is_asked(
    emulated: Account, region: str
) -> None:
    with pytest.raises(Misuse, match=re.escape(f"{region} is a partition of AWS of its own")):
        connect("dev", region=region)
    assert not emulated.asked
