"""Where networks cannot be made, these tests are reported as not run, and why."""

from pathlib import Path

import pytest

from tests.networks.namespaces import why_not

HERE = Path(__file__).parent
WHY_NOT = why_not()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if WHY_NOT:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=f"needs networks: {WHY_NOT}"))
