"""What the record on UDP says of our networks is still so, and its measurement runs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.local import ROOT

pytestmark = pytest.mark.slow


def measured(*pairs: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tools.bench.punching", "--runs=1", "--delay-ms=5"]
    done = subprocess.run(
        [*command, "--pairs", *pairs], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["results"]
    return found


@pytest.mark.parametrize("pair", ["cone-cone", "rejecting-rejecting", "public-symmetric"])
def test_a_hole_is_punched_by_udp_and_by_tcp_alike(pair: str) -> None:
    found = measured(pair)[pair]

    assert (found["udp"]["opened"], found["tcp"]["opened"]) == (1, 1)
    assert found["udp"]["ms"]["most"] > 5


def test_no_hole_leads_to_a_port_that_is_another_for_each_destination() -> None:
    found = measured("cone-symmetric")["cone-symmetric"]

    assert (found["udp"]["opened"], found["tcp"]["opened"]) == (0, 0)
