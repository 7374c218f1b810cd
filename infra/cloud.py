"""The cloud: one AWS account in one region, what our things are called in it, and its refusals.

Everything that can go wrong with an account becomes a `Failure` with a way out here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from chalicelib.store import Stores, TableNames, Unavailable
from muster.cli.output import Failure, Misuse

APP = "muster"
PARTITION = "aws"
"""China and GovCloud lack services that the template needs, and would refuse it late."""

STAGE = re.compile(r"[a-z][a-z0-9]{0,11}")

_DENIED = re.compile(r"not authorized to perform: ?([A-Za-z0-9-]+:[A-Za-z0-9*]+)")

_STALE = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
_UNKNOWN = (
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "AuthFailure",
    "InvalidAccessKeyId",
)
_FORBIDDEN = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403", "Forbidden")
_BUSY = ("Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded")
_FULL = (
    "LimitExceededException",
    "LimitExceeded",
    "TooManyBuckets",
    "ServiceQuotaExceededException",
)

GET_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run 'aws configure sso' and name the "
    "profile with --profile"
)


@dataclass(frozen=True)
class Names:
    """What a deployment's things are called; the template says the same."""

    stage: str
    account: str
    region: str

    @property
    def stack(self) -> str:
        """The stack."""
        return f"{APP}-{self.stage}"

    @property
    def code(self) -> str:
        """The bucket of packed code."""
        return f"{self.stack}-code-{self.account}-{self.region}"

    @property
    def capsules(self) -> str:
        """The bucket of capsules, unless a parameter names it."""
        return f"{self.stack}-capsules-{self.account}-{self.region}"

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables."""
        return tuple(f"{self.stack}-{name}" for name in ("presence", "mail", "guard"))

    @property
    def publisher(self) -> str:
        """The function that publishes."""
        return f"{self.stack}-publish"

    @property
    def logs(self) -> tuple[str, ...]:
        """The log groups."""
        return tuple(f"/aws/lambda/{self.stack}-{name}" for name in ("service", "publish"))

    @property
    def keys(self) -> str:
        """The secret parameter that holds the publishing keys."""
        return f"/{APP}/{self.stage}/publishing-key"

    @property
    def edge(self) -> str:
        """The secret parameter that holds what CloudFront shows the service."""
        return f"/{APP}/{self.stage}/edge-secret"

    @property
    def tags(self) -> dict[str, str]:
        """The tags of everything."""
        return {"app": APP, "stage": self.stage}


@dataclass
class Cloud:
    """Clients of one account and region, opened when they are needed."""

    session: Any
    names: Names
    caller: str
    region_from: str = "--region"
    _clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """Return the client of an AWS service."""
        if service not in self._clients:
            self._clients[service] = _client(self.session, service)
        return self._clients[service]

    @property
    def region(self) -> str:
        """The region."""
        return self.names.region

    @cached_property
    def place(self) -> str:
        """Where this is, for people."""
        return f"account {self.names.account}, {self.names.region}"

    @property
    def told(self) -> str:
        """Where this is, who said so, and as whom."""
        return f"{self.place} (as {self.region_from} says), as {self.caller}"


def connect(stage: str, *, profile: str | None = None, region: str | None = None) -> Cloud:
    """Find credentials and region and ask AWS who that is; nothing is changed."""
    if not STAGE.fullmatch(stage):
        raise Misuse(
            f"'{stage}' is no stage", "a lower-case letter, then at most 11 letters or digits"
        )
    chosen, source = _region(profile, region)
    session = _session(profile, chosen)
    _check_region(session, chosen)
    with explained():
        if session.get_credentials() is None:
            raise Failure("there are no AWS credentials", GET_CREDENTIALS)
    identity = _identity(session, chosen)
    return Cloud(session, Names(stage, identity["Account"], chosen), identity["Arn"], source)


@contextmanager
def stores(cloud: Cloud) -> Iterator[Stores]:
    """Open a deployment's tables with the credentials of whoever asks."""
    from botocore.exceptions import ClientError

    from chalicelib.store.dynamodb import open_dynamodb

    names = TableNames(*cloud.names.tables)
    with explained("asking the tables"):
        try:
            yield open_dynamodb(tables=names, client=cloud.client("dynamodb"))
        except Unavailable as error:
            raise Failure(f"the tables did not answer in time: {error}", "try again") from None
        except ClientError as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
            raise Failure(
                f"there is no {cloud.names.stack} in {cloud.place}",
                "'muster deploy' makes one; --stage and --region choose another",
            ) from None


@contextmanager
def explained(doing: str = "") -> Iterator[None]:
    """Turn what AWS refuses, or the way to it, into a failure with a hint."""
    from boto3.exceptions import S3UploadFailedError
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        yield
    except exceptions.ClientError as error:
        raise explain(error, doing) from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise Failure("there are no AWS credentials", GET_CREDENTIALS) from None
    except (exceptions.CredentialRetrievalError, exceptions.SSOError) as error:
        raise Failure(f"the AWS credentials cannot be had: {error}", "log in again") from None
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        raise Failure(f"AWS is out of reach: {error}", "is this machine online?") from None
    except (exceptions.BotoCoreError, ResponseParserError, S3UploadFailedError) as error:
        raise Failure(f"{doing or 'asking AWS'}: {' '.join(str(error).split())}") from None


def explain(error: Any, doing: str = "") -> Failure:
    """Return the failure for what AWS answered."""
    code = code_of(error)
    said = str(error.response.get("Error", {}).get("Message", "")).strip()
    action = error.operation_name
    what = f"{doing}: " if doing else ""
    if code in _STALE:
        return Failure("the AWS credentials are past their time", "log in again")
    if code in _UNKNOWN or code == "SignatureDoesNotMatch":
        return Failure("AWS does not know these credentials", GET_CREDENTIALS)
    if code in _FORBIDDEN:
        found = _DENIED.search(said)
        missing = found[1] if found else action
        return Failure(
            f"{what}these credentials may not do {missing}",
            f"allow {missing} for them; packaging/deploy-policy.json has all that deploying needs",
        )
    if code in _BUSY:
        return Failure(f"{what}AWS asks to go slower", "wait a minute and try again")
    if code in _FULL:
        return Failure(
            f"{what}a quota of the account is full: {said or code}",
            "the Service Quotas page of the AWS console raises it",
        )
    return Failure(f"{what}AWS refused {action}: {said or code}")


def code_of(error: Any) -> str:
    """Return AWS's own name for an error, or nothing."""
    answer = getattr(error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))


def _region(profile: str | None, named: str | None) -> tuple[str, str]:
    """Return the region and who chose it.

    Every SDK but boto3 reads ``AWS_REGION``, and boto3 alone ``AWS_DEFAULT_REGION``.
    """
    given = [("--region", named or "")]
    given += [(name, os.environ.get(name, "")) for name in ("AWS_REGION", "AWS_DEFAULT_REGION")]
    for source, region in given:
        if region:
            return region, source
    region = _session(profile, None).region_name
    if not region:
        raise Misuse(
            "no region is chosen",
            "name one with --region or AWS_REGION, like --region eu-central-1",
        )
    return region, f"the profile {profile or os.environ.get('AWS_PROFILE') or 'default'}"


def _session(profile: str | None, region: str | None) -> Any:
    try:
        from boto3.session import Session
        from botocore.exceptions import ProfileNotFound
    except ImportError:
        raise Failure("deploying needs boto3", "'make setup' installs it") from None
    try:
        return Session(profile_name=profile, region_name=region)
    except ProfileNotFound:
        known = ", ".join(Session().available_profiles) or "none"
        raise Misuse(f"there is no AWS profile '{profile}'", f"there are: {known}") from None


def _check_region(session: Any, region: str) -> None:
    known = [
        name
        for partition in session.get_available_partitions()
        for name in session.get_available_regions("cloudformation", partition)
    ]
    if region not in known:
        from difflib import get_close_matches

        close = ", ".join(get_close_matches(region, known, 3)) or "one like eu-central-1"
        raise Misuse(f"AWS has no region '{region}'", f"did you mean {close}?")
    if session.get_partition_for_region(region) != PARTITION:
        raise Misuse(
            f"{region} is a partition of AWS of its own, where Muster was never run",
            "choose a region of the ordinary AWS, like --region eu-central-1",
        )


def _identity(session: Any, region: str) -> Any:
    from botocore.exceptions import ClientError

    with explained("asking who this is"):
        try:
            return _client(session, "sts").get_caller_identity()
        except ClientError as error:
            if code_of(error) not in (*_UNKNOWN, "RegionDisabledException"):
                raise
            # A region that the account has not enabled does not know its credentials.
            try:
                session.client("sts", region_name="us-east-1").get_caller_identity()
            except ClientError:
                raise error from None
    raise Failure(
        f"this account has not enabled {region}",
        "enable it on the account's page in the AWS console, or choose another --region",
    )


def _client(session: Any, service: str) -> Any:
    from botocore.config import Config

    config = Config(
        connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 5}
    )
    return session.client(service, config=config)
