"""A page in Debian's Firefox, driven by WebDriver BiDi, which it speaks itself.

Playwright drives a Firefox of its own alone; this is the one that people have. Only what the
tests need of the protocol is here: one page, and scripts in it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support.pages import BLANK, HARNESS

PROGRAM = shutil.which("firefox-esr") or shutil.which("firefox")
PREFERENCES = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "media.peerconnection.ice.loopback": True,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    "remote.active-protocols": 1,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}


def missing() -> str:
    """Say why there is no Firefox here, or nothing."""
    return "" if PROGRAM else "needs firefox: .ci/setup firefox installs it as root on Debian"


class Page:
    """One page of a Firefox with a profile of its own."""

    def __init__(self, socket: ClientConnection, context: str, origin: str) -> None:
        self._socket, self._context, self._origin, self._number = socket, context, origin, 10

    def tell(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol, and wait for its answer."""
        self._number += 1
        return command(self._socket, self._number, method, **params)

    def goto(self, path: str = BLANK) -> None:
        """Open a page of the app, or open it again."""
        self.tell(
            "browsingContext.navigate",
            context=self._context,
            url=self._origin + path,
            wait="complete",
        )
        self.run(HARNESS)

    def run(self, script: str, argument: Any = None) -> Any:
        """Run a script in the page: the body of an async function of ``given``."""
        body = f"async (text) => {{ const given = JSON.parse(text); {script} }}"
        told = self.tell(
            "script.callFunction",
            functionDeclaration=f"async (text) => JSON.stringify((await ({body})(text)) ?? null)",
            awaitPromise=True,
            target={"context": self._context},
            arguments=[{"type": "string", "value": json.dumps(argument)}],
        )
        if told["type"] != "success":
            raise AssertionError(told["exceptionDetails"]["text"])
        return json.loads(told["result"]["value"])

    def until(self, check: str, argument: Any = None, ms: int = 20_000) -> Any:
        """Wait until an expression of the page is true; returns it."""
        script = f"""const [value, ms] = given;
        return until(() => (async (given) => ({check}))(value), ms)"""
        return self.run(script, [argument, ms])


@contextmanager
def page(origin: str, profile: Path) -> Iterator[Page]:
    """Start Firefox with a new profile, and open a page of an app."""
    profile.mkdir(parents=True, exist_ok=True)
    lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines))
    log = profile / "firefox.out"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(str(PROGRAM), "--headless", "--no-remote"),
                *("--remote-debugging-port=0", "--profile", str(profile)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        address = _address(process, log)
        with connect(f"{address}/session", max_size=None, compression=None) as socket:
            command(socket, 1, "session.new", capabilities={})
            tree = command(socket, 2, "browsingContext.getTree")
            opened = Page(socket, tree["contexts"][0]["context"], origin)
            opened.goto()
            yield opened
    finally:
        process.terminate()
        process.wait(timeout=20)


def command(socket: ClientConnection, number: int, method: str, **params: Any) -> dict[str, Any]:
    """Send a command, and return its result."""
    socket.send(json.dumps({"id": number, "method": method, "params": params}))
    while True:
        told = json.loads(socket.recv(timeout=60))
        if told.get("id") == number:
            if told["type"] == "error":
                raise AssertionError(f"{method}: {told['error']}: {told['message']}")
            result: dict[str, Any] = told["result"]
            return result


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        told = log.read_text("utf-8", "replace")
        if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", told):
            return found[1]
        assert process.poll() is None, told
        time.sleep(0.05)
    raise AssertionError(f"Firefox did not start: {log.read_text('utf-8', 'replace')}")
