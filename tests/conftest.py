"""What every suite shares: hypothesis profiles, dynalite, and no way to a real AWS account."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import dynalite

# quick says the same thing twice, so that a red run is the change's fault; deep searches.
settings.register_profile(
    "quick", max_examples=40, stateful_step_count=20, deadline=None, derandomize=True
)
settings.register_profile(
    "deep",
    max_examples=3000,
    stateful_step_count=60,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# A run in the background ignores interrupts, and all that it starts would: a command that is told
# to end before it listens to them would go on.
signal.signal(signal.SIGINT, signal.default_int_handler)

ON_AWS = "MUSTER_TEST_AWS"

if ON_AWS not in os.environ:
    os.environ.update(
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY="testing",
        AWS_SESSION_TOKEN="testing",
        AWS_DEFAULT_REGION="eu-central-1",
        AWS_EC2_METADATA_DISABLED="true",
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    )
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden", action="store_true", help="write the golden files instead of reading"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if ON_AWS in os.environ:
        return
    for item in items:
        if item.get_closest_marker("aws"):
            item.add_marker(pytest.mark.skip(reason=f"needs an AWS account and {ON_AWS}=1"))


@pytest.fixture(scope="session")
def rewrite_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written, not compared."""
    return bool(request.config.getoption("--rewrite-golden"))


@pytest.fixture(scope="session")
def dynalite_url() -> Iterator[str]:
    """Where dynalite listens; one for the whole run, so take table names of your own."""
    with dynalite.running() as url:
        yield url
