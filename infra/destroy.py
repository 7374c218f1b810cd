"""Destroying: `muster destroy` takes a deployment from an account and leaves nothing behind.

Tables and capsules are not the stack's to delete: a stack that is deleted by mistake
leaves them. They go here, after the question, unless they are to be kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from infra import code_bucket, difference
from infra.cloud import Cloud, code_of, connect, explained
from infra.stacks import Stacks, State
from muster.cli import output
from muster.cli.output import Failure, Misuse, say

_NOT_THERE = ("NoSuchBucket", "ParameterNotFound", "ResourceNotFoundException")


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is of a deployment."""

    state: State | None
    resources: int = 0
    tables: tuple[str, ...] = ()
    bucket: str = ""
    logs: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    code: str = ""
    kept: tuple[str, ...] = field(default=())

    @property
    def empty(self) -> bool:
        """Whether there is nothing to delete."""
        return self.state is None and not (
            self.tables or self.bucket or self.logs or self.secrets or self.code
        )


def destroy(arguments: argparse.Namespace) -> int:
    """Delete a deployment."""
    if not (arguments.yes or sys.stdin.isatty()):
        raise Misuse("destroying asks before it deletes anything", "--yes answers it")
    cloud = connect(arguments.stage, profile=arguments.profile, region=arguments.region)
    stacks = Stacks(cloud)
    found = inventory(cloud, stacks, keep_data=arguments.keep_data)
    if found.state is not None and found.state.busy:
        raise Failure(
            f"{cloud.names.stack} is being changed ({found.state.status})",
            "wait until 'muster status' says that it is done, then try again",
        )
    if found.empty:
        return _tell(arguments, cloud, found, f"There is nothing of {cloud.names.stack} to delete.")
    if not arguments.json:
        _show(cloud, found)
    if not (arguments.yes or _agreed(cloud.names.stage)):
        output.show("Nothing was deleted.")
        return output.FAILED
    _delete(cloud, stacks, found)
    return _tell(arguments, cloud, found, f"{cloud.names.stack} is gone.")


def inventory(cloud: Cloud, stacks: Stacks, *, keep_data: bool) -> Inventory:
    """Look for everything that a deployment consists of, whether there is a stack or not."""
    names = cloud.names
    state = stacks.state()
    resources = stacks.resources() if state else []
    bucket = _bucket_of(resources) or names.capsules
    if not code_bucket.check_ours(cloud, bucket):
        bucket = ""
    tables = tuple(name for name in names.tables if _table(cloud, name))
    secrets = tuple(name for name in (names.keys, names.edge) if _secret(cloud, name))
    data = (*tables, *([bucket] if bucket else []), *secrets)
    return Inventory(
        state,
        len(resources),
        () if keep_data else tables,
        "" if keep_data else bucket,
        tuple(name for name in names.logs if _log(cloud, name)),
        () if keep_data else secrets,
        names.code if code_bucket.check_ours(cloud, names.code) else "",
        data if keep_data else (),
    )


def _delete(cloud: Cloud, stacks: Stacks, found: Inventory) -> None:
    """Delete the stack first, so that nothing writes any more, then what it leaves."""
    if found.state is not None:
        delete_stack(stacks)
    if found.bucket:
        _delete_bucket(cloud, found.bucket)
    for table in found.tables:
        _delete_table(cloud, table)
    for log in found.logs:
        _unless_gone(partial(cloud.client("logs").delete_log_group, logGroupName=log), log)
    for secret in found.secrets:
        _unless_gone(partial(cloud.client("ssm").delete_parameter, Name=secret), secret)
    if found.code:
        _delete_bucket(cloud, found.code)


def delete_stack(stacks: Stacks) -> None:
    """Delete the stack; what does not want to go is named and let go of, so that the rest goes."""
    try:
        stacks.delete()
    except Failure as failure:
        state = stacks.state()
        if state is None or state.status != "DELETE_FAILED":
            raise
        say(f"muster: {failure.message}")
        _let_go(stacks)


def _let_go(stacks: Stacks) -> None:
    stuck = [r for r in stacks.resources() if r.get("ResourceStatus") == "DELETE_FAILED"]
    stacks.delete(retain=tuple(r["LogicalResourceId"] for r in stuck))
    left = ", ".join(f"{r['ResourceType']} {r.get('PhysicalResourceId', '')}" for r in stuck)
    say(f"muster: AWS would not delete {left}: it is left behind; delete it by hand")


def _delete_bucket(cloud: Cloud, name: str) -> None:
    gone = code_bucket.empty(cloud, name)
    s3 = cloud.client("s3")
    _unless_gone(partial(s3.delete_bucket, Bucket=name), f"bucket {name} and {gone} files")


def _delete_table(cloud: Cloud, name: str) -> None:
    client = cloud.client("dynamodb")
    table = _table(cloud, name)
    if table is None:
        return
    with explained(f"deleting {name}"):
        _forget_backups(client, name)
        if table.get("DeletionProtectionEnabled"):
            client.update_table(TableName=name, DeletionProtectionEnabled=False)
            client.get_waiter("table_exists").wait(TableName=name)
        client.delete_table(TableName=name)
        client.get_waiter("table_not_exists").wait(TableName=name)
    say(f"  deleted table {name}")


def _forget_backups(client: Any, name: str) -> None:
    """Switch the point-in-time backup off: with it AWS keeps the table 35 days after its end."""
    told = client.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    recovery = told.get("PointInTimeRecoveryDescription", {})
    if recovery.get("PointInTimeRecoveryStatus") == "ENABLED":
        client.update_continuous_backups(
            TableName=name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}
        )


def _unless_gone(delete: Callable[[], Any], what: str) -> None:
    from botocore.exceptions import ClientError

    with explained(f"deleting {what}"):
        try:
            delete()
        except ClientError as error:
            if code_of(error) not in _NOT_THERE:
                raise
    say(f"  deleted {what}")


def _bucket_of(resources: list[Mapping[str, Any]]) -> str:
    for resource in resources:
        if resource["LogicalResourceId"] == "CapsuleBucket":
            return str(resource.get("PhysicalResourceId", ""))
    return ""


def _table(cloud: Cloud, name: str) -> Mapping[str, Any] | None:
    found = _asked(lambda: cloud.client("dynamodb").describe_table(TableName=name), name)
    return found["Table"] if found else None


def _secret(cloud: Cloud, name: str) -> bool:
    return _asked(lambda: cloud.client("ssm").get_parameter(Name=name), name) is not None


def _log(cloud: Cloud, name: str) -> bool:
    found = _asked(lambda: cloud.client("logs").describe_log_groups(logGroupNamePrefix=name), name)
    return any(group["logGroupName"] == name for group in (found or {}).get("logGroups", ()))


def _asked(ask: Callable[[], Any], what: str) -> Any:
    from botocore.exceptions import ClientError

    with explained(f"looking for {what}"):
        try:
            return ask()
        except ClientError as error:
            if code_of(error) in _NOT_THERE:
                return None
            raise


def _agreed(stage: str) -> bool:
    try:
        return input(f"This cannot be undone. Type '{stage}' to go on: ").strip() == stage
    except EOFError:
        return False


def _show(cloud: Cloud, found: Inventory) -> None:
    output.show(f"This goes from {cloud.place}:")
    if found.state is not None:
        output.show(f"  - the stack {cloud.names.stack} with {found.resources} resources")
    for table in found.tables:
        output.show(f"  - the table {table} and everything in it")
    if found.bucket:
        output.show(f"  - the bucket {found.bucket} and every capsule in it")
    for name in found.secrets:
        output.show(f"  - the secret {name}")
    for log in found.logs:
        output.show(f"  - the log {log}")
    if found.code:
        output.show(f"  - the bucket {found.code} with packed code")
    for name in found.kept:
        output.show(f"    {name} is kept")
    base = found.state.outputs.get("BaseUrl") if found.state is not None else None
    if base:
        output.show(difference.moved(base))


def _tell(arguments: argparse.Namespace, cloud: Cloud, found: Inventory, text: str) -> int:
    if arguments.json:
        output.dump(
            {
                "stack": cloud.names.stack,
                "deleted": {
                    "stack": found.state is not None,
                    "tables": list(found.tables),
                    "bucket": found.bucket,
                    "logs": list(found.logs),
                    "secrets": list(found.secrets),
                    "code": found.code,
                },
                "kept": list(found.kept),
            }
        )
        return output.OK
    output.show(text)
    for name in found.kept:
        output.show(f"  kept: {name}")
    if found.kept:
        output.show("  'muster deploy' takes it in again.")
    return output.OK
