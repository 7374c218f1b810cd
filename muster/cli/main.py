"""The `muster` command: finds the verb, and runs it where all that it needs is installed.

Only argparse is loaded here; each verb loads what it needs when it is called, so that
`--help` and completion answer at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from muster.cli import output
from muster.cli.arguments import access, assist, bootstrap, capsule, circle, cloud, service, talk
from muster.cli.arguments.table import PARTS, Parser, Part, listed, verbs_of
from muster.cli.output import OK, Failure, Misuse, Unwritten, complain

INTERRUPTED = 130

EPILOG = """\
try it, in three terminals:
  1  muster serve                  a service on this machine
  2  muster circle new             a circle, once
     muster listen                 shows what is said in it
  3  muster send hello             says something
     muster doctor                 shows that everything works

exit codes: 0 done, 1 refused or failed, 2 called in a wrong way.
environment: MUSTER_HOME (default ~/.muster), MUSTER_BASE (default http://127.0.0.1:8787),
MUSTER_NAME (how you are called); for 'serve', MUSTER_... for every setting.
"""

_PACKAGES = {
    "botocore": "boto3",
    "cfnlint": "cfn-lint",
    "nacl": "pynacl",
    "prometheus_client": "prometheus-client",
    "samtranslator": "aws-sam-translator",
}
"""What installs a library, where it is not called as it is imported."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; return its exit code."""
    output.mend_streams()
    arguments = argparse.Namespace(once=False)
    try:
        arguments = parser().parse_args(argv)
        code = _run(arguments)
        output.flush()
    except Unwritten as failure:
        output.give_up_stdout()
        return _unwritten(failure, done=arguments.once)
    except Failure as failure:
        return complain(failure)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        output.give_up_stdout()  # whoever read it has seen enough
        return OK
    except OSError as error:
        return complain(_explained(error))
    return code


def parser() -> argparse.ArgumentParser:
    """Return the command line: verbs, options, and where each verb lives."""
    top = Parser(
        prog="muster",
        description="Lets the programs of a small group find each other and talk.",
        epilog=EPILOG,
    )
    top.add_argument("--version", action=_Version, help="print the version and exit")
    commands = verbs_of(top)
    circle.add(commands)
    talk.add_screen(commands)
    talk.add_chat(commands)
    talk.add_looking(commands)
    bootstrap.add(commands)
    assist.add(commands)
    capsule.add(commands)
    service.add(commands)
    access.add(commands)
    cloud.add(commands)
    listed(top, commands)
    return top


def _unwritten(failure: Unwritten, *, done: bool) -> int:
    """Say that the output is lost; what is done already must not be done again because of it."""
    if not done:
        return complain(failure)
    complain(Failure(failure.message, "what was asked for is done all the same"))
    return OK


def _explained(error: OSError) -> Failure:
    """Say what the system refused; whatever is more to be said is said nearer to it."""
    where = f"cannot use {error.filename}: " if error.filename else ""
    reason = (error.strerror or str(error)).lower() or type(error).__name__
    return Failure(f"{where}{reason}", "is this folder still there, and the disk not full?")


def _run(arguments: argparse.Namespace) -> int:
    """Call the verb, or say in one sentence what it needs that is not installed."""
    needs: Part = arguments.needs
    if not needs.installed:
        raise _lacking(arguments.verb, needs)
    module, _, function = arguments.run.partition(":")
    try:
        code: int = getattr(import_module(module), function)(arguments)
    except ModuleNotFoundError as error:
        raise _missing(arguments.verb, error) from None
    return code


def _lacking(verb: str, part: Part) -> Misuse:
    return Misuse(f"'{verb}' needs {part.what} not installed here", part.hint)


def _missing(verb: str, error: ModuleNotFoundError) -> Exception:
    """Say which library a verb needs, and what installs it."""
    library = (error.name or "").partition(".")[0]
    for part in PARTS:
        if library == part.module.partition(".")[0]:
            return error if part.installed else _lacking(verb, part)
    if library in sys.stdlib_module_names:
        return Misuse(
            f"'{verb}' needs '{library}', which this Python does not have",
            "use a complete Python on Linux or macOS",
        )
    package = _PACKAGES.get(library, library)
    return Misuse(
        f"'{verb}' needs the library '{library}', which is not installed here",
        f"'pip install {package}' in the same environment brings it",
    )


class _Version(argparse.Action):
    """Prints the version; the package is asked only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, **rest: object) -> None:
        super().__init__(option_strings, dest, nargs=0, help=str(rest.get("help")))

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        from muster import __version__

        output.show(f"muster {__version__}")
        parser.exit()
