"""What a deployment's parameters come to: what is named, what was, and what a quota allows."""

import argparse
import io
import json

import pytest

from infra import choosing, parameters, stack
from infra.choosing import Choice
from infra.cloud import Cloud, connect
from infra.difference import Deployed
from infra.parameters import Chosen
from muster.cli.output import Failure, Misuse
from tests.support.account import REGION, Account


@pytest.fixture
def cloud(emulated: Account) -> Cloud:
    return connect("dev", region=REGION)


def options(**more: object) -> argparse.Namespace:
    told: dict[str, object] = {
        "param": [],
        "edge": None,
        "open": None,
        "max_usd": None,
        "json": False,
        "yes": False,
    }
    return argparse.Namespace(**{**told, **more})


def allow(emulated: Account, machines: int) -> None:
    limits = {"AccountLimit": {"UnreservedConcurrentExecutions": machines}}
    emulated.answers["GET /2016-08-19/account-settings"] = json.dumps(limits)


def choose(cloud: Cloud, before: Deployed | None = None, **named: str) -> Choice:
    return choosing.choose(options(), Chosen(named), cloud, before)


def deployed(choice: Choice) -> Deployed:
    """Return what a deployment keeps of a choice."""
    template: stack.Template = {"Metadata": {"Muster": {"Settings": {}}}}
    choosing.remember(choice, template)
    return Deployed(template, choice.values)


def default(name: str) -> str:
    return str(parameters.declared()[name]["Default"])


def test_machines_that_a_quota_denied_are_reserved_when_it_has_grown(
    emulated: Account, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    allow(emulated, 10)
    first = choose(cloud)
    assert first.values["Concurrency"] == "0"
    assert "this account's quota leaves 10 machines" in capsys.readouterr().err

    again = choose(cloud, deployed(first))
    assert again.values["Concurrency"] == "0"
    allow(emulated, 1000)
    third = choose(cloud, deployed(again))

    assert third.values["Concurrency"] == default("Concurrency")
    assert choose(cloud, deployed(third)).values == third.values


def test_a_concurrency_of_0_that_somebody_chose_stays(emulated: Account, cloud: Cloud) -> None:
    allow(emulated, 1000)
    first = choose(cloud, Concurrency="0")

    assert choose(cloud, deployed(first)).values["Concurrency"] == "0"


def test_more_machines_than_the_account_has_are_refused_to_who_insists(
    emulated: Account, cloud: Cloud
) -> None:
    allow(emulated, 10)

    with pytest.raises(Failure, match="can reserve 0 machines"):
        choose(cloud, Concurrency="20")


@pytest.mark.parametrize(
    ("option", "chosen", "pair"),
    [
        ("edge", True, {"CloudFront": "yes"}),
        ("edge", False, {"CloudFront": "no"}),
        ("open", True, {"Access": "open"}),
        ("open", False, {"Access": "closed"}),
    ],
)
def test_some_parameters_have_a_short_name(option: str, chosen: bool, pair: dict[str, str]) -> None:
    found = parameters.parse(choosing.pairs(options(**{option: chosen})))

    assert found.parameters == pair
    assert choosing.pairs(options()) == []


@pytest.mark.parametrize(("option", "name"), [("edge", "CloudFront"), ("open", "Access")])
def test_what_has_a_short_name_is_not_chosen_twice(option: str, name: str) -> None:
    with pytest.raises(Misuse, match=f"{name} is chosen twice"):
        choosing.pairs(options(**{option: True}, param=[f"{name}=no"]))


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "told"),
    [("me@example.org\n", {"AlarmEmail": "me@example.org"}), ("\n", {}), ("", {})],
)
def test_a_person_is_asked_who_is_told_and_may_say_nobody(
    monkeypatch: pytest.MonkeyPatch, typed: str, told: dict[str, str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))

    assert choosing.with_mail(Chosen(), options()).parameters == told


def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("me\n"))

    with pytest.raises(Misuse, match="must be an e-mail address"):
        choosing.with_mail(Chosen(), options())


@pytest.mark.parametrize("more", [{"yes": True}, {"json": True}])
def test_a_program_is_never_asked(monkeypatch: pytest.MonkeyPatch, more: dict[str, bool]) -> None:
    typed = Terminal("me@example.org\n")
    monkeypatch.setattr("sys.stdin", typed)

    assert choosing.with_mail(Chosen(), options(**more)) == Chosen()
    assert typed.tell() == 0


def test_nobody_at_a_terminal_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("me@example.org\n"))

    assert choosing.with_mail(Chosen(), options()) == Chosen()


CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/one"


@pytest.mark.parametrize(
    ("kept", "named", "told"),
    [
        ({}, {"DomainName": "m.example"}, "DomainName is for deployments with CloudFront"),
        ({}, {"PriceClass": "PriceClass_All"}, "PriceClass is for deployments with CloudFront"),
        ({}, {"CertificateArn": CERTIFICATE}, "CertificateArn is for deployments with CloudFront"),
        ({"CloudFront": "yes"}, {"CertificateArn": CERTIFICATE}, "needs DomainName"),
        ({"CloudFront": "yes"}, {"DomainName": "m.example"}, "needs CertificateArn"),
        ({"CloudFront": "yes"}, {"PublicCapsules": "yes"}, "without CloudFront"),
        ({"PublicCapsules": "yes"}, {"CloudFront": "yes"}, "without CloudFront"),
        ({"CloudFront": "yes"}, {"CloudFront": "no", "PriceClass": "PriceClass_All"}, "PriceClass"),
    ],
)
def test_what_would_do_nothing_with_what_the_stack_keeps_is_refused(
    emulated: Account, cloud: Cloud, kept: dict[str, str], named: dict[str, str], told: str
) -> None:
    before = deployed(choosing.choose(options(), Chosen(kept), cloud, None))

    with pytest.raises(Misuse, match=told):
        choosing.choose(options(), Chosen(named), cloud, before)


def test_what_was_for_the_edge_is_kept_while_there_is_none(emulated: Account, cloud: Cloud) -> None:
    """To leave the edge and to come back takes one word each."""
    domain = {"DomainName": "m.example", "CertificateArn": CERTIFICATE}
    chosen = Chosen({"CloudFront": "yes", **domain})
    first = deployed(choosing.choose(options(), chosen, cloud, None))
    without = choose(cloud, first, CloudFront="no")
    again = choose(cloud, deployed(without), CloudFront="yes")

    assert {name: again.values[name] for name in domain} == domain
