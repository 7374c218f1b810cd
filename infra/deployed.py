"""What is deployed: `muster status`, `outputs`, `dashboard` and `logs`; they change nothing."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from infra import cloud_keys
from infra.cloud import Cloud, code_of, connect, explained
from infra.deploy import service_keys
from infra.stacks import Stacks, State
from infra.ways_out import FAILED_FIRST, FRESH
from muster.cli import output, times
from muster.cli.output import Failure

WARN_DAYS = 30
FOLLOW_S = 2.0


def status(arguments: argparse.Namespace) -> int:
    """Say how the deployment is, and what is to be done about it."""
    cloud, state = _found(arguments)
    alarms = _alarms(cloud)
    keys = cloud_keys.read(cloud)
    days = None if keys is None else cloud_keys.days_left(keys)
    healthy = state.good and not alarms and days is not None and days > 0
    told = {
        "stack": cloud.names.stack,
        "status": state.status,
        "reason": state.reason,
        "way_out": state.way_out,
        "changed_at": int(state.changed_at.timestamp()) if state.changed_at else None,
        "base_url": state.outputs.get("BaseUrl"),
        "alarms": alarms,
        "publishing_days_left": days,
        "parameters": {k: v for k, v in sorted(state.parameters.items()) if k != "EdgeSecret"},
    }
    if arguments.json:
        output.dump(told)
    else:
        _show_status(cloud, state, alarms, days)
    return output.OK if healthy else output.FAILED


def outputs(arguments: argparse.Namespace) -> int:
    """Print the deployment's addresses and public keys."""
    _, state = _found(arguments, complete=True)
    found = {**state.outputs, **service_keys(state.outputs.get("BaseUrl", ""))}
    if arguments.json:
        output.dump(found)
        return output.OK
    width = max(len(name) for name in found)
    for name, value in sorted(found.items()):
        output.show(f"{name:<{width}}  {value}")
    return output.OK


def dashboard(arguments: argparse.Namespace) -> int:
    """Print where the dashboard is."""
    cloud, state = _found(arguments, complete=True)
    url = state.outputs.get("DashboardUrl")
    if url is None:
        raise Failure(
            f"{cloud.names.stack} has no dashboard",
            "'muster deploy --param Dashboard=yes' makes one; three are free in an account",
        )
    if arguments.json:
        output.dump({"url": url})
    else:
        output.show(url)
    return output.OK


def logs(arguments: argparse.Namespace) -> int:
    """Show what the functions have logged."""
    since = times.since(arguments.since, now=time.time())
    cloud, _ = _found(arguments)
    for event in _logged(cloud, since=since, follow=arguments.follow):
        if arguments.json:
            output.dump({"at": event["timestamp"] / 1000, "message": event["message"].rstrip()})
        else:
            at = datetime.fromtimestamp(event["timestamp"] / 1000, UTC).astimezone()
            output.show(f"{at:%Y-%m-%d %H:%M:%S}  {_readable(event['message'])}")
    return output.OK


def _found(arguments: argparse.Namespace, *, complete: bool = False) -> tuple[Cloud, State]:
    """Return the deployment, or say that there is none."""
    cloud = connect(arguments.stage, profile=arguments.profile, region=arguments.region)
    state = Stacks(cloud).state()
    if state is None:
        raise Failure(
            f"there is no {cloud.names.stack} in {cloud.place}",
            "'muster deploy' makes one; --stage and --region choose another",
        )
    if complete and (not state.outputs or state.status in (*FRESH, *FAILED_FIRST)):
        raise Failure(f"{cloud.names.stack} is {state.status}", "see 'muster status'")
    return cloud, state


def _show_status(cloud: Cloud, state: State, alarms: list[str], days: int | None) -> None:
    since = f" since {state.changed_at:%Y-%m-%d %H:%M} UTC" if state.changed_at else ""
    output.show(f"{cloud.names.stack} in {cloud.place}: {state.status}{since}")
    if state.reason:
        output.show(f"  {state.reason}")
    if state.way_out:
        output.show(f"  {state.way_out}")
    if state.outputs.get("BaseUrl"):
        output.show(f"  {state.outputs['BaseUrl']}")
    for alarm in alarms:
        output.show(f"  ALARM {alarm}")
    if not alarms and state.good:
        output.show("  no alarm")
    if days is not None:
        hint = "; 'muster rotate' makes a new key" if days < WARN_DAYS else ""
        output.show(f"  capsules may be published for {days} more days{hint}")
    elif state.good:
        output.show(f"  NO KEY to publish with: {cloud.names.keys} is not there")
        output.show("  'muster deploy' makes a new one, certified by the root key as before")


def _alarms(cloud: Cloud) -> list[str]:
    """Return what the alarms say that are raised."""
    with explained("asking for alarms"):
        pages = (
            cloud.client("cloudwatch")
            .get_paginator("describe_alarms")
            .paginate(AlarmNamePrefix=f"{cloud.names.stack}-", StateValue="ALARM")
        )
        return [
            str(alarm.get("AlarmDescription") or alarm["AlarmName"])
            for page in pages
            for alarm in page.get("MetricAlarms", ())
        ]


def _logged(cloud: Cloud, *, since: float, follow: bool) -> Iterator[Mapping[str, Any]]:
    """Give what was logged, the oldest first, and what comes if it is followed."""
    start = dict.fromkeys(cloud.names.logs, int(since * 1000))
    told: set[str] = set()
    while True:
        fresh: list[Mapping[str, Any]] = []
        for group, at in start.items():
            fresh += [e for e in _events(cloud, group, at) if _name(e) not in told]
        fresh.sort(key=lambda event: int(event["timestamp"]))
        told.update(_name(event) for event in fresh)
        yield from fresh
        if not follow:
            return
        time.sleep(FOLLOW_S)
        # What is late by up to a minute is still found; what was told is not told again.
        start = dict.fromkeys(start, max(int(since * 1000), int((time.time() - 60) * 1000)))


def _name(event: Mapping[str, Any]) -> str:
    """Return what tells a logged event from others; not every emulator gives it a name."""
    return str(event.get("eventId") or f"{event['timestamp']} {event['message']}")


def _events(cloud: Cloud, group: str, at: int) -> list[Mapping[str, Any]]:
    from botocore.exceptions import ClientError

    with explained(f"reading {group}"):
        try:
            pages = (
                cloud.client("logs")
                .get_paginator("filter_log_events")
                .paginate(logGroupName=group, startTime=at)
            )
            return [event for page in pages for event in page["events"]]
        except ClientError as error:
            if code_of(error) == "ResourceNotFoundException":
                return []
            raise


def _readable(message: str) -> str:
    """Return a line of ours without what only programs want; others as they are."""
    text = output.clean(message.rstrip()).replace("\n", "\n  ")  # no line of it looks like ours
    try:
        line = json.loads(message)
        said = f"{line['level']:<7} {line['message']}"
    except (ValueError, TypeError, KeyError):
        return text
    shown = {
        k: v for k, v in line.items() if k not in ("level", "message", "logger", "_aws", "Function")
    }
    return output.line(said + "".join(f" {k}={v}" for k, v in shown.items() if v != ""))
