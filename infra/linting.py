"""Linting: the template held to CloudFormation's own rules, as written and as AWS expands it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cfnlint.api import lint
from cfnlint.config import ManualArgs

from infra import stack


def problems(template: Mapping[str, Any], folder: Path, *, region: str) -> list[str]:
    """Return what is wrong with a template before and after the SAM transform."""
    try:
        expanded = stack.transform(template, region=region)
    except Exception as error:
        return [f"SAM cannot transform it: {error}"]
    return [
        f"{when} the transform: {problem}"
        for when, text in (("before", template), ("after", expanded))
        for problem in _problems(text, region)
    ]


def _problems(template: Mapping[str, Any], region: str) -> list[str]:
    found = lint(stack.encode(template), config=ManualArgs(regions=[region]))
    return [" ".join(str(match).split()) for match in found]
