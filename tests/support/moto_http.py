"""Moto behind a port of this machine, for clients that it cannot patch."""

import contextlib
import logging
from collections.abc import Iterator

import boto3
from moto.server import ThreadedMotoServer


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Start moto on a free port, empty; give its URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        _load(url)
        yield url
    finally:
        server.stop()


def _load(url: str) -> None:
    """Let moto load its services now, which may take longer than our clients wait for AWS."""
    aws = boto3.session.Session(region_name="eu-central-1")
    aws.client("dynamodb", endpoint_url=url).list_tables()
    aws.client("s3", endpoint_url=url).list_buckets()
    aws.client("events", endpoint_url=url).list_rules()
    aws.client("ssm", endpoint_url=url).describe_parameters()
