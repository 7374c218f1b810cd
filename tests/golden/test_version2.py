"""The golden file of version 2: made as it stands, and the vectors of an independent script.

`version2.json` is read by other languages too; docs/protocol2.md says what each subject checks.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from capsules import keys as ed25519
from capsules.errors import Refused
from muster.errors import BadValue
from muster.invites import Invite
from muster.keys import label
from tests.golden import make_version2
from tests.golden.make_capsules import render

CASES: list[dict[str, Any]] = json.loads(make_version2.FILE.read_text("utf-8"))
INDEPENDENT: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("version2_independent.json").read_text("utf-8")
)

FIELD, D = 2**255 - 19, -121665 * pow(121666, -1, 2**255 - 19)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_case_is_answered_as_other_languages_answer_it(case: dict[str, Any]) -> None:
    check = make_version2.SUBJECTS[case["name"].partition(":")[0]]
    if case["expect"] == "ok":
        assert check(case["input"]) == case["output"]
        return

    with pytest.raises(Refused) as refused:
        check(case["input"])

    assert refused.value.reason == case["expect"]


@pytest.mark.parametrize("case", INDEPENDENT, ids=lambda case: case["name"])
def test_what_an_independent_script_made_is_read_so(case: dict[str, Any]) -> None:
    assert make_version2.SUBJECTS[case["name"].partition(":")[0]](case["input"]) == case["output"]


def test_the_file_is_what_the_code_makes(rewrite_golden: bool) -> None:
    made = render(make_version2.cases())
    if rewrite_golden:
        make_version2.FILE.write_text(made, encoding="utf-8")

    assert make_version2.FILE.read_text("utf-8") == made


def test_at_least_half_of_what_is_checked_is_to_be_refused() -> None:
    expected = Counter(case["expect"] == "ok" for case in CASES)

    assert expected[False] >= expected[True] > 0
    assert {case["name"].partition(":")[0] for case in CASES} == set(make_version2.SUBJECTS)


def test_the_points_of_small_order_are_the_multiples_of_one_of_order_eight() -> None:
    y = int.from_bytes(make_version2.SMALL_ORDER["order eight"], "little")
    (start, *_) = _on_curve(y)
    points = [start]
    while points[-1] != (0, 1):
        points.append(_plus(points[-1], start))

    assert len(points) == 8
    assert {y for _, y in points} == ed25519._SMALL_ORDER


def test_an_invite_of_more_services_than_one_may_have_is_refused_by_name() -> None:
    case = next(case for case in CASES if case["name"] == "invite: nine services")

    with pytest.raises(BadValue, match="services are not a list of at most 8"):
        Invite.parse(case["input"]["text"])


def test_every_label_is_one_line_of_its_own() -> None:
    assert label("call") == b"muster2 call\n"


def _on_curve(y: int) -> set[tuple[int, int]]:
    """Return the points of edwards25519 with this y (RFC 8032, 5.1)."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, FIELD) % FIELD
    x = pow(square, (FIELD + 3) // 8, FIELD)
    if x * x % FIELD != square:
        x = x * pow(2, (FIELD - 1) // 4, FIELD) % FIELD
    return {(x, y), (-x % FIELD, y)} if x * x % FIELD == square else set()


def _plus(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    (a, b), (c, d) = one, other
    mixed = D * a * b * c * d % FIELD
    x = (a * d + b * c) * pow(1 + mixed, -1, FIELD) % FIELD
    y = (b * d + a * c) * pow(1 - mixed, -1, FIELD) % FIELD
    return x, y
