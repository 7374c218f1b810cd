"""Deploying: `muster plan` says what would happen, `muster deploy` makes it happen.

Everything that can be refused is refused before AWS is changed; after that, whatever
stops a deployment, the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import cloud_keys, code_bucket, difference, packing, parameters, price, stack
from infra.cloud import Cloud, connect, stores
from infra.cloud_keys import Secrets
from infra.difference import Change, Deployed
from infra.packing import Package
from infra.parameters import Chosen
from infra.price import Quote
from infra.stacks import FAILED_FIRST, Stacks, State
from muster.cli import output
from muster.cli.output import Failure, Misuse, say

SPARE = 100
"""How many machines AWS keeps free for functions that reserve none."""

FIRST_ANSWER_S = 120.0

DOCTOR_S = 600
"""How long the doctor's circle is let in; nobody keeps its secret."""


@dataclass(frozen=True, slots=True)
class Build:
    """A deployment that has passed every check and changed nothing yet."""

    cloud: Cloud
    stacks: Stacks
    state: State | None
    before: Deployed | None
    after: Deployed
    package: Package
    secrets: Secrets
    quote: Quote

    @property
    def changes(self) -> list[Change]:
        """What would change, as far as can be known without asking AWS."""
        return difference.between(self.before, self.after)

    @property
    def moved(self) -> dict[str, tuple[str, str]]:
        """The parameters that would change."""
        return difference.changed_parameters(self.before, self.after)


def plan(arguments: argparse.Namespace) -> int:
    """Say what deploying would change and cost; nothing is touched."""
    with tempfile.TemporaryDirectory(prefix="muster-") as folder:
        build = _build(arguments, Path(folder))
    if arguments.json:
        output.dump(_told(build, build.changes))
        return output.OK
    _show(build, build.changes)
    output.show("Nothing was touched. 'muster deploy' with the same options does this.")
    return output.OK


def deploy(arguments: argparse.Namespace) -> int:
    """Put the service on an AWS account, or what is new of it."""
    if not (arguments.yes or sys.stdin.isatty()):
        raise Misuse("deploying asks before it changes anything", "--yes answers it")
    with tempfile.TemporaryDirectory(prefix="muster-") as folder:
        build = _build(arguments, Path(folder))
        template_url = code_bucket.upload(
            build.cloud, build.package, stack.encode(build.after.template)
        )
    changes = _propose(build, template_url)
    if changes is None:
        return _finish(arguments, build, build.stacks.state(), [])
    done = False
    try:
        if not arguments.json:
            _show(build, changes)
        if not (arguments.yes or _agreed("Go on?")):
            output.show("Nothing was changed.")
            return output.FAILED
        cloud_keys.keep(build.cloud, build.secrets)
        done = True
    finally:
        if not done:
            build.stacks.withdraw()
    say("AWS is at work; this takes a few minutes, with a new CloudFront about five")
    return _finish(arguments, build, build.stacks.carry_out(), changes)


# --- checks ---------------------------------------------------------------------


def _build(arguments: argparse.Namespace, folder: Path) -> Build:
    """Check everything that can be checked, and pack."""
    chosen = parameters.parse(arguments.param)
    python = packing.find_python(arguments.python)
    cloud = connect(arguments.stage, profile=arguments.profile, region=arguments.region)
    say(f"{cloud.names.stack} in {cloud.place}, as {cloud.caller}")
    stacks = Stacks(cloud)
    state = stacks.state()
    stacks.refuse_if_busy(state)
    before = stacks.deployed()
    secrets = cloud_keys.find(cloud, cloud_keys.root_path(arguments.root, arguments.stage))
    values, settings, quote = _choose(arguments, chosen, cloud, before)
    _check_buckets(cloud, chosen.parameters, before)
    package = packing.pack(folder, packing.prepare(python), architecture=values["Architecture"])
    template = stack.assemble(package.template, settings)
    _lint(template, region=cloud.region)
    values |= {
        "Stage": arguments.stage,
        "CodeBucket": cloud.names.code,
        "CodeKey": package.key,
        "EdgeSecret": secrets.edge,
        "CapsuleRoot": secrets.root,
    }
    after = Deployed(template, values)
    return Build(cloud, stacks, state, before, after, package, secrets, quote)


def _choose(
    arguments: argparse.Namespace, chosen: Chosen, cloud: Cloud, before: Deployed | None
) -> tuple[dict[str, str], dict[str, str], Quote]:
    """Return parameters and settings: as chosen, else within the price, else as they are."""
    kept = before.parameters if before else {}
    settings = stack.settings(before.template) if before else {}
    architecture = parameters.merged(chosen.parameters, kept)["Architecture"]
    limits = price.limits(arguments.max_usd, region=cloud.region, architecture=architecture)
    wanted = {**(limits.parameters() if limits else {}), **chosen.parameters}
    settings |= {**(limits.settings() if limits else {}), **chosen.settings}
    parameters.check_settings(settings)
    free = _free_machines(cloud)
    wanted = _within_quota(cloud, wanted, kept, free, insisted="Concurrency" in chosen.parameters)
    values = parameters.merged(wanted, kept)
    quote = price.quote(
        {**values, **settings}, region=cloud.region, machines=free, max_usd=arguments.max_usd
    )
    return values, settings, quote


def _within_quota(
    cloud: Cloud,
    wanted: dict[str, str],
    kept: Mapping[str, str],
    free: int | None,
    *,
    insisted: bool,
) -> dict[str, str]:
    """Refuse to reserve more machines than the account has, or reserve none."""
    values = parameters.merged(wanted, kept)
    asked, had = int(values["Concurrency"]), int(kept.get("Concurrency", "0"))
    if free is None or asked <= max(had, 0) or asked + 1 <= free + had - SPARE:
        return wanted
    if insisted or had:
        raise Failure(
            f"this account can reserve {max(free + had - SPARE - 1, 0)} machines in "
            f"{cloud.region}, not {asked}",
            "choose less with --param Concurrency=N (0 reserves none), or have Lambda's quota "
            "'Concurrent executions' raised",
        )
    say(
        f"this account's quota leaves {free} machines in {cloud.region}: none are reserved, "
        "and its other functions share them"
    )
    return {**wanted, "Concurrency": "0"}


def _free_machines(cloud: Cloud) -> int | None:
    """Return how many machines are not reserved; None if AWS does not say."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        told = cloud.client("lambda").get_account_settings()
        return int(told["AccountLimit"]["UnreservedConcurrentExecutions"])
    except (BotoCoreError, ClientError, KeyError):
        return None


def _check_buckets(cloud: Cloud, wanted: Mapping[str, str], before: Deployed | None) -> None:
    """Refuse names that somebody else has."""
    code_bucket.check_ours(cloud, cloud.names.code)
    capsules = wanted.get("CapsuleBucketName") or cloud.names.capsules
    if before is None or wanted.get("CapsuleBucketName"):
        code_bucket.check_ours(cloud, capsules, "--param CapsuleBucketName=NAME takes another")


def _lint(template: Mapping[str, Any], *, region: str) -> None:
    """Hold the template, before and after the transform, to CloudFormation's own rules."""
    try:
        from infra import linting
    except ImportError:
        raise Failure("deploying needs cfn-lint", "'make setup' installs it") from None
    found = linting.problems(template, region=region)
    if found and found[0].startswith("E"):
        raise Failure(f"the template fails its checks: {found[0]}", "this is a mistake in muster")


# --- change -----------------------------------------------------------------------


def _propose(build: Build, template_url: str) -> list[Change] | None:
    """Have AWS say what would change."""
    state = build.state
    if state is not None and (state.status in FAILED_FIRST or not state.good):
        state = build.stacks.mend(state)
    return build.stacks.propose(template_url, build.after.parameters, state)


def _agreed(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _finish(
    arguments: argparse.Namespace, build: Build, state: State | None, changes: list[Change]
) -> int:
    """Try the result and print where it is."""
    if state is None:
        raise Failure(f"{build.cloud.names.stack} has gone", "somebody deleted it meanwhile")
    outputs = dict(state.outputs)
    report = None if arguments.no_doctor else _examined(build, outputs.get("BaseUrl", ""))
    outputs |= service_keys(outputs.get("BaseUrl", "")) if report else {}
    good = report is None or report.ok
    if arguments.json:
        told = {**_told(build, changes), "status": state.status, "outputs": outputs}
        output.dump(told | ({"doctor": report.to_json()} if report else {}))
    else:
        if not changes:
            output.show("Nothing changes: all of it is deployed already.")
        _show_result(outputs, report)
        if build.after.parameters["Access"] == "closed":
            stage = arguments.stage
            output.show(f"It is closed; a circle: muster access allow CODE --stage {stage}")
    return output.OK if good else output.FAILED


def _examined(build: Build, base: str) -> Any:
    """Let two nodes meet through what was deployed, in a circle that is let in for the time."""
    from chalicelib import tables
    from muster.cli.doctor import examined
    from muster.felund.circle import Circle

    _await_answer(base)
    say(f"muster doctor {base}")
    circle, now = Circle.new(), int(time.time())
    with stores(build.cloud) as opened:
        allowed = tables.Allowed("doctor", now)
        tables.allow(opened, circle.circle_hint, allowed, until=now + DOCTOR_S)
    return examined(base, timeout_s=15.0, circle=circle)


def _await_answer(base: str) -> None:
    """Wait until a new address is known and leads somewhere."""
    from urllib.request import urlopen

    end = time.monotonic() + FIRST_ANSWER_S
    while True:
        try:
            with urlopen(f"{base}/v1/health", timeout=10):  # noqa: S310 - our own address
                return
        except OSError as error:
            if time.monotonic() > end:
                raise Failure(
                    f"it is deployed, but {base} does not answer: {error}",
                    "'muster doctor' tries again; 'muster logs' tells more",
                ) from None
        time.sleep(2)


def service_keys(base: str) -> dict[str, str]:
    """Return the service's public keys, which it alone knows."""
    from urllib.request import urlopen

    try:
        with urlopen(f"{base}/v1/info", timeout=10) as answer:  # noqa: S310 - our own address
            told = json.load(answer)
    except (OSError, ValueError):
        return {}
    return {f"ServiceKey {key['kid']}": key["verify_key"] for key in told.get("keys", ())}


# --- showing ------------------------------------------------------------------------


def _show(build: Build, changes: list[Change]) -> None:
    what = "changes to" if build.before else "everything of"
    output.show(f"{what} {build.cloud.names.stack} in {build.cloud.place}:".capitalize())
    difference.show(changes, build.moved)
    for made in build.secrets.fresh:
        output.show(f"  + {made}")
    size = build.package.archive_bytes / 1_000_000
    output.show(f"Code: {size:.1f} MB, {build.package.runtime}, {build.package.digest[:12]}")
    build.quote.show()


def _show_result(outputs: Mapping[str, str], report: Any) -> None:
    if report is not None:
        from muster.cli.doctor import waterfall

        waterfall.draw(report)
    width = max((len(name) for name in outputs), default=0)
    for name, value in sorted(outputs.items()):
        output.show(f"{name:<{width}}  {value}")


def _told(build: Build, changes: list[Change]) -> dict[str, Any]:
    return {
        "stage": build.cloud.names.stage,
        "stack": build.cloud.names.stack,
        "account": build.cloud.names.account,
        "region": build.cloud.region,
        "new": build.before is None,
        "changes": [change.to_json() for change in changes],
        "parameters": {name: list(values) for name, values in sorted(build.moved.items())},
        "makes": list(build.secrets.fresh),
        "code": {"bytes": build.package.archive_bytes, "runtime": build.package.runtime},
        "price": build.quote.to_json(),
    }


__all__ = ["deploy", "plan", "service_keys"]
