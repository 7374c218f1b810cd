"""A profile as one encrypted file, between browsers and the terminal."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.cli.terminal import Terminal
from tests.support.pages import Pages, Person, told

PASSPHRASE = "correct horse"
MAPPED = """
  const map = document.createElement("script");
  map.type = "importmap";
  map.textContent = JSON.stringify({ imports: { "/web/app/muster/": "/web/muster/" } });
  document.head.append(map);
  window.profile = () => import("/web/app/model/profile.js");
  window.base64 = async (blob) => {
    const url = await new Promise((resolve) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.readAsDataURL(blob);
    });
    return url.slice(url.indexOf(",") + 1);
  };
  window.fileOf = async (text) => (await fetch(`data:;base64,${text}`)).blob();
"""


def somebody(pages: Pages) -> Person:
    """Somebody with a page of the app's origin, where the library is below the app."""
    person = pages.person()
    person.run(MAPPED)
    return person


def exported(person: Person) -> bytes:
    """Export the circle of a page, and print what it took."""
    found = person.run(
        """const { exportProfile } = await profile();
        const tasks = [];
        const told = new PerformanceObserver((list) => tasks.push(...list.getEntries()));
        told.observe({ type: "longtask" });
        const began = performance.now();
        const file = await exportProfile({ circles: [circle], passphrase: given });
        const ms = Math.round(performance.now() - began);
        await new Promise((resolve) => setTimeout(resolve, 50)); // tasks are told of afterwards
        const held = Math.round(Math.max(0, ...tasks.map(({ duration }) => duration)));
        return { ms, held, file: await base64(file) }""",
        PASSPHRASE,
    )
    content = base64.b64decode(found.pop("file"))
    told(export_ms=found["ms"], longest_task_ms=found["held"], bytes=len(content))
    # the page can be used meanwhile, on a busy machine too
    assert found["held"] < 0.75 * found["ms"]
    return content


def imported(person: Person, content: bytes, passphrase: str = PASSPHRASE, **options: Any) -> Any:
    """Take a file in, hold its first circle, and say what has come."""
    return person.run(
        """const { importProfile } = await profile();
        const file = await fileOf(given.content);
        const { content, ...how } = given;
        const steps = new Set();
        const began = performance.now();
        const came = await importProfile({ ...how, file, progress: (what) => steps.add(what) });
        const ms = Math.round(performance.now() - began);
        const [{ circle, ...first }] = came.circles;
        if (circle) hold(circle);
        return { ...came, ...first, ms, steps: [...steps], circles: came.circles.length }""",
        {"content": base64.b64encode(content).decode(), "passphrase": passphrase, **options},
    )


def test_what_a_browser_exports_another_and_the_terminal_take_in(
    pages: Pages, here: str, tmp_path: Path
) -> None:
    ada = somebody(pages)
    ada.create(here, name="Ada", circle="Friends")
    ada.post("dinner?")
    ada.run("await circle.act('create', 'secret', 'invite')")
    ada.post("between us", "secret")
    ada.post("at eight")
    file = exported(ada)
    assert file.startswith(b"age-encryption.org/v1\n-> scrypt ")

    tablet = somebody(pages)
    came = imported(tablet, file, options={"name": "Ada"}, same=True)
    assert (came["name"], came["refused"], came["isSaid"]) == ("Friends", 0, True)
    assert came["steps"] == ["reading", "key", "taking"]
    assert tablet.texts() == ["dinner?", "at eight"]
    assert tablet.texts("secret") == ["between us"]

    # the other device is asked once, and both are one person everywhere
    [asks] = ada.until(
        """(await circle.people()).filter(({ asks }) => asks).length &&
        (await circle.people()).filter(({ asks }) => asks).map(({ id }) => id)"""
    )
    assert asks == tablet.run("return circle.me.id")
    ada.run("await circle.act('device', given)", asks)
    one = "new Set((await circle.people()).map(({ person }) => person)).size === 1"
    ada.until(one)
    tablet.until(one)
    tablet.post("from the tablet")
    ada.reads("from the tablet")

    # after a reload it is all there, keys too
    tablet.page.reload()
    tablet.run("const { Circle } = await library(); hold(await Circle.open())")
    assert tablet.texts("secret") == ["between us"]

    kept = tmp_path / "ada.age"
    kept.write_bytes(file)
    passphrase = tmp_path / "passphrase"
    passphrase.write_text(PASSPHRASE + "\n")
    terminal = Terminal(tmp_path / "Ada")
    words = ("import", str(kept), "--passphrase-file", str(passphrase), "--json")
    taken = json.loads(terminal.run(*words).stdout)
    assert (taken["refused"], len(taken["circles"])) == (0, 1)
    assert taken["records"] == came["records"]
    brought = tmp_path / "lines"
    terminal.run("export", str(brought), "--plain")
    lines = [json.loads(line) for line in brought.read_text().splitlines()]
    assert [line["t"] for line in lines].count("key") == 1
    assert "dinner?" in terminal.run("inbox").stdout


def test_a_browser_takes_in_what_the_terminal_exports(
    pages: Pages, here: str, tmp_path: Path
) -> None:
    terminal = Terminal(tmp_path / "Bob")
    terminal.run("circle", "new", here)
    terminal.run("send", "hello from the terminal")
    file, passphrase = tmp_path / "bob.age", tmp_path / "passphrase"
    passphrase.write_text(PASSPHRASE)
    terminal.run("export", str(file), "--passphrase-file", str(passphrase))

    ada = somebody(pages)
    came = imported(ada, file.read_bytes(), options={"name": "Bob's tablet"}, same=True)
    told(import_ms=came["ms"], work=file.read_bytes()[:80].split(b"\n")[1][-2:].decode())
    assert (came["circles"], came["refused"], came["records"]) == (1, 0, 2)
    assert ada.texts() == ["hello from the terminal"]
    assert [one["name"] for one in came["devices"]] == ["Bob"]
    assert came["isSaid"] is True  # the file names the member, and the page was told to say it
    ada.post("and from here")
    with terminal.running("listen") as listening:
        listening.until("and from here")
