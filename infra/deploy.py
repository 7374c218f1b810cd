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
from typing import TYPE_CHECKING, Any, Protocol

from infra import (
    choosing,
    cloud_keys,
    code_bucket,
    difference,
    naming,
    packing,
    parameters,
    stack,
)
from infra.cloud import Cloud, connect, explained, stores
from infra.cloud_keys import Secrets
from infra.difference import Change, Deployed
from infra.packing import Package
from infra.price import Quote
from infra.stacks import Stacks, State
from infra.ways_out import FAILED_FIRST
from muster.cli import output
from muster.cli.output import Failure, Misuse, say

if TYPE_CHECKING:
    from muster.cli.doctor.visit import Step

FIRST_ANSWER_S = 120.0

DOCTOR_S = 600
"""How long the doctor's circle is let in; nobody keeps its secret."""


class Pack(Protocol):
    """What makes the zip that is uploaded, as `infra.packing.pack` does."""

    def __call__(self, target: Path, python: packing.Python, *, architecture: str) -> Package: ...


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


def deploy(arguments: argparse.Namespace, *, pack: Pack = packing.pack) -> int:
    """Put the service on an AWS account, or what is new of it; *pack* makes the zip."""
    if not (arguments.yes or sys.stdin.isatty()):
        raise Misuse("deploying asks before it changes anything", "--yes answers it")
    with tempfile.TemporaryDirectory(prefix="muster-") as folder:
        build = _build(arguments, Path(folder), pack)
        template_url = code_bucket.upload(
            build.cloud, build.package, stack.encode(build.after.template)
        )
    changes = _propose(build, template_url)
    if changes is None:
        cloud_keys.keep(build.cloud, build.secrets)
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


def _build(arguments: argparse.Namespace, folder: Path, pack: Pack = packing.pack) -> Build:
    """Check everything that can be checked, and pack."""
    chosen = parameters.parse(choosing.pairs(arguments))
    python = packing.find_python(arguments.python)
    cloud = connect(arguments.stage, profile=arguments.profile, region=arguments.region)
    say(f"{cloud.names.stack} in {cloud.told}")
    stacks = Stacks(cloud)
    state = stacks.state()
    stacks.refuse_if_busy(state)
    before = stacks.deployed()
    if before is None and "AlarmEmail" not in chosen.parameters:
        chosen = choosing.with_mail(chosen, arguments)
    choice = choosing.choose(arguments, chosen, cloud, before)
    values = dict(choice.values)
    root_file = cloud_keys.root_path(arguments.root, arguments.stage)
    secrets = cloud_keys.find(cloud, root_file, edge=values.get("CloudFront") == "yes")
    _check_buckets(cloud, chosen.parameters, before)
    package = pack(folder, packing.prepare(python), architecture=values["Architecture"])
    template = stack.assemble(package.template, choice.settings)
    _lint(template, region=cloud.region)
    values |= {
        "Stage": arguments.stage,
        "CodeBucket": cloud.names.code,
        "CodeKey": package.key,
        "EdgeSecret": secrets.edge,
        "CapsuleRoot": secrets.root,
    }
    choosing.remember(choice, template)
    after = Deployed(template, values)
    after = Deployed(naming.literal(after, cloud.names), values)
    return Build(cloud, stacks, state, before, after, package, secrets, choice.quote)


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
    _protect(build)
    outputs = dict(state.outputs)
    if target := outputs.get("DomainTarget"):
        say(f"{build.after.parameters['DomainName']} is to be a CNAME of {target}")
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
            output.show(f"It is closed; to let people in: muster access new --stage {stage}")
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

    def starting(step: Step) -> None:
        # The clock's publisher comes within a minute or more: longer than the doctor waits.
        if step.name == "publish":
            _publish(build.cloud)

    return examined(base, timeout_s=15.0, circle=circle, starting=starting)


def _publish(cloud: Cloud) -> None:
    """Run the publisher once, as its clock does; whatever goes wrong the doctor will see."""
    event = {
        "version": "0",
        "id": "muster-deploy",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": cloud.names.account,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "region": cloud.region,
        "resources": [],
        "detail": {},
    }
    try:
        with explained("running the publisher once"):
            answer = cloud.client("lambda").invoke(
                FunctionName=cloud.names.publisher, Payload=json.dumps(event).encode()
            )
    except Failure as failure:
        say(f"muster: {failure}")
        return
    if "FunctionError" in answer:
        say("muster: the publisher failed; 'muster logs' says why")


def _protect(build: Build) -> None:
    """Let the tables refuse to be deleted, or not, as chosen.

    The template says nothing of it: a table that is protected while a first deployment fails
    outlives the way back, and is in the way of the next one.
    """
    wanted = build.after.parameters["DeletionProtection"] == "yes"
    client = build.cloud.client("dynamodb")
    with explained("protecting the tables from deletion"):
        for name in build.cloud.names.tables:
            table = client.describe_table(TableName=name)["Table"]
            if bool(table.get("DeletionProtectionEnabled")) != wanted:
                client.update_table(TableName=name, DeletionProtectionEnabled=wanted)


def _await_answer(base: str) -> None:
    """Wait until a new address is known and leads somewhere."""
    from muster.cli.base import silence

    end = time.monotonic() + FIRST_ANSWER_S
    while (failure := silence(base)) is not None:
        if time.monotonic() > end:
            raise Failure(
                f"it is deployed, but nothing answers there yet: {failure.message}",
                f"'muster doctor {base}' tries again; 'muster logs' tells more",
            )
        time.sleep(2)


def service_keys(base: str) -> dict[str, str]:
    """Return the service's public keys, which it alone knows."""
    import httpx2

    from muster import network

    url = f"{base}/v1/info"
    try:
        told = httpx2.get(url, timeout=10, **network.options(url)).json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return {}
    found = {f"ServiceKey {key['kid']}": key["verify_key"] for key in told.get("keys", ())}
    return found | _address(base)


def _address(base: str) -> dict[str, str]:
    """Return where the app is, and the service's address for circles: its URL and its name."""
    import httpx2

    from muster import network

    url = f"{base}/v2/info"
    try:
        told = httpx2.get(url, timeout=10, **network.options(url)).json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return {}
    if "service_id" not in told:
        return {}
    return {"App": f"{base}/app/", "Address": f"{base}#{told['service_id']}"}


# --- showing ------------------------------------------------------------------------


def _show(build: Build, changes: list[Change]) -> None:
    what = "changes to" if build.before else "everything of"
    output.show(f"{what} {build.cloud.names.stack} in {build.cloud.place}:".capitalize())
    difference.show(changes, build.moved)
    for made in build.secrets.fresh:
        output.show(f"  + {made}")
    if build.state and difference.moves(build.before, build.after, changes):
        output.show(difference.moved(build.state.outputs.get("BaseUrl", "")))
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
