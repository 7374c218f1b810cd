"""The golden files of signed metadata: made as they stand, by the schemas, read by JavaScript."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from referencing import Registry, Resource

from capsules import canonical
from capsules.errors import Reason
from tests.golden import make_capsules
from tests.support import javascript

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
SCHEMAS = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in (REPOSITORY / "capsules" / "schemas").glob("*.json")
}
REGISTRY: Registry[Any] = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values()
)
# What a schema cannot say: bytes, order of times, half surrogate pairs.
BEYOND_SCHEMAS = {
    "ticket: a signature that is not base64",
    "ticket: a signature in the URL alphabet",
    "ticket: a signature with half its padding",
    "ticket: expires when it begins",
    "ticket: expires before it begins",
    "ticket: a peerId of 257 bytes",
    "ticket: half a surrogate pair in peerId",
    "capsule: a signature that is not base64",
}


def read(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((HERE / name).read_text("utf-8"))
    return found


def fits(schema: str, value: Any) -> bool:
    return bool(Draft202012Validator(SCHEMAS[schema], registry=REGISTRY).is_valid(value))


@pytest.mark.parametrize("name", make_capsules.FILES)
def test_the_file_is_what_the_code_makes(name: str, rewrite_golden: bool) -> None:
    made = make_capsules.render(make_capsules.FILES[name]())
    if rewrite_golden:
        (HERE / name).write_text(made, encoding="utf-8")

    assert json.loads(made) == read(name)
    assert (HERE / name).read_text("utf-8") == made


@pytest.mark.parametrize("name", make_capsules.FILES)
def test_every_case_has_a_name_of_its_own_and_a_known_answer(name: str) -> None:
    cases = read(name)

    assert len({case["name"] for case in cases}) == len(cases)
    assert {case["expect"] for case in cases} <= {"ok", *Reason}


def test_every_refusal_has_a_case() -> None:
    files = (*make_capsules.FILES, "version2.json")
    seen = {case["expect"] for name in files for case in read(name)}

    # Two are of whoever fetches, one is of browsers: fetch.test.mjs, unsupported.test.mjs.
    assert set(Reason) - seen == {Reason.UNREACHABLE, Reason.TIMEOUT, Reason.UNSUPPORTED}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$id"] == f"urn:muster:schema:{name}"


@pytest.mark.parametrize("case", read("tickets.json"), ids=lambda case: case["name"])
def test_a_ticket_and_its_schema_agree(case: dict[str, Any]) -> None:
    well_formed = case["expect"] != Reason.MALFORMED or case["name"] in BEYOND_SCHEMAS

    assert fits("ticket", case["input"]["ticket"]) == well_formed


@pytest.mark.parametrize("case", read("capsules.json"), ids=lambda case: case["name"])
def test_a_capsule_and_its_schema_agree(case: dict[str, Any]) -> None:
    try:
        value = json.loads(case["input"]["capsule"])
    except ValueError:
        value = None
    bad = {Reason.MALFORMED, Reason.TOO_MANY_ENTRIES, Reason.UNSUPPORTED_ALGORITHM}
    well_formed = case["expect"] not in bad or case["name"] in BEYOND_SCHEMAS

    assert fits("capsule", value) == well_formed


@pytest.mark.parametrize(
    "case",
    [case for case in read("trust.json") if case["input"]["manifest"]],
    ids=lambda case: case["name"],
)
def test_a_manifest_that_is_believed_fits_its_schema(case: dict[str, Any]) -> None:
    try:
        value = json.loads(case["input"]["manifest"])
    except ValueError:
        value = None
    if case["expect"] == "ok":
        assert fits("manifest", value)
        assert all(fits("root", document) for document in value["roots"])
        assert fits("certificate", value["certificate"])
        assert value["revocations"] is None or fits("revocations", value["revocations"])
    broken = case["name"].startswith("trust: arbitrary content") and case["expect"] == "MALFORMED"
    if broken and not case["name"].endswith("times out of order"):
        assert not fits("manifest", value)


def test_what_we_sign_ourselves_is_rfc_8785() -> None:
    for case in read("trust.json"):
        if case["expect"] == "ok" and case["input"]["manifest"]:
            value = json.loads(case["input"]["manifest"])

            assert canonical.strict(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("file", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_javascript_says_the_same(file: str) -> None:
    ran = javascript.run(HERE / file)

    assert ran.cases
    assert ran.passed, ran.output
