"""Stacks: how CloudFormation is asked, waited for, and put right when it stopped half-way.

The change set has one name, so that of two deployments at the same time the second
is refused; one that an interrupted deployment left behind is taken over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from infra.cloud import Cloud, code_of, explained
from infra.difference import Change, Deployed, from_change_set
from infra.progress import Silence, failure, line
from infra.ways_out import FAILED_FIRST, FRESH, STUCK, WAYS_OUT, is_early, way_out
from muster.cli import output
from muster.cli.output import Failure, say

CHANGE_SET = "muster-deploy"
BUSY_S = 600
"""How long a change set that is not carried out keeps others away."""

POLL_S = 2.0
SOON_S = 0.25
"""How soon AWS is asked again: at first soon, then every `POLL_S`."""

LONGEST_S = 3600.0


@dataclass(frozen=True, slots=True)
class State:
    """A stack as it is."""

    id: str
    status: str
    reason: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]
    changed_at: datetime | None

    @property
    def busy(self) -> bool:
        """Whether CloudFormation works on it."""
        return self.status.endswith("_IN_PROGRESS") and self.status not in FRESH

    @property
    def good(self) -> bool:
        """Whether the service is there, by this deployment or the one before."""
        return self.status in (
            "CREATE_COMPLETE",
            "UPDATE_COMPLETE",
            "UPDATE_ROLLBACK_COMPLETE",
            "IMPORT_COMPLETE",
            "IMPORT_ROLLBACK_COMPLETE",
        )

    @property
    def way_out(self) -> str:
        """What is the matter and what to do; nothing if nothing is."""
        if self.busy:
            return "AWS is at work on it; 'muster status' again in a minute"
        return WAYS_OUT.get(self.status, "")


class Stacks:
    """CloudFormation, as far as one stack goes."""

    def __init__(
        self,
        cloud: Cloud,
        *,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._cloud, self._pause, self._clock = cloud, pause, clock
        self._name = cloud.names.stack

    @property
    def _api(self) -> Any:
        return self._cloud.client("cloudformation")

    # --- looking --------------------------------------------------------------

    def state(self) -> State | None:
        """Return the stack as it is; None if there is none."""
        from botocore.exceptions import ClientError

        with explained("looking at the stack"):
            try:
                found = self._api.describe_stacks(StackName=self._name)["Stacks"]
            except ClientError as error:
                if code_of(error) == "ValidationError":
                    return None
                raise
        if not found or found[0]["StackStatus"] == "DELETE_COMPLETE":
            return None
        return _state(found[0])

    def deployed(self) -> Deployed | None:
        """Return the template and the parameters that are there."""
        import json

        state = self.state()
        if state is None or state.status in (*FRESH, *FAILED_FIRST):
            return None
        with explained("reading the template that is there"):
            body = self._api.get_template(StackName=self._name, TemplateStage="Original")
        template = body["TemplateBody"]
        return Deployed(
            json.loads(template) if isinstance(template, str) else dict(template), state.parameters
        )

    def resources(self) -> list[Mapping[str, Any]]:
        """Return what the stack consists of."""
        with explained("listing the stack's resources"):
            pages = self._api.get_paginator("list_stack_resources").paginate(StackName=self._name)
            found = [entry for page in pages for entry in page["StackResourceSummaries"]]
        return [r for r in found if r.get("ResourceStatus") != "DELETE_COMPLETE"]

    # --- before a deployment ----------------------------------------------------

    def refuse_if_busy(self, state: State | None) -> None:
        """Refuse what cannot be deployed to, before anything is changed."""
        if state is None:
            return
        if state.busy:
            raise Failure(
                f"{self._name} is being changed already ({state.status})",
                "wait until 'muster status' says that it is done, then try again",
            )
        if state.status == "DELETE_FAILED":
            raise Failure(
                f"{self._name} is half deleted: {state.reason or 'no reason given'}",
                "'muster destroy' goes on deleting it; then deploy again",
            )
        if self._prepared_s() is not None:
            raise Failure(
                f"another deployment of {self._name} is being prepared",
                f"wait for it; one that was given up counts for {BUSY_S // 60} minutes",
            )

    def mend(self, state: State | None) -> State | None:
        """Put right what a failed deployment left, so that there can be another."""
        if state is None:
            return None
        if state.status in FAILED_FIRST:
            say(f"the first deployment had failed ({state.status}); removing what is left of it")
            self._delete(state)
            return None
        if state.status in STUCK:
            say("the last deployment's way back had failed; going on with it")
            since = self._newest_event(state.id)
            with explained("going on with the way back"):
                self._api.continue_update_rollback(StackName=self._name)
            return self._wait(state, since=since, good=("UPDATE_ROLLBACK_COMPLETE",))
        return state

    # --- deploying --------------------------------------------------------------

    def propose(
        self, template_url: str, parameters: Mapping[str, str], state: State | None
    ) -> list[Change] | None:
        """Make a change set and return its changes; None if there is nothing to change."""
        from botocore.exceptions import ClientError

        creates = state is None or state.status in FRESH
        request = {
            "StackName": self._name,
            "ChangeSetName": CHANGE_SET,
            "ChangeSetType": "CREATE" if creates else "UPDATE",
            "TemplateURL": template_url,
            "Parameters": [
                {"ParameterKey": k, "ParameterValue": v} for k, v in sorted(parameters.items())
            ],
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            "Tags": [{"Key": k, "Value": v} for k, v in self._cloud.names.tags.items()],
            # Tables and buckets that 'destroy --keep-data' left are taken in again.
            "ImportExistingResources": True,
        }
        with explained("preparing the change"):
            self._clear()
            try:
                self._api.create_change_set(**request)
            except ClientError as error:
                if code_of(error) != "AlreadyExistsException":
                    raise
                raise Failure(
                    f"another deployment of {self._name} is being prepared", "wait for it"
                ) from None
            return self._proposed(first=creates)

    def withdraw(self) -> None:
        """Take back the change set, and the empty stack that it was for."""
        with explained("taking the change back"):
            self._clear(force=True)
            state = self.state()
            if state is not None and state.status in FRESH and not self.resources():
                self._api.delete_stack(StackName=self._name)

    def carry_out(self) -> State:
        """Carry the change set out, telling what happens; raises `Failure` if it fails."""
        from botocore.exceptions import ClientError

        since = self._newest_event(self._name)
        with explained("carrying the change out"):
            try:
                self._api.execute_change_set(StackName=self._name, ChangeSetName=CHANGE_SET)
            except ClientError as error:
                if code_of(error) not in ("ChangeSetNotFound", "InvalidChangeSetStatus"):
                    self._clear(force=True)
                    raise
                raise Failure(
                    f"another deployment of {self._name} was faster", "'muster status' shows it"
                ) from None
        state = self.state()
        assert state is not None  # noqa: S101 - it has just been changed
        return self._wait(state, since=since, good=("CREATE_COMPLETE", "UPDATE_COMPLETE"))

    def delete(self, *, retain: tuple[str, ...] = ()) -> None:
        """Delete the stack, telling what happens; *retain* is what could not be deleted."""
        state = self.state()
        if state is not None:
            self._delete(state, retain=retain)

    # --- waiting ----------------------------------------------------------------

    def _delete(self, state: State, *, retain: tuple[str, ...] = ()) -> None:
        more = {"RetainResources": list(retain)} if retain else {}
        since = self._newest_event(state.id)
        with explained("deleting the stack"):
            self._api.delete_stack(StackName=self._name, **more)
        self._wait(state, since=since, good=("DELETE_COMPLETE",))

    def _wait(self, state: State, *, since: str, good: tuple[str, ...]) -> State:
        """Wait for the stack, and say what happens to its resources as it happens.

        *since* is the newest event of before: clocks differ, the order of events does not.
        """
        told: set[str] = set()
        first_reason = ""
        silence, pauses = Silence(output.watched()), _pauses()
        end = time.monotonic() + LONGEST_S
        try:
            while True:
                now = self._look(state)
                for event in self._events(state, since, told):
                    first_reason = first_reason or failure(event)
                    silence.note(event)
                    if shown := line(event, self._name):
                        silence.broken()
                        say(shown)
                if not now.status.endswith("_IN_PROGRESS"):
                    break
                if time.monotonic() > end:
                    raise Failure(f"{self._name} takes longer than an hour", "see 'muster status'")
                silence.keep()
                self._pause(next(pauses))
        except KeyboardInterrupt:
            say("AWS goes on with it; 'muster status' shows how far it is, 'muster deploy' repeats")
            raise
        if now.status not in good:
            reason = self._validated() if is_early(first_reason or now.reason) else ""
            reason = reason or first_reason or now.reason
            raise Failure(
                f"{self._name} is {now.status}: {reason or 'no reason given'}",
                way_out(now.status, reason, first=now.status in FAILED_FIRST),
            )
        return now

    def _look(self, state: State) -> State:
        from botocore.exceptions import ClientError

        with explained("waiting for the stack"):
            try:
                return _state(self._api.describe_stacks(StackName=state.id)["Stacks"][0])
            except ClientError as error:
                if code_of(error) != "ValidationError":
                    raise
        return State(state.id, "DELETE_COMPLETE", "", {}, {}, None)

    def _newest_event(self, stack: str) -> str:
        """Return the newest event that is there."""
        with suppress(Failure), explained():
            events = self._api.describe_stack_events(StackName=stack)["StackEvents"]
            return str(events[0]["EventId"]) if events else ""
        return ""

    def _events(self, state: State, since: str, told: set[str]) -> Iterator[Mapping[str, Any]]:
        """Give the events that have not been told yet, the oldest first."""
        fresh: list[Mapping[str, Any]] = []
        with suppress(Failure), explained():
            pages = self._api.get_paginator("describe_stack_events").paginate(StackName=state.id)
            for event in (event for page in pages for event in page["StackEvents"]):
                if event["EventId"] == since or event["EventId"] in told:
                    break
                fresh.append(event)
        told.update(event["EventId"] for event in fresh)
        yield from reversed(fresh)

    def _validated(self, **of: str) -> str:
        """Return what AWS found before it began; only this call tells it."""
        with suppress(Failure), explained():
            answer = self._api.describe_events(
                **(of or {"StackName": self._name}), Filters={"FailedEvents": True}
            )
            found = [
                f"{event.get('LogicalResourceId', '')}: {event['ValidationStatusReason']}"
                for event in answer.get("OperationEvents", ())
                if event.get("ValidationStatusReason")
            ]
            return "; ".join(dict.fromkeys(found))
        return ""

    # --- change sets --------------------------------------------------------------

    def _proposed(self, *, first: bool) -> list[Change] | None:
        end, pauses = time.monotonic() + LONGEST_S, _pauses()
        while True:
            described = self._described()
            status = described["Status"]
            if status == "CREATE_COMPLETE":
                return self._all_changes(described)
            if status == "FAILED":
                reason = described.get("StatusReason", "")
                if is_early(reason):
                    named = {"ChangeSetName": described.get("ChangeSetId", CHANGE_SET)}
                    reason = self._validated(**named) or reason
                self._clear(force=True)
                if "didn't contain changes" in reason or "No updates are to be" in reason:
                    return None
                raise Failure(
                    f"AWS refuses the change: {reason}", way_out(status, reason, first=first)
                )
            if time.monotonic() > end:
                raise Failure("AWS does not finish preparing the change", "try again")
            self._pause(next(pauses))

    def _all_changes(self, described: Mapping[str, Any]) -> list[Change]:
        changes = list(described.get("Changes", ()))
        while token := described.get("NextToken"):
            described = self._api.describe_change_set(
                StackName=self._name, ChangeSetName=CHANGE_SET, NextToken=token
            )
            changes += described.get("Changes", ())
        return from_change_set(changes)

    def _described(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._api.describe_change_set(
            StackName=self._name, ChangeSetName=CHANGE_SET
        )
        return found

    def _waiting(self) -> Mapping[str, Any] | None:
        """Return the change set that is there, if one is."""
        from botocore.exceptions import ClientError

        with explained("looking for other deployments"):
            try:
                return self._described()
            except ClientError as error:
                if code_of(error) in ("ChangeSetNotFound", "ValidationError"):
                    return None
                raise

    def _prepared_s(self) -> float | None:
        """Return how long a change set has been waiting that still keeps others away."""
        described = self._waiting()
        if described is None:
            return None
        if described.get("ExecutionStatus") not in ("AVAILABLE", "UNAVAILABLE"):
            return None
        if described.get("Status") == "FAILED":
            return None
        created: datetime = described["CreationTime"]
        now = self._clock() if self._clock else aws_time(described)
        waiting_s = now - created.replace(tzinfo=created.tzinfo or UTC).timestamp()
        return waiting_s if waiting_s < BUSY_S else None

    def _clear(self, *, force: bool = False) -> None:
        """Delete the change set, if it is not one that keeps others away."""
        if self._waiting() is not None and (force or self._prepared_s() is None):
            self._api.delete_change_set(StackName=self._name, ChangeSetName=CHANGE_SET)


def _state(found: Mapping[str, Any]) -> State:
    return State(
        found["StackId"],
        found["StackStatus"],
        found.get("StackStatusReason", ""),
        {p["ParameterKey"]: p.get("ParameterValue", "") for p in found.get("Parameters", ())},
        {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", ())},
        found.get("LastUpdatedTime") or found.get("CreationTime"),
    )


def aws_time(answer: Mapping[str, Any]) -> float:
    """Return when AWS answered, by its own clock."""
    told = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return parsedate_to_datetime(told).timestamp()
    except ValueError:
        return time.time()


def _pauses() -> Iterator[float]:
    pause = SOON_S
    while True:
        yield pause
        pause = min(POLL_S, pause * 1.5)


__all__ = ["BUSY_S", "CHANGE_SET", "Stacks", "State"]
