"""Told: what AWS's functions are told by their variables beside the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from chalicelib import variables
from chalicelib.store import TableNames
from chalicelib.variables import WrongValue, matching, read_by

_table = matching(r"[A-Za-z0-9_.:/-]{3,1024}", "the name or ARN of a DynamoDB table")
_rule = matching(r"[A-Za-z0-9_.-]{1,64}", "the name of an EventBridge rule")


@dataclass(frozen=True, slots=True)
class Told:
    """Every variable of the functions that is not a setting; empty where a function has none."""

    store: str = read_by(matching(r"dynamodb|sqlite:.+", "'dynamodb' or 'sqlite:PATH'"), "dynamodb")
    table_presence: str = read_by(_table, "")
    table_mail: str = read_by(_table, "")
    table_guard: str = read_by(_table, "")
    rest_rate: int = 0
    socket_rate: int = 0
    table_read_units: int = 0
    table_write_units: int = 0
    greet_function: str = read_by(
        matching(r"[A-Za-z0-9:_-]{1,256}", "the name or ARN of a Lambda function"), ""
    )
    sweep_rule: str = read_by(_rule, "")
    publish_rule: str = read_by(_rule, "")
    edge_secret: str = read_by(variables.token, "", secret=True)
    capsule_bucket: str = read_by(
        matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "the name of an S3 bucket"), ""
    )
    capsule_keys_param: str = read_by(
        matching(r"[A-Za-z0-9_.:/-]{1,1024}", "the name of an SSM parameter"), ""
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read ``MUSTER_<FIELD>`` for each field; raises `WrongValue` for what does not fit."""
        told = cls(**variables.chosen(cls, environment))
        if not told.sqlite_path:
            told.tables  # noqa: B018 - it raises where one has no name
        return told

    @property
    def bounded(self) -> bool:
        """Whether the function knows what the gateway and the tables let through."""
        return all(
            (self.rest_rate, self.socket_rate, self.table_read_units, self.table_write_units)
        )

    @property
    def sqlite_path(self) -> str:
        """The file in place of the tables, to try the functions without AWS."""
        return self.store.partition(":")[2]

    @property
    def tables(self) -> TableNames:
        """What the tables are called."""
        found = TableNames(self.table_presence, self.table_mail, self.table_guard)
        for name, table in found._asdict().items():
            if not table:
                raise WrongValue(f"MUSTER_TABLE_{name.upper()} must name a table; it is not set")
        return found
