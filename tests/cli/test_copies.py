"""`muster backup` and `muster restore`: a copy of a running service, and what it brings back."""

import contextlib
import json
import os
import signal
import sqlite3
import stat
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from muster.cli import copies
from tests.cli.terminal import Terminal
from tests.support import local
from tests.support.local import Server

HINT = "0123456789abcdef"


class Place:
    """A service's folder, and copies of it beside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.file = folder / "copy.tar"
        self.terminal = Terminal(folder / "home")

    def serve(self) -> contextlib.AbstractContextManager[Server]:
        return local.running(self.data, "--unsigned=allow")

    def backup(self) -> Any:
        words = ("backup", str(self.file), "--data", str(self.data), "--json")
        return json.loads(self.terminal.run(*words).stdout)

    def restore(self, *more: str) -> Any:
        words = ("restore", str(self.file), "--data", str(self.data), "--json", *more)
        return json.loads(self.terminal.run(*words).stdout)

    def refuses(self, *words: str, expect: int = 1) -> str:
        return self.terminal.fails(*words, "--data", str(self.data), expect=expect)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def post(server: Server, *msg_ids: str) -> Any:
    messages = [{"msg_id": msg_id, "created_ts": 1} for msg_id in msg_ids]
    body = json.dumps({"circle_hint": HINT, "messages": messages}).encode()
    answer = server.call("POST", "/v1/messages", body, {"X-Felund-Node": "ann-00001"})
    assert answer.status == 200, answer.body
    return answer.json()


def poll(server: Server, after: int = 0) -> Any:
    answer = server.call("GET", f"/v1/messages?circle_hint={HINT}&after={after}")
    assert answer.status == 200, answer.body
    return answer.json()


def names(page: Any) -> list[str]:
    return [message["msg_id"] for message in page["messages"]]


def test_a_running_service_is_copied_and_comes_back(place: Place) -> None:
    with place.serve() as server:
        post(server, "first-01", "first-02")
        told = place.backup()
        post(server, "later-01")
    back = place.restore("--yes")
    with place.serve() as server:
        assert names(poll(server)) == ["first-01", "first-02"]
        assert post(server, "first-02", "first-01")["stored"] == 0

    assert told["items"] == back["items"] > 0
    assert stat.S_IMODE(place.file.stat().st_mode) == 0o600


def test_nobody_who_read_on_after_the_copy_misses_what_comes_after_it(place: Place) -> None:
    """A cursor from before the restore is above the copy's numbers, and must not hide new ones."""
    with place.serve() as server:
        post(server, "first-01")
        place.backup()
        for number in range(5):
            post(server, f"gone-000{number}")
        cursor = poll(server)["cursor"]
    assert place.restore("--yes")["journals"] == 1
    with place.serve() as server:
        assert names(poll(server, cursor)) == []
        post(server, "after-01")
        page = poll(server, cursor)
        assert names(page) == ["after-01"]
        assert names(poll(server)) == ["first-01", "after-01"]
        assert page["cursor"] > cursor


def test_a_copy_is_whole_while_others_write(place: Place) -> None:
    with place.serve() as server:
        stop = threading.Event()
        written: list[str] = []

        def write() -> None:
            while not stop.is_set():
                name = f"message-{len(written):05}"
                post(server, name)
                written.append(name)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            while len(written) < 20:
                pass
            before = len(written)
            place.backup()
        finally:
            stop.set()
            writer.join()
    place.restore("--yes")
    with place.serve() as server:
        found = names(poll(server))

    assert before <= len(found)
    assert found == [f"message-{number:05}" for number in range(len(found))][: len(found)]


def test_keys_are_in_it_and_published_files_are_not(place: Place) -> None:
    with place.serve():
        pass
    keys = {path.name: path.read_bytes() for path in (place.data / "keys").iterdir()}
    place.backup()
    with tarfile.open(place.file) as tar:
        inside = {entry.name: entry for entry in tar}
    for path in (place.data / "keys").iterdir():
        path.unlink()
    (place.data / copies.DATABASE).unlink()
    place.restore()

    assert keys
    assert set(inside) == {copies.DATABASE, *(f"keys/{name}" for name in keys)}
    assert {entry.uid for entry in inside.values()} == {0}
    assert {path.name: path.read_bytes() for path in (place.data / "keys").iterdir()} == keys
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in (place.data / "keys").iterdir())


def test_what_was_there_is_kept(place: Place) -> None:
    with place.serve() as server:
        post(server, "first-01")
        place.backup()
        post(server, "later-01")
        server.stop(signal.SIGKILL)  # what it wrote last is still beside its file
    place.restore("--yes")
    with contextlib.closing(sqlite3.connect(place.data / copies.KEPT)) as kept:
        found = kept.execute("SELECT sk FROM mail WHERE pk = ?", (f"mail#{HINT}",)).fetchall()

    assert len(found) == 2


def test_a_running_service_is_not_restored_over(place: Place) -> None:
    with place.serve() as server:
        post(server, "first-01")
        place.backup()
        line = place.refuses("restore", str(place.file), "--yes")
        assert names(poll(server)) == ["first-01"]

    assert "a service is running in" in line
    assert "stop it" in line


def test_data_is_not_replaced_unasked(place: Place) -> None:
    with place.serve():
        place.backup()
    line = place.refuses("restore", str(place.file), expect=2)

    assert "--yes replaces it" in line


def test_a_copy_goes_to_a_fresh_folder_unasked(place: Place, tmp_path: Path) -> None:
    with place.serve() as server:
        post(server, "first-01")
        place.backup()
    place.data = tmp_path / "elsewhere" / "data"
    place.restore()
    with place.serve() as server:
        assert names(poll(server)) == ["first-01"]

    assert not (place.data / copies.KEPT).exists()


def test_there_must_be_something_to_copy(place: Place) -> None:
    line = place.refuses("backup", str(place.file))

    assert "there is no service's data in" in line
    assert not place.file.exists()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\0" * 10_240, b"SQLite format 3\0"])
def test_what_is_no_copy_changes_nothing(place: Place, content: bytes) -> None:
    with place.serve() as server:
        post(server, "first-01")
    before = (place.data / copies.DATABASE).read_bytes()
    place.file.write_bytes(content)
    place.refuses("restore", str(place.file), "--yes")

    assert (place.data / copies.DATABASE).read_bytes() == before
    assert not list(place.data.glob(".new-*"))


def packed(file: Path, **entries: bytes) -> None:
    import io

    with tarfile.open(file, "w") as tar:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "keys/../../escaped", "keys/a/b"])
def test_a_copy_writes_nothing_beside_the_data(place: Place, name: str) -> None:
    packed(place.file, **{name: b"x"})
    line = place.refuses("restore", str(place.file))

    assert "unexpected" in line
    assert not (place.folder / "escaped").exists()
    assert not (place.data / copies.DATABASE).exists()


def test_a_link_in_a_copy_is_not_followed(place: Place) -> None:
    with tarfile.open(place.file, "w") as tar:
        entry = tarfile.TarInfo("keys/publishing.key")
        entry.type, entry.linkname = tarfile.SYMTYPE, os.devnull
        tar.addfile(entry)
    assert "unexpected" in place.refuses("restore", str(place.file))


def test_a_damaged_database_is_refused(place: Place) -> None:
    with place.serve() as server:
        post(server, *(f"message-{number:05}" for number in range(50)))
        place.backup()
    with tarfile.open(place.file) as tar:
        opened = tar.extractfile(copies.DATABASE)
        assert opened
        database = bytearray(opened.read())
    database[4096:8192] = os.urandom(4096)
    packed(place.file, **{copies.DATABASE: bytes(database)})
    place.data = place.folder / "fresh"
    line = place.refuses("restore", str(place.file))

    assert "muster:" in line
    assert not (place.data / copies.DATABASE).exists()
