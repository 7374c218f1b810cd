"""The three tables in DynamoDB: one request a verb, no Scan, no index, no transaction.

`expires_at` is the tables' TTL attribute. A counter keeps its total in `n` and has
no `body`; an empty body is left out.
"""

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from chalicelib.store import STAMP_BYTES, Item, Page, Stores, TableNames, Unavailable, cut, stamp

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from chalicelib.store.dynamodb_http import SignedClient

__all__ = ["DynamoStore", "Meter", "create_tables", "open_client", "open_dynamodb"]

Meter = Callable[[str, float], None]
_PUT_CHUNK = 25
_GET_CHUNK = 100
_PAUSES_S = (0.05, 0.1, 0.2, 0.4)
# Of several callers that find a counter expired, the restart's condition lets one through:
# the others go round, find it live, and add to it.
_ADD_STEPS = (
    (
        "SET expires_at = :until ADD n :amount REMOVE body",
        "attribute_not_exists(pk) OR expires_at > :now",
    ),
    ("SET expires_at = :until, n = :amount REMOVE body", "expires_at <= :now"),
)
_ADD_TRIES = 10
_THROTTLED = {
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
}


class _ConditionFailed(Exception):
    """What a conditional write asked for was not so."""


class DynamoStore:
    """One table; its verbs are those of `Store`."""

    def __init__(
        self,
        client: "DynamoDBClient | SignedClient",
        table: str,
        *,
        meter: Meter | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client, self._table = client, table
        self._meter, self._pause = meter, pause

    def put(self, *items: Item) -> None:
        if len(items) == 1:
            self._call("put", self._client.put_item, Item=_attributes(items[0]))
            return
        latest = {(item.pk, item.sk): item for item in items}
        requests = [{"PutRequest": {"Item": _attributes(item)}} for item in latest.values()]
        batches = ({self._table: chunk} for chunk in _chunks(requests, _PUT_CHUNK))
        for _ in self._batch("put", self._client.batch_write_item, batches, "UnprocessedItems"):
            pass

    def put_new(self, item: Item, *, now: int) -> bool:
        try:
            self._call(
                "put_new",
                self._client.put_item,
                Item=_attributes(item),
                ConditionExpression="attribute_not_exists(pk) OR expires_at <= :now",
                ExpressionAttributeValues={":now": _number(now)},
            )
        except _ConditionFailed:
            return False
        return True

    def put_later(self, item: Item, *, now: int) -> int | None:
        try:
            self._call(
                "put_later",
                self._client.put_item,
                Item=_attributes(item),
                # Binaries compare byte by byte, so what begins with a stamp is below a later one.
                ConditionExpression="attribute_not_exists(body) OR expires_at <= :now "
                "OR body < :stamp",
                ExpressionAttributeValues={
                    ":now": _number(now),
                    ":stamp": {"B": item.body[:STAMP_BYTES]},
                },
            )
        except _ConditionFailed:
            kept = self.get(item.pk, item.sk, now=now)
            return stamp(kept)[0] if kept else stamp(item)[0]
        return None

    def get(self, pk: str, sk: str, *, now: int) -> Item | None:
        reply = self._call("get", self._client.get_item, Key=_key(pk, sk), ConsistentRead=True)
        item = _item(reply["Item"]) if "Item" in reply else None
        return item if item and item.expires_at > now else None

    def known(self, pk: str, sks: Collection[str], *, now: int) -> set[str]:
        wanted = {"ConsistentRead": True, "ProjectionExpression": "sk, expires_at"}
        chunks = _chunks([_key(pk, sk) for sk in set(sks)], _GET_CHUNK)
        batches = ({self._table: {**wanted, "Keys": chunk}} for chunk in chunks)
        replies = self._batch("known", self._client.batch_get_item, batches, "UnprocessedKeys")
        found = (item for reply in replies for item in reply["Responses"].get(self._table, ()))
        return {item["sk"]["S"] for item in found if int(item["expires_at"]["N"]) > now}

    def newest(self, pk: str, *, limit: int, now: int) -> Page:
        values = {":pk": {"S": pk}}
        return cut(self._live("newest", "pk = :pk", values, limit + 1, now, upwards=False), limit)

    def after(self, pk: str, sk: str, *, limit: int, now: int) -> Page:
        condition, values = "pk = :pk", {":pk": {"S": pk}}
        if sk:
            condition, values = "pk = :pk AND sk > :sk", values | {":sk": {"S": sk}}
        return cut(self._live("after", condition, values, limit + 1, now, upwards=True), limit)

    def delete(self, pk: str, sk: str, *, now: int, body: bytes | None = None) -> bool:
        only: dict[str, Any] = {}
        if body:
            only["ConditionExpression"] = "body = :body"
            only["ExpressionAttributeValues"] = {":body": {"B": body}}
        elif body is not None:
            only["ConditionExpression"] = "attribute_not_exists(body) AND attribute_not_exists(n)"
        delete = self._client.delete_item
        try:
            reply = self._call("delete", delete, Key=_key(pk, sk), ReturnValues="ALL_OLD", **only)
        except _ConditionFailed:
            return False
        return "Attributes" in reply and _item(reply["Attributes"]).expires_at > now

    def add(self, pk: str, sk: str, amount: int, *, expires_at: int, now: int) -> int:
        values = {
            ":amount": _number(amount),
            ":until": _number(expires_at),
            ":now": _number(now),
        }
        for expression, condition in itertools.islice(itertools.cycle(_ADD_STEPS), _ADD_TRIES):
            try:
                reply = self._call(
                    "add",
                    self._client.update_item,
                    Key=_key(pk, sk),
                    UpdateExpression=expression,
                    ConditionExpression=condition,
                    ExpressionAttributeValues=values,
                    ReturnValues="ALL_NEW",
                )
            except _ConditionFailed:
                continue
            return int(reply["Attributes"]["n"]["N"])
        raise Unavailable("the counter expires as fast as it is restarted")

    def _live(
        self,
        verb: str,
        condition: str,
        values: Mapping[str, Any],
        at_once: int,
        now: int,
        *,
        upwards: bool,
    ) -> Iterator[Item]:
        """Read a partition as far as the items are asked for, in growing steps of at most 1 MB."""
        more: dict[str, Any] = {}
        while True:
            reply = self._call(
                verb,
                self._client.query,
                KeyConditionExpression=condition,
                FilterExpression="expires_at > :now",
                ExpressionAttributeValues={**values, ":now": _number(now)},
                ConsistentRead=True,
                ScanIndexForward=upwards,
                Limit=at_once,
                **more,
            )
            yield from map(_item, reply["Items"])
            if "LastEvaluatedKey" not in reply:
                return
            more = {"ExclusiveStartKey": reply["LastEvaluatedKey"]}
            at_once *= 2

    def _batch(
        self, verb: str, operation: Callable[..., Any], batches: Iterable[Any], left: str
    ) -> Iterator[Mapping[str, Any]]:
        """Ask for each batch, and again for what was left of it, until nothing is."""
        for batch in batches:
            rest = batch
            for pause_s in (*_PAUSES_S, None):
                reply = self._request(verb, operation, RequestItems=rest)
                yield reply
                rest = reply.get(left)
                if not rest:
                    break
                if pause_s is None:
                    raise Unavailable("throttled: some of a batch was left over")
                self._pause(pause_s)

    def _call(
        self, verb: str, operation: Callable[..., Any], **arguments: Any
    ) -> Mapping[str, Any]:
        return self._request(verb, operation, TableName=self._table, **arguments)

    def _request(
        self, verb: str, operation: Callable[..., Any], **arguments: Any
    ) -> Mapping[str, Any]:
        if self._meter:
            arguments["ReturnConsumedCapacity"] = "TOTAL"
        try:
            reply: Mapping[str, Any] = operation(**arguments)
        except Exception as error:
            meaning = _meaning(error)
            if meaning is None:
                raise
            if self._meter and isinstance(meaning, _ConditionFailed):
                self._meter(verb, 1.0)  # not reported, but at least this much is charged
            raise meaning from error
        if self._meter:
            used = reply["ConsumedCapacity"]
            for one in used if isinstance(used, list) else [used]:
                self._meter(verb, one["CapacityUnits"])
        return reply


def open_client(
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    connect_s: float = 1,
    read_s: float = 3,
    attempts: int = 3,
) -> "DynamoDBClient":
    """Make a client that gives up soon enough for a caller who waits."""
    import botocore.config
    import botocore.session

    config = botocore.config.Config(
        connect_timeout=connect_s,
        read_timeout=read_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        parameter_validation=False,
        tcp_keepalive=True,
    )
    session = botocore.session.Session()
    client = session.create_client(
        "dynamodb", region_name=region, endpoint_url=endpoint_url, config=config
    )
    client.meta.events.register("response-received.dynamodb", _require_whole, unique_id="muster")
    return cast("DynamoDBClient", client)


def open_dynamodb(
    *,
    tables: TableNames,
    client: "DynamoDBClient | SignedClient | None" = None,
    endpoint_url: str | None = None,
    region: str | None = None,
    meter: Meter | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Stores:
    """Use *tables* through *client*, or one made here.

    *meter* is told the capacity units of each request and the verb that made it.
    """
    client = client or open_client(endpoint_url=endpoint_url, region=region)
    return Stores(*(DynamoStore(client, name, meter=meter, pause=pause) for name in tables))


def create_tables(client: "DynamoDBClient", tables: TableNames) -> None:
    """Create on-demand tables for tests and local use; a deployment's template adds the TTL."""
    for name in tables:
        client.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
        )
    for name in tables:
        client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})


def _require_whole(response_dict: Mapping[str, Any] | None, **_: Any) -> None:
    """Refuse an answer that was broken off: botocore takes it for an empty one, "no such item"."""
    if response_dict and response_dict["status_code"] == 200:
        body, said = response_dict["body"], response_dict["headers"].get("Content-Length", 0)
        if len(body) < int(said) or body[:1] != b"{" or body[-1:] != b"}":
            raise Unavailable("an answer was broken off")


def _meaning(error: Exception) -> Exception | None:
    """Say in the store's terms what a client raised, if it can be said there."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        code, about = response["Error"]["Code"], response["ResponseMetadata"]
        if code == "ConditionalCheckFailedException":
            # After a retry it may be our own first attempt that stands in the way.
            retried = about.get("RetryAttempts", 0) > 0
            return Unavailable("a repeated write was refused") if retried else _ConditionFailed()
        if code in _THROTTLED or about["HTTPStatusCode"] >= 500:
            return Unavailable(code)
    elif type(error).__module__.startswith("botocore."):
        from botocore import exceptions, parsers

        if isinstance(
            error,
            exceptions.HTTPClientError | exceptions.ConnectionError | parsers.ResponseParserError,
        ):
            return Unavailable(type(error).__name__)
    return None


def _chunks(things: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(things)
    while chunk := list(itertools.islice(rest, size)):
        yield chunk


def _number(value: int) -> dict[str, str]:
    return {"N": str(value)}


def _key(pk: str, sk: str) -> dict[str, dict[str, str]]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _attributes(item: Item) -> dict[str, Any]:
    attributes: dict[str, Any] = {**_key(item.pk, item.sk), "expires_at": _number(item.expires_at)}
    return {**attributes, "body": {"B": item.body}} if item.body else attributes


def _item(attributes: Mapping[str, Any]) -> Item:
    if "n" in attributes:
        body = attributes["n"]["N"].encode()
    else:
        body = attributes["body"]["B"] if "body" in attributes else b""
    pk, sk, expires_at = attributes["pk"], attributes["sk"], attributes["expires_at"]
    return Item(pk["S"], sk["S"], int(expires_at["N"]), body)
