"""DynamoDB over the standard library: what a cold start needs of an SDK, and no more (ADR 0013).

Its operations are called and answer as botocore's are, so that the engine uses either.
Importing botocore takes longer than everything else of a cold start together.
"""

import hmac
import http.client
import json
import os
import select
import time
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from chalicelib.store import Unavailable

if TYPE_CHECKING:
    import ssl
    from email.message import Message

__all__ = [
    "Credentials",
    "DynamoError",
    "JsonClient",
    "SignedClient",
    "from_environment",
    "open_at",
    "sign",
]

PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
IDLE_CONNECTIONS = 16
REPEATED = frozenset(
    {
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "RequestTimeoutException",
        "ThrottlingException",
    }
)
UNUSUAL = (
    *("AWS_PROFILE", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"),
    *("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"),
)
"""Wishes that only botocore knows how to meet."""


_Client = TypeVar("_Client", bound="JsonClient")


class Credentials(NamedTuple):
    """Who asks; Lambda's are short-lived and come with a token."""

    access_key: str
    secret_key: str
    token: str = ""


class DynamoError(Exception):
    """The service refused; `response` is what botocore's `ClientError` has under that name."""

    def __init__(self, code: str, message: str, *, status: int, retries: int) -> None:
        super().__init__(f"{code}: {message}")
        self.passing = status >= 500 or code in REPEATED
        self.response: dict[str, Any] = {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status, "RetryAttempts": retries},
        }


class JsonClient:
    """Asks one of AWS's JSON services over kept connections; threads may share it."""

    service, target, content_type = "", "", "application/x-amz-json-1.0"
    """What the service is called in signatures and in its address, and in its operations."""

    def __init__(
        self,
        endpoint: str,
        region: str,
        credentials: Credentials,
        *,
        connect_s: float = 1,
        read_s: float = 3,
        attempts: int = 3,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        at = urlsplit(endpoint)
        self._idle: list[http.client.HTTPConnection] = []
        self._secure, self._host = at.scheme == "https", at.netloc
        self._region, self._credentials = region, credentials
        self._connect_s, self._read_s, self._attempts = connect_s, read_s, attempts
        self._clock, self._pause = clock, pause
        self._tls: ssl.SSLContext | None = None

    def close(self) -> None:
        """End the connections that are idle; the client may still be used."""
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        self.close()

    def _ask(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Ask, and again after what passes by itself, with pauses as AWS advises them."""
        body = json.dumps(arguments, separators=(",", ":"), default=_base64).encode()
        for retries in range(self._attempts):
            try:
                return self._once(operation, body, retries)
            except DynamoError as error:
                if not error.passing or retries + 1 == self._attempts:
                    raise
            except (OSError, http.client.HTTPException, ValueError) as error:
                if retries + 1 == self._attempts:
                    raise Unavailable(type(error).__name__) from error
            longest = min(PAUSE_S * 2**retries, LONGEST_PAUSE_S)
            self._pause(longest * int.from_bytes(os.urandom(2)) / 65536)
        raise Unavailable("no attempt was allowed")

    def _once(self, operation: str, body: bytes, retries: int) -> dict[str, Any]:
        status, said, answer = self._exchange(operation, body)
        if status == 200:
            if "x-amz-crc32" in said and int(said["x-amz-crc32"]) != zlib.crc32(answer):
                raise ValueError("the answer is not what its checksum says")
            found: dict[str, Any] = json.loads(answer or b"{}", object_hook=_bytes)
            return found
        try:
            fault = json.loads(answer)
            code = fault["__type"].rpartition("#")[2]
        except (ValueError, LookupError, TypeError, AttributeError):
            fault, code = {}, str(status)
        message = fault.get("message") or fault.get("Message") or ""
        raise DynamoError(code, message, status=status, retries=retries)

    def _exchange(self, operation: str, body: bytes) -> tuple[int, "Message[str, str]", bytes]:
        """Send a request and read the whole answer; http.client notices one that is cut off."""
        headers = {
            "Content-Type": self.content_type,
            "Host": self._host,
            "X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock())),
            "X-Amz-Target": f"{self.target}.{operation}",
        }
        asked = {"region": self._region, "service": self.service}
        headers |= sign(self._credentials, headers, body, **asked)
        connection = self._connected()
        try:
            connection.request("POST", "/", body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except BaseException:
            connection.close()
            raise
        if answer.will_close or len(self._idle) >= IDLE_CONNECTIONS:
            connection.close()
        else:
            self._idle.append(connection)
        return answer.status, answer.headers, content

    def _connected(self) -> http.client.HTTPConnection:
        """Take a kept connection whose other side is silent, as it should be, or a new one."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._new()
            if not _readable(connection):
                return connection
            connection.close()

    def _new(self) -> http.client.HTTPConnection:
        connection = (
            http.client.HTTPSConnection(self._host, timeout=self._connect_s, context=self._trust())
            if self._secure
            else http.client.HTTPConnection(self._host, timeout=self._connect_s)
        )
        connection.connect()
        connection.sock.settimeout(self._read_s)
        return connection

    def _trust(self) -> "ssl.SSLContext":
        if self._tls is None:
            import ssl

            self._tls = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)
        return self._tls


class SignedClient(JsonClient):
    """Asks DynamoDB."""

    service, target = "dynamodb", "DynamoDB_20120810"

    def put_item(self, **arguments: Any) -> dict[str, Any]:
        return self._ask("PutItem", arguments)

    def get_item(self, **arguments: Any) -> dict[str, Any]:
        return self._ask("GetItem", arguments)

    def update_item(self, **arguments: Any) -> dict[str, Any]:
        return self._ask("UpdateItem", arguments)

    def delete_item(self, **arguments: Any) -> dict[str, Any]:
        return self._ask("DeleteItem", arguments)

    def query(self, **arguments: Any) -> dict[str, Any]:
        return self._ask("Query", arguments)

    def batch_get_item(self, **arguments: Any) -> dict[str, Any]:
        return self._ask("BatchGetItem", arguments)

    def batch_write_item(self, **arguments: Any) -> dict[str, Any]:
        return self._ask("BatchWriteItem", arguments)


def from_environment(environment: Mapping[str, str], **waits: Any) -> SignedClient | None:
    """Make a client of DynamoDB if the environment says who asks and where (`open_at`)."""
    return open_at(SignedClient, environment, "DYNAMODB", **waits)


def open_at(
    kind: type[_Client], environment: Mapping[str, str], named: str, **waits: Any
) -> _Client | None:
    """Make a client if the environment says who asks and where, as Lambda's does.

    Profiles, roles, proxies and the like are botocore's to understand: then there is none.
    *named* is how AWS's variables name the service whose address may be another.
    """
    found = environment.get
    region = found("AWS_REGION") or found("AWS_DEFAULT_REGION")
    access_key, secret_key = found("AWS_ACCESS_KEY_ID"), found("AWS_SECRET_ACCESS_KEY")
    if not (region and access_key and secret_key) or any(map(found, UNUSUAL)):
        return None
    suffix = ".cn" if region.startswith("cn-") else ""
    endpoint = (
        found(f"AWS_ENDPOINT_URL_{named}")
        or found("AWS_ENDPOINT_URL")
        or f"https://{kind.service}.{region}.amazonaws.com{suffix}"
    )
    credentials = Credentials(access_key, secret_key, found("AWS_SESSION_TOKEN") or "")
    return kind(endpoint, region, credentials, **waits)


def sign(
    credentials: Credentials,
    headers: Mapping[str, str],
    body: bytes,
    *,
    region: str,
    service: str,
) -> dict[str, str]:
    """Return the headers that sign a POST to "/", by AWS Signature Version 4.

    All of *headers* are signed; `X-Amz-Date` among them says when.
    """
    token = {"X-Amz-Security-Token": credentials.token} if credentials.token else {}
    named = sorted((name.lower(), text) for name, text in {**headers, **token}.items())
    names = ";".join(name for name, _ in named)
    lines = "".join(f"{name}:{text}\n" for name, text in named)
    canonical = f"POST\n/\n\n{lines}\n{names}\n{sha256(body).hexdigest()}"
    date = headers["X-Amz-Date"]
    scope = f"{date[:8]}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    who = f"Credential={credentials.access_key}/{scope}"
    authorization = f"AWS4-HMAC-SHA256 {who}, SignedHeaders={names}, Signature={signature}"
    return {**token, "Authorization": authorization}


def _readable(connection: http.client.HTTPConnection) -> bool:
    """Say whether something has come that nobody asked for: mostly that the other side hung up."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _base64(value: object) -> str:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is nothing that DynamoDB keeps")


def _bytes(found: dict[str, Any]) -> dict[str, Any]:
    """Read a binary attribute; no key of ours is called "B"."""
    return {"B": b64decode(found["B"])} if "B" in found else found
