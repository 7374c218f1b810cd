"""The table of verbs: a name, where the verb lives, what it is for, and what it needs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from muster.cli import output
from muster.cli.output import USAGE


@dataclass(frozen=True, slots=True)
class Part:
    """A part of Muster that a verb may need, and that an installed command may lack."""

    heading: str
    module: str
    what: str
    hint: str

    @property
    def installed(self) -> bool:
        """Whether it is there."""
        try:
            return find_spec(self.module) is not None
        except ModuleNotFoundError:
            return False


CLIENT = Part("for members and visitors", "muster.cli", "the command, which is", "")
SERVICE = Part(
    "for those who run a service or publish capsules (in a checkout)",
    "chalicelib.service",
    "the service, which is",
    "get a checkout of Muster's repository and use 'make run' there",
)
CLOUD = Part(
    "for a service on your AWS account (in a checkout)",
    "infra.deploy",
    "the tools for AWS, which are",
    "get a checkout of Muster's repository and use 'make setup' there",
)
PARTS = (CLIENT, SERVICE, CLOUD)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as all of ours are."""

    def print_help(self, file: Any = None) -> None:
        """Print the help as everything else is printed."""
        output.show(self.format_help().rstrip())

    def error(self, message: str) -> None:  # type: ignore[override] # it exits, as the base does
        """Say what was wrong and where to read on."""
        output.say(output.line(f"muster: {message}; see '{self.prog} --help'"))
        sys.exit(USAGE)


def verb(
    commands: Any, name: str, run: str, what: str, *, needs: Part = CLIENT, once: bool = False
) -> Parser:
    """Add a verb to *commands*; *run* is the module and function that do it.

    *once* says that it must not be repeated only because its report could not be written:
    the report comes last, and then its exit code says that all is done.
    """
    added: Parser = commands.add_parser(name, description=_sentence(what))
    name = added.prog.partition(" ")[2]
    added.set_defaults(run=run, verb=name, needs=needs, what=what, once=once)
    return added


def group(commands: Any, name: str, what: str, about: str, *, needs: Part = CLIENT) -> Parser:
    """Add a group of verbs to *commands*; list them with `listed` when they are complete."""
    added: Parser = commands.add_parser(name, description=about)
    added.set_defaults(needs=needs, what=what)
    return added


def verbs_of(parser: Parser, metavar: str = "COMMAND") -> Any:
    """Return what adds verbs to a parser."""
    return parser.add_subparsers(metavar=metavar, required=True, help="one of those above")


def listed(parser: Parser, commands: Any) -> None:
    """Let a parser's help list its verbs, each under the part that it needs."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    added: dict[str, Parser] = commands.choices
    parts = [part for part in PARTS if any(_needs(one) == part for one in added.values())]
    lines = [parser.description or ""]
    for part in parts:
        lines += ["", f"{part.heading}:" if len(parts) > 1 else "commands:"]
        lines += [
            f"  {name:<11} {one.get_default('what')}"
            for name, one in added.items()
            if _needs(one) == part
        ]
    parser.description = "\n".join(lines)


def add_json(*commands: argparse.ArgumentParser) -> None:
    """Let programs read what verbs print."""
    for command in commands:
        command.add_argument("--json", action="store_true", help="print JSON, a value on each line")


def _needs(parser: Parser) -> Part:
    part: Part = parser.get_default("needs")
    return part


def _sentence(what: str) -> str:
    return f"{what[:1].upper()}{what[1:]}."
