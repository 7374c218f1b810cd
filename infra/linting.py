"""Linting: the template held to CloudFormation's own rules, as written and as AWS expands it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cfnlint.api import lint
from cfnlint.config import ManualArgs

from infra import stack


def problems(template: Mapping[str, Any], *, region: str) -> list[str]:
    """Return what is wrong with a template before and after the SAM transform, errors first."""
    try:
        expanded = stack.transform(template, region=region)
    except Exception as error:
        return [f"E0000 SAM cannot transform it: {error}"]
    return sorted(
        f"{match.rule.id} {match.message} ({when} the transform)"
        for when, text in (("before", template), ("after", expanded))
        for match in lint(stack.encode(text), config=ManualArgs(regions=[region]))
    )
