"""The cost model: by hand, against DynamoDB's own counting, and against what the limits allow.

What strangers can cause is held against a flood of them in test_flood.py.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from chalicelib.app_files import WEB, AppFiles
from chalicelib.library import Library
from chalicelib.settings import Settings
from infra import bill, ceilings, cost, price, stack, standing
from infra.bill import Estimate
from infra.ceilings import Ceilings, Terms
from infra.stack import Template
from infra.standing import Standing
from muster.cli.output import Failure, Misuse
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
    assert usd(found, "HTTP calls") == pytest.approx((calls + posts) * 1.00 / 1e6)  # $3.51
    writes = 5 * HOURS * (450 * 1 + 450 * 1 + 60 * 2) + 3 * posts  # nonces, and presence
    assert usd(found, "store, written") == pytest.approx(writes * 0.625 / 1e6)
    assert found.total_usd == pytest.approx(6.99, abs=0.01)


def test_five_nodes_on_quiet_sockets_cost_cents() -> None:
    """A registration and a PING every nine minutes, a look every hour, a socket held open."""
    found = cost.estimate(nodes=5, hours=24, client="quiet")
    minutes = 5 * HOURS * 60
    calls = 5 * HOURS * (3600 / 540 + 3 * 1 + 0.5) + 5 * 20 * 365 / 12

    assert usd(found, "sockets held open") == pytest.approx(minutes * 0.25 / 1e6)  # $0.055
    assert usd(found, "HTTP calls") == pytest.approx(calls * 1.00 / 1e6)  # $0.04
    assert found.total_usd == pytest.approx(0.23, abs=0.01)


def test_five_nodes_on_sockets_by_our_own_client_cost_at_most_35_cents() -> None:
    assert cost.estimate(nodes=5, hours=24, client="push").total_usd <= 0.35


def test_a_community_s_capsule_costs_what_its_files_and_places_do() -> None:
    """Three files put and read every two minutes, a lease, an outcome and 200 places."""
    use = bill.Use()
    capsules = HOURS * 30
    cost.publish(use, capsules)
    found = bill.bill(use, free=False)

    assert usd(found, "files written") == pytest.approx(capsules * 3 * 5 / 1e6)  # $0.33
    assert usd(found, "files read") == pytest.approx(capsules * 3 * 0.4 / 1e6)  # $0.03
    assert found.list_usd == pytest.approx(0.54, abs=0.01)


def test_a_clock_that_is_awake_all_month_costs_a_cent() -> None:
    use = bill.Use()
    cost.wake(use, sweep_hours=HOURS)

    assert use.lambda_request == use.read_unit == 60 * HOURS
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


def test_five_nodes_on_sockets_of_version_2_cost_at_most_15_cents() -> None:
    found = cost.estimate(nodes=5, client="sync")

    assert found.total_usd <= 0.15
    assert "HTTP calls" not in {row.what for row in found.rows if row.usd}


def test_a_circle_that_loads_the_app_every_day_costs_less_than_a_cent_for_it() -> None:
    """Five browsers that keep nothing: twelve calls and 150 KB each, every day of a month."""
    loads = 5 * 365 / 12
    use = bill.Use()
    cost.load(use, loads)
    found = bill.bill(use, free=False)
    every_day = cost.estimate(nodes=5, client="app").list_usd
    without = cost.estimate(nodes=5, client="sync").list_usd

    assert usd(found, "HTTP calls") == pytest.approx(loads * 12 * 1.00 / 1e6)  # $0.0018
    assert usd(found, "data out") == pytest.approx(loads * (150_000 + 12 * 1_000) * 0.09 / 1e9)
    assert not {"store, read", "store, written"} & {row.what for row in found.rows}
    assert every_day - without == pytest.approx(found.list_usd)
    assert found.list_usd < 0.01


def test_the_packed_app_takes_no_more_than_is_priced() -> None:
    """Of this checkout: all that a browser loads and its worker keeps, gzipped."""
    packed = AppFiles(WEB / "app", Library(WEB / "muster"), packed=True).files
    first = {path: file for path, file in packed.items() if not path.endswith("LICENSES")}

    assert "/app/" in first, "make app"
    assert len(first) <= cost.LOAD_CALLS - 3, "the worker asks again for three that are not new"
    assert sum(len(file.zipped) for file in first.values()) <= cost.LOAD_BYTES


def test_a_container_has_enough_for_a_circle_and_the_docs_say_for_how_many() -> None:
    text = " ".join((Path(__file__).parents[2] / "docs" / "aws.md").read_text().split())

    assert ceilings.VISITS_AT_ONCE >= 5
    assert f"the whole app to {ceilings.VISITS_AT_ONCE} browsers at once" in text
    assert f"{ceilings.VISITS_A_MONTH // 1000 * 1000:,} in a month" in text


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


def test_a_service_that_nobody_uses_costs_at_most_five_cents() -> None:
    """Nothing runs; ten alarm metrics and ten own ones are free in every account."""
    use, found = cost.idle(), cost.nobody()

    assert use.lambda_request == use.write_unit == use.read_unit == use.log_gb == 0
    assert found.total_usd <= 0.05
    assert {row.what for row in found.rows} == {
        *("alarms", "own metrics", "files kept", "store, kept", "store, restorable"),
    }


# --- what stands -----------------------------------------------------------------------


def test_the_bill_knows_every_resource_of_the_template(template: Template) -> None:
    """Each is free, or what it is charged by is on the bill; as AWS sees it, after SAM."""
    known = bill.PRICES["resources"]
    there = {
        resource["Type"]
        for resource in stack.transform(template, region="us-east-1")["Resources"].values()
    }

    assert there <= set(known)
    assert {name for kind in there for name in known[kind]} == set(bill.WHAT)


def test_what_stands_is_counted_in_the_template_that_is_deployed(template: Template) -> None:
    for chosen in ({}, {"Dashboard": "yes", "AlarmEmail": "me@example.org"}):
        assert Standing.of(template, chosen) == standing.chosen(chosen)
    assert standing.as_it_comes().alarms <= bill.PRICES["always_free"]["alarm_month"]
    assert standing.as_it_comes().dashboards == 0
    assert standing.chosen({"Dashboard": "yes"}).dashboards == 1


def test_alarms_are_counted_by_their_metrics_and_own_metrics_by_their_names() -> None:
    def stat(namespace: str, name: str) -> dict[str, Any]:
        metric = {"Namespace": namespace, "MetricName": name}
        return {"MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}

    both = [stat("AWS/Lambda", "Errors"), stat("Muster", "Own"), {"Expression": "m1 + m2"}]
    resources = {
        "One": {"Namespace": "Muster", "MetricName": "Own"},
        "Two": {"Metrics": both},
    }
    made = {
        "Parameters": {"Wanted": {"Default": "no"}, "Other": {"Default": 0}},
        "Conditions": {
            "On": {"Fn::Equals": [{"Ref": "Wanted"}, "yes"]},
            "Off": {"Fn::And": [{"Fn::Not": [{"Condition": "On"}]}, {"Condition": "None"}]},
            "None": {"Fn::Or": [{"Condition": "On"}, {"Fn::Equals": [{"Ref": "Other"}, "0"]}]},
        },
        "Resources": {
            **{
                name: {"Type": "AWS::CloudWatch::Alarm", "Properties": told}
                for name, told in resources.items()
            },
            "Extra": {
                "Type": "AWS::CloudWatch::Alarm",
                "Condition": "On",
                "Properties": {"Namespace": "AWS/Lambda", "MetricName": "Throttles"},
            },
            "Board": {"Type": "AWS::CloudWatch::Dashboard", "Condition": "Off", "Properties": {}},
        },
    }

    assert Standing.of(made, {}) == Standing(alarms=3, metrics=1, dashboards=1)
    assert Standing.of(made, {"Wanted": "yes"}) == Standing(alarms=4, metrics=1)


def test_a_function_that_does_not_keep_the_platform_quiet_is_charged_for_its_lines() -> None:
    function = {"Properties": {"Environment": {}, "LoggingConfig": {"SystemLogLevel": "WARN"}}}
    loud: Template = {"Properties": {"Environment": {}}}

    assert Standing.of({"Resources": {"One": function}}, {}).platform_bytes == 0
    assert Standing.of({"Resources": {"One": function, "Two": loud}}, {}).platform_bytes > 400


def test_more_than_is_free_of_what_stands_is_on_the_bill() -> None:
    """Thirteen alarm metrics for ten, four dashboards for three, eleven own metrics for ten."""
    found = cost.nobody(standing=Standing(alarms=13, metrics=11, dashboards=4))

    assert found.total_usd - cost.nobody().total_usd == pytest.approx(3 * 0.1 + 0.3 + 3)


def test_nothing_is_free_twice() -> None:
    found = cost.estimate(nodes=2_000, client="web")
    free = {row.what: row for row in found.free}

    assert free["function runs"].quantity == 1_000_000
    assert found.total_usd == pytest.approx(
        sum(row.usd for row in found.rows) + sum(row.usd for row in found.free)
    )


def test_every_price_is_dated_sourced_and_used() -> None:
    prices = bill.PRICES
    for region in prices["regions"].values():
        assert set(region) == set(PRICES) == set(prices["said"])
    names = {name.removesuffix("_arm64").removesuffix("_x86_64") for name in PRICES}

    assert names == set(bill.WHAT)
    assert {charge.source for charge in bill.WHAT.values()} == set(prices["sources"])
    assert prices["as_of"]
    assert all(url.startswith("https://aws.amazon.com/") for url in prices["sources"].values())
    assert "check" in prices["note"]
    assert set(prices["same"].values()) <= set(prices["regions"])
    assert set(prices["always_free"]) - {"note"} <= set(bill.WHAT)


def test_a_line_says_what_one_costs_and_who_says_so() -> None:
    rows = cost.estimate().to_json()["rows"]

    for row in rows:
        assert row["usd"] == pytest.approx(row["quantity"] * row["each_usd"], abs=0.001)
        assert row["source"] in bill.PRICES["sources"].values()


@pytest.mark.parametrize("region", ["us-east-2", "us-west-2"])
def test_regions_that_cost_the_same_have_the_same_prices(region: str) -> None:
    assert cost.estimate(region=region) == cost.estimate(region="us-east-1")


def test_a_region_without_known_prices_is_refused_with_those_that_have_some() -> None:
    for ask in (
        lambda: cost.estimate(region="ap-south-1"),
        lambda: price.quote({}, region="ap-south-1"),
        lambda: ceilings.below(500, region="ap-south-1"),
    ):
        with pytest.raises(Misuse, match="no prices of ap-south-1") as refused:
            ask()
        assert "choose one of eu-central-1, eu-west-1, us-east-1" in str(refused.value)


def test_programs_get_the_same_sum() -> None:
    found = cost.estimate().to_json()
    again = json.loads(json.dumps(found))

    rows = [row["usd"] for row in again["rows"] + again["free"]]
    assert again["total_usd"] == pytest.approx(sum(rows), abs=0.001)


def test_the_operator_s_page_says_what_the_model_says() -> None:
    text = (Path(__file__).parents[2] / "docs" / "aws.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)`: .*\| \$([\d.]+) \|$", text, re.MULTILINE))

    assert told == {name: f"{cost.estimate(client=name).total_usd:.2f}" for name in cost.clients()}
    worst = dict(re.findall(r"^\| by (\w+).*\| \$([\d,]+) \|$", text, re.MULTILINE))
    limits = Ceilings()
    assert worst == {
        name: f"{getattr(limits, name if name != 'anybody' else 'open')().total_usd:,.0f}"
        for name in ("strangers", "members", "anybody")
    }
    assert f"less than ${LEAST}" in " ".join(text.split())


# --- the worst month -------------------------------------------------------------------


LEAST = 71


@pytest.mark.parametrize("usd", [LEAST, 75, 80, 100, 150, 333, 500, 1_000, 2_500, 10_000, 100_000])
@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
@pytest.mark.parametrize("edge", ["yes", "no"])
def test_the_worst_month_stays_below_what_was_asked(usd: int, region: str, edge: str) -> None:
    if region != "us-east-1":
        usd += 10  # everything is dearer there
    limits = ceilings.below(usd, region=region)
    values = {
        **limits.parameters(),
        **limits.settings(),
        **{"CloudFront": edge, "Dashboard": "yes"},
        "MUSTER_COMMUNITY_NAMES": "mainnet,other",
    }

    for access in ("open", "closed"):
        values["Access"] = access
        assert price.quote(values, region=region, max_usd=usd).worst_usd <= usd
    assert min(limits.rest_rate, limits.socket_rate, limits.concurrency, limits.pushes_per_s) >= 1


def test_more_money_allows_more() -> None:
    found = [ceilings.below(usd) for usd in (75, 200, 1_000, 5_000, 50_000)]

    assert [limits.rest_rate for limits in found] == sorted(limits.rest_rate for limits in found)
    assert found[-1].rest_rate > 100 * found[0].rest_rate
    assert found[2].members().total_usd > 700


@pytest.mark.parametrize("usd", [0.5, 10, LEAST - 1])
def test_what_no_limits_can_hold_is_refused_with_the_least(usd: float) -> None:
    with pytest.raises(Misuse, match=rf"the lowest ones allow \${LEAST}"):
        ceilings.below(usd)


def test_limits_that_a_parameter_raises_above_the_sum_are_refused() -> None:
    values = ceilings.below(200).parameters() | {"RestRate": "500"}

    with pytest.raises(Failure, match=r"more than \$200\.00"):
        price.quote(values, region="us-east-1", max_usd=200)


def test_the_worst_month_counts_every_limit() -> None:
    low = Ceilings(1, 1, 1, 256, 3, 1, 1)
    for name in ceilings.PARAMETERS:
        twice = {field: getattr(low, field) for field in ceilings.PARAMETERS} | {
            name: 2 * getattr(low, name)
        }
        assert Ceilings(**twice).members().total_usd > low.members().total_usd + 1, name


def test_the_worst_month_by_hand() -> None:
    seconds = 365 / 12 * 86_400
    limits = Ceilings(10, 20, 3, 512, 30, 40, 5)
    rows = {row.what: row.usd for row in limits.open().rows}

    assert rows["HTTP calls"] == pytest.approx(10 * seconds * 1.00 / 1e6)
    assert rows["sockets held open"] == pytest.approx(20 * 10 * seconds * 0.25 / 1e6)
    assert rows["socket messages"] == pytest.approx((2 * 20 + 3 * 5) * seconds / 1e6)
    assert rows["function time"] == pytest.approx(3 * seconds / 2 * 0.0000133334, rel=0.001)
    # mail at its ceiling; beside it 10 calls write four units each and 40 events two, but a
    # table takes no more than its own
    assert rows["store, written"] == pytest.approx((40 + 80) * seconds * 0.625 / 1e6, rel=0.001)
    # strangers' communities: ten capsules a minute, three files each
    assert rows["files written"] == pytest.approx(10 * 3 * seconds / 60 * 5 / 1e6)
    # 40 KiB a second are kept for 30 days, and so are 10 pins a second
    kept = (40 * 1024 + 10 * 300) * 30 * 86_400 / 1e9
    assert rows["store, kept"] == pytest.approx((kept + standing.TABLES_GB) * 0.25)


def test_the_month_of_strangers_by_hand() -> None:
    """16 refusals a second: what is charged is the gateway's first of all."""
    seconds = 365 / 12 * 86_400
    found = Ceilings().strangers()
    rows = {row.what: row.usd for row in found.rows}

    assert rows["HTTP calls"] == pytest.approx(11 * seconds * 1.00 / 1e6)  # $28.91
    assert rows["socket messages"] == pytest.approx(5 * seconds * 1.00 / 1e6)  # $13.14
    assert rows["function runs"] == pytest.approx(16 * seconds * 0.20 / 1e6)  # $8.41
    assert rows["function time"] == pytest.approx(16 * seconds * 0.010 * 0.0000133334)  # $5.61
    assert "store, written" not in rows
    assert "sockets held open" not in rows


@pytest.mark.parametrize("region", bill.regions())
def test_strangers_cannot_cost_more_than_100_dollars_a_month_as_it_comes(region: str) -> None:
    limits = Ceilings()

    assert limits.strangers(Terms(region=region)).total_usd <= 100
    assert limits.rest_rate >= 10.3, "so often ten of the existing browser clients call a second"


def test_what_is_chosen_makes_the_worst_months_dearer() -> None:
    limits, plain = Ceilings(), Terms()
    edge = Terms(edge=True)
    public = Terms(communities=1)

    for terms in (edge, public):
        assert limits.strangers(terms).total_usd > limits.strangers(plain).total_usd + 10
        assert limits.members(terms).total_usd > limits.members(plain).total_usd
    assert "CloudFront calls" in {row.what for row in limits.strangers(edge).rows}
    assert limits.strangers().total_usd < limits.members().total_usd < limits.open().total_usd


def test_what_has_no_ceiling_is_named_with_its_price() -> None:
    limits = Ceilings()
    plain = ceilings.boundless(limits, Terms())
    edge = ceilings.boundless(limits, Terms(edge=True))
    bucket = ceilings.boundless(limits, Terms(public_bucket=True))

    assert any("512 KB" in one and "$549 more" in one for one in plain)
    assert [one for one in edge if one not in plain] == [
        "CloudFront, which has no limit of calls: $1.10 a million and $0.085 a GB"
    ]
    assert [one for one in bucket if one not in plain] == [
        "capsules read from the bucket itself: $0.40 a million and $0.09 a GB"
    ]


def test_a_quote_tells_who_can_cause_what() -> None:
    limits = Ceilings()
    values = limits.parameters() | limits.settings()
    closed = price.quote(values, region="us-east-1")
    opened = price.quote({**values, "Access": "open"}, region="us-east-1")

    assert (closed.worst_usd, opened.worst_usd) == (closed.members_usd, opened.open_usd)
    assert [usd for usd, _ in closed.worst()] == [closed.strangers_usd, closed.members_usd]
    assert [usd for usd, _ in opened.worst()] == [opened.open_usd]
    assert closed.strangers_usd == limits.strangers().total_usd
    assert (closed.to_json()["access"], opened.to_json()["access"]) == ("closed", "open")
    assert {"usual_usd", "worst_usd", "allows"} <= set(closed.to_json())


def test_a_quote_reads_what_was_chosen_from_parameters_and_settings() -> None:
    values = {"CloudFront": "yes", "MUSTER_COMMUNITY_NAMES": "one,two", "PublicCapsules": "yes"}
    terms = Terms.of(values, region="eu-west-1")

    assert (terms.edge, terms.communities, terms.public_bucket) == (True, 2, False)
    assert Terms.of({"PublicCapsules": "yes"}, region="eu-west-1").public_bucket
    quiet = price.quote({"Concurrency": "0"}, region="us-east-1", machines=10)
    loud = price.quote({"Concurrency": "0"}, region="us-east-1", machines=None)
    assert loud.members_usd > quiet.members_usd == price.quote({}, region="us-east-1").members_usd


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
