"""Waterfall: a doctor's report, drawn: what was done when, and how long it took."""

from __future__ import annotations

from muster.cli import output
from muster.cli.bars import bar
from muster.cli.doctor.examination import Report, Result


def draw(report: Report) -> None:
    """Print a report for people."""
    from rich.table import Table
    from rich.text import Text

    ascii_only = output.plain()
    marks = {"ok": "ok", "failed": "NO", "skipped": "--"}
    if not ascii_only:
        marks = {"ok": "✓", "failed": "✗", "skipped": "·"}
    styles = {"ok": "green", "failed": "bold red", "skipped": "dim"}
    table = Table.grid(padding=(0, 1), collapse_padding=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for step in report.steps:
        if step.status == "skipped" and report.steps[0].status == "failed":
            continue  # nothing at all could be tried
        style = styles[step.status]
        table.add_row(
            Text(marks[step.status], style=style),
            Text(step.what, style="" if step.status == "ok" else style),
            Text("failed" if step.error else output.line(step.detail), style="dim"),
            Text("" if step.status == "skipped" else f"{step.took_ms:.1f} ms"),
            Text(drawn(step, report.took_ms, ascii_only=ascii_only), style=style),
        )
    output.draw(table)
    output.draw(Text(output.line(_verdict(report)), style=_verdict_style(report)))
    for step in report.failed:
        output.draw(Text(output.line(f"{step.what}: {step.error}"), style="red"))
        if step.hint:
            output.draw(Text("  " + output.line(f"hint: {step.hint}")))


def drawn(step: Result, all_ms: float, *, ascii_only: bool) -> str:
    """Draw when a step was taken; nothing for one that was not."""
    if step.status == "skipped":
        return ""
    return bar(step.started_ms, step.took_ms, all_ms, ascii_only=ascii_only)


def _verdict(report: Report) -> str:
    passed = sum(step.status == "ok" for step in report.steps)
    skipped = sum(step.status == "skipped" for step in report.steps)
    if report.ok:
        done = f"{passed} steps passed" if skipped else f"All {passed} steps passed"
        aside = f"; {skipped} were not for this address" if skipped else ""
        took = f"in {report.took_ms:.0f} ms{aside}"
        return f"{done} {took}. Nodes can meet at {report.base}"
    aside = f", {skipped} could not be tried" if skipped else ""
    return f"{len(report.failed)} of {len(report.steps)} steps failed{aside}."


def _verdict_style(report: Report) -> str:
    return "bold green" if report.ok else "bold red"
