"""Terminals as tests use them: a service, commands that end, and commands that go on."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MUSTER = (sys.executable, "-m", "muster.cli")
WITHIN_S = 20.0


@dataclass(frozen=True)
class Terminal:
    """A home, and the command run in it."""

    home: Path
    base: str = ""

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "MUSTER" not in name}
        return kept | {
            "MUSTER_HOME": str(self.home),
            "MUSTER_BASE": self.base,
            "MUSTER_NAME": self.home.name,
            "PYTHONUTF8": "1",
            "COLUMNS": "200",
            **more,
        }

    def run(
        self, *words: str, says: str = "", expect: int = 0, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        done = subprocess.run(
            [*MUSTER, *words],
            input=says,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.returncode == expect, (words, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def fails(self, *words: str, expect: int = 1, **environment: str) -> str:
        """Run a command that fails; return the one line it says."""
        line = self.run(*words, expect=expect, **environment).stderr
        assert line.startswith("muster: ")
        assert line.count("\n") == 1
        return line

    @contextmanager
    def running(self, *words: str, **environment: str) -> "Iterator[Running]":
        """Run a command for as long as the test needs it."""
        with self._running(words, environment, subprocess.DEVNULL) as running:
            yield running

    @contextmanager
    def typing(self, *words: str, **environment: str) -> "Iterator[Running]":
        """Run a command that the test types into."""
        with self._running(words, environment, subprocess.PIPE) as running:
            yield running

    @contextmanager
    def _running(
        self, words: tuple[str, ...], environment: dict[str, str], stdin: int
    ) -> "Iterator[Running]":
        process = subprocess.Popen(
            [*MUSTER, *words],
            env=self.environment(**environment),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        running = Running(process)
        try:
            yield running
        finally:
            running.end()


class Running:
    """A command that goes on: wait for what it prints, and end it by its id."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        assert process.stdout is not None
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def until(self, pattern: str, *, within_s: float = WITHIN_S) -> re.Match[str]:
        """Wait for a line that the pattern is found in."""
        while True:
            try:
                line = self._lines.get(timeout=within_s)
            except queue.Empty:
                raise AssertionError(f"no {pattern!r} in {self.seen}") from None
            if line is None:
                self._lines.put(None)
                raise AssertionError(f"it ended without {pattern!r}: {self.seen}")
            self.seen.append(line)
            found = re.search(pattern, line)
            if found:
                return found

    def type(self, text: str) -> None:
        """Type a line into it."""
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def end(self, number: int = signal.SIGINT) -> int:
        """Ask it to end, and wait until it has; return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            code = self._process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        while (line := self._lines.get(timeout=WITHIN_S)) is not None:
            self.seen.append(line)
        self._lines.put(None)
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
        return code

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


@contextmanager
def serving(directory: Path, *words: str, port: int = 0) -> Iterator[str]:
    """Run the service on a port of this machine; give its URL."""
    terminal = Terminal(directory)
    options = ("--port", str(port), "--data", str(directory / "data"), *words)
    # All tests of a session are one network, and make more circles than one may in a day.
    with terminal.running("serve", *options, MUSTER_NETWORK_CIRCLES="100000") as running:
        found = running.until(r"listens on (http://\S+)")
        yield found[1]
        assert running.end(signal.SIGTERM) == 0, running.seen
