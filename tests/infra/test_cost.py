"""The cost model: by hand, against DynamoDB's own counting, and against what the limits allow."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from chalicelib.settings import Settings
from infra import bill, ceilings, cost
from infra.bill import Estimate
from infra.ceilings import Ceilings
from muster.cli.output import Misuse
from tools.bench import units

PRICES = bill.PRICES["regions"]["us-east-1"]
HOURS = 730


def usd(estimate: Estimate, what: str) -> float:
    """Return the list price of one line."""
    return sum(row.usd for row in estimate.rows if row.what == what)


@pytest.fixture(scope="module")
def counted() -> dict[str, Any]:
    """What the service really asks of DynamoDB, call by call, as the bench counts it."""
    return {row["call"]: row["warm"] for row in units.store_units()["calls"]}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "name", [name for name, call in cost.CALLS.items() if call.bench] + ["socket"]
)
def test_the_units_of_a_call_are_what_dynamodb_counts(name: str, counted: dict[str, Any]) -> None:
    told = cost.SOCKET if name == "socket" else cost.CALLS[name]

    assert told.write == pytest.approx(counted[told.bench]["write_units"], abs=1)
    assert told.read == pytest.approx(counted[told.bench]["read_units"], abs=1 + told.read / 10)


# --- by hand ----------------------------------------------------------------------------


def test_five_polling_nodes_cost_what_the_guide_s_rates_multiply_to() -> None:
    """Peers and mail every 8 s and a registration a minute: 960 calls an hour and node."""
    calls = 5 * HOURS * (3600 / 8 + 3600 / 8 + 60)
    posts = 5 * 20 * 365 / 12
    found = cost.estimate(nodes=5, hours=24, design="polling")

    assert calls == 3_504_000
    assert usd(found, "HTTP calls") == pytest.approx((calls + posts) * 3.50 / 1e6)  # $12.27
    writes = 5 * HOURS * (450 * 1 + 450 * 1 + 60 * 2) + 3 * posts  # nonces, and presence
    assert usd(found, "store, written") == pytest.approx(writes * 0.625 / 1e6)
    assert found.total_usd == pytest.approx(15.78, abs=0.01)


def test_five_nodes_on_quiet_sockets_cost_cents() -> None:
    """A registration and a PING every nine minutes, a look every hour, a socket held open."""
    found = cost.estimate(nodes=5, hours=24, client="quiet")
    minutes = 5 * HOURS * 60
    calls = 5 * HOURS * (3600 / 540 + 3 * 1 + 0.5) + 5 * 20 * 365 / 12

    assert usd(found, "sockets held open") == pytest.approx(minutes * 0.25 / 1e6)  # $0.055
    assert usd(found, "HTTP calls") == pytest.approx(calls * 3.50 / 1e6)  # $0.14
    assert found.total_usd == pytest.approx(0.34, abs=0.01)


def test_a_community_s_capsule_costs_what_its_files_and_places_do() -> None:
    """Three files put and read every two minutes, a lease, an outcome and 200 places."""
    use = bill.Use()
    capsules = HOURS * 30
    cost.publish(use, capsules)
    found = bill.bill(use, free=False)

    assert usd(found, "files written") == pytest.approx(capsules * 3 * 5 / 1e6)  # $0.33
    assert usd(found, "files read") == pytest.approx(capsules * 3 * 0.4 / 1e6)  # $0.03
    assert found.list_usd == pytest.approx(0.54, abs=0.01)


def test_looking_for_what_is_due_costs_a_cent_a_month() -> None:
    use = cost.idle()

    assert use.lambda_request == pytest.approx(2 * 60 * HOURS)
    assert use.read_unit == pytest.approx(2 * 60 * HOURS)
    assert use.write_unit == 0
    assert bill.bill(use).total_usd < 0.02


def test_pushes_go_to_everybody_else_and_pings_both_ways() -> None:
    none = cost.estimate(nodes=5, client="quiet", messages=0)
    some = cost.estimate(nodes=5, client="quiet", messages=24)
    pings = 2 * 5 * HOURS * 3600 / 540 + 2 * 5 * HOURS * 0.5

    assert usd(none, "socket messages") == pytest.approx(pings / 1e6)
    pushed = usd(some, "socket messages") - usd(none, "socket messages")
    assert pushed == pytest.approx(5 * 24 * 365 / 12 * 4 / 1e6)


def test_push_is_cheaper_than_every_way_of_polling() -> None:
    push = cost.estimate(design="push").total_usd

    assert all(push < cost.estimate(client=name).total_usd / 4 for name in ("spec", "tui", "web"))


def test_our_client_is_priced_by_its_own_constants() -> None:
    from muster.felund.sockets import QUIET_PING_S
    from muster.felund.subscription import CHECK_S

    push = cost.clients()["push"]

    assert push.events == 3600 / QUIET_PING_S
    assert push.calls["poll"] == 3600 / CHECK_S


@pytest.mark.parametrize("factor", [2, 10])
def test_a_bill_grows_with_its_nodes_and_hours(factor: int) -> None:
    """All but what the clock does, which costs the same for everybody."""
    clock = bill.bill(cost.idle()).list_usd
    one = cost.estimate(nodes=1, client="web", messages=0).list_usd - clock
    many = cost.estimate(nodes=factor, client="web", messages=0).list_usd - clock
    shorter = cost.estimate(nodes=factor, hours=24 / factor, client="web", messages=0).list_usd

    assert many == pytest.approx(factor * one)
    assert shorter - clock == pytest.approx(one)


def test_a_service_that_nobody_uses_costs_next_to_nothing() -> None:
    found = bill.bill(cost.idle())

    assert found.total_usd < 0.05
    assert found.list_usd < 1.05  # nine alarms at ten cents, which every account has for nothing


def test_nothing_is_free_twice() -> None:
    found = cost.estimate(nodes=2_000, client="web")
    free = {row.what: row for row in found.free}

    assert free["function runs"].quantity == 1_000_000
    assert found.total_usd == pytest.approx(
        sum(row.usd for row in found.rows) + sum(row.usd for row in found.free)
    )


def test_every_price_is_dated_sourced_and_used() -> None:
    for region in bill.PRICES["regions"].values():
        assert set(region) == set(PRICES)
    names = {name.removesuffix("_arm64").removesuffix("_x86_64") for name in PRICES}

    assert names - {"backup_gb_month"} == set(bill.WHAT)
    assert bill.PRICES["as_of"]
    assert all(url.startswith("https://aws.amazon.com/") for url in bill.PRICES["sources"].values())
    assert "check" in bill.PRICES["note"]


def test_programs_get_the_same_sum() -> None:
    found = cost.estimate().to_json()
    again = json.loads(json.dumps(found))

    rows = [row["usd"] for row in again["rows"] + again["free"]]
    assert again["total_usd"] == pytest.approx(sum(rows), abs=0.001)


def test_the_operator_s_page_says_what_the_model_says() -> None:
    text = (Path(__file__).parents[2] / "docs" / "aws.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)`: .*\| \$([\d.]+) \|$", text, re.MULTILINE))

    assert told == {name: f"{cost.estimate(client=name).total_usd:.2f}" for name in cost.clients()}
    assert f"less than ${LEAST}" in " ".join(text.split())


# --- the worst month -------------------------------------------------------------------


LEAST = 62


@pytest.mark.parametrize("usd", [LEAST, 65, 75, 100, 150, 333, 500, 1_000, 2_500, 10_000, 100_000])
@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_the_worst_month_stays_below_what_was_asked(usd: int, region: str) -> None:
    if region != "us-east-1":
        usd += 10  # everything is dearer there
    limits = ceilings.below(usd, region=region)

    assert limits.worst(region=region).total_usd <= usd
    assert min(limits.rest_rate, limits.socket_rate, limits.concurrency, limits.pushes_per_s) >= 1


def test_more_money_allows_more() -> None:
    found = [ceilings.below(usd) for usd in (65, 200, 1_000, 5_000, 50_000)]

    assert [limits.rest_rate for limits in found] == sorted(limits.rest_rate for limits in found)
    assert found[-1].rest_rate > 100 * found[0].rest_rate
    assert found[2].worst().total_usd > 800


@pytest.mark.parametrize("usd", [0.5, 10, LEAST - 1])
def test_what_no_limits_can_hold_is_refused_with_the_least(usd: float) -> None:
    with pytest.raises(Misuse, match=rf"the lowest ones allow \${LEAST}"):
        ceilings.below(usd)


def test_the_worst_month_counts_every_limit() -> None:
    low = Ceilings(1, 1, 1, 256, 1, 1, 1)
    for name in ceilings.PARAMETERS:
        twice = {field: getattr(low, field) for field in ceilings.PARAMETERS} | {
            name: 2 * getattr(low, name)
        }
        assert Ceilings(**twice).worst().total_usd > low.worst().total_usd + 1, name


def test_the_worst_month_by_hand() -> None:
    seconds = 365 / 12 * 86_400
    rows = {row.what: row.usd for row in Ceilings(10, 20, 3, 512, 30, 40, 5).worst().rows}

    assert rows["HTTP calls"] == pytest.approx(10 * seconds * 3.50 / 1e6)
    assert rows["sockets held open"] == pytest.approx(20 * 10 * seconds * 0.25 / 1e6)
    assert rows["socket messages"] == pytest.approx((20 + 3 * 5) * seconds / 1e6)
    assert rows["function time"] == pytest.approx(3 * seconds / 2 * 0.0000133334, rel=0.001)
    assert rows["store, written"] == pytest.approx(3 * 40 * seconds * 0.625 / 1e6, rel=0.001)
    # strangers' communities: ten capsules a minute, three files each
    assert rows["files written"] == pytest.approx(10 * 3 * seconds / 60 * 5 / 1e6)


def test_limits_are_the_template_s_parameters_and_back() -> None:
    limits = ceilings.below(500)
    declared = json.loads((Path(cost.__file__).parent / "resources.json").read_text())["Parameters"]

    assert set(limits.parameters()) <= set(declared)
    assert Ceilings.from_parameters(limits.parameters() | limits.settings()) == limits
    for name, value in limits.parameters().items():
        assert declared[name]["MinValue"] <= int(value) <= declared[name]["MaxValue"], name


def test_the_limits_of_a_deployment_as_it_comes_are_the_template_s() -> None:
    declared = json.loads((Path(cost.__file__).parent / "resources.json").read_text())["Parameters"]
    defaults = {name: str(told.get("Default", "")) for name, told in declared.items()}

    assert Ceilings.from_parameters(defaults) == Ceilings()
    assert Ceilings().pushes_per_s == Settings().pushes_per_s
