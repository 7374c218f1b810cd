"""The AWS host as it is deployed, in front of each engine: nothing of ours is replaced."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from chalicelib.store.dynamodb import create_tables, open_client
from tests.support import gateway, moto_http, stores

ENGINES = ("sqlite", "moto", "dynalite")


@contextlib.contextmanager
def running(
    engine: str, *, directory: Path, dynalite_url: str = "", **settings: str
) -> Iterator[gateway.Gateway]:
    """Start a gateway and one machine; the environment says which store, as on Lambda.

    It is open, as most tests make circles up; `MUSTER_ACCESS=""` has it as it comes.
    """
    settings = {"MUSTER_ACCESS": "open"} | settings
    with contextlib.ExitStack() as stack:
        made, environment = stack.enter_context(gateway.running())
        stack.enter_context(environ(environment | settings))
        if engine == "sqlite":
            stack.enter_context(environ({"MUSTER_STORE": f"sqlite:{directory / 'muster.db'}"}))
        else:
            if engine == "moto":
                dynalite_url = stack.enter_context(moto_http.running())
            stack.enter_context(environ(dynamodb(dynalite_url)))
        made.start()
        yield made


def dynamodb(url: str) -> dict[str, str]:
    """Create three tables at *url*; return the variables that name them."""
    names = stores.fresh_names()
    create_tables(open_client(endpoint_url=url, region=gateway.REGION), names)
    tables = {f"MUSTER_TABLE_{key.upper()}": name for key, name in names._asdict().items()}
    return tables | {"AWS_ENDPOINT_URL_DYNAMODB": url}


@contextlib.contextmanager
def environ(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
