"""Where output goes: every path that a person names, and whatever may stand there."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.store.sqlite import open_sqlite
from tests.cli.terminal import MUSTER, Terminal
from tests.support.community import Community
from tools.loopback import Place, publishes


@pytest.fixture
def home(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path / "home", "http://127.0.0.1:9")


@pytest.fixture
def data(tmp_path: Path) -> str:
    (tmp_path / "data").mkdir()
    open_sqlite(tmp_path / "data" / "muster.sqlite3").close()
    return str(tmp_path / "data")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    terminal = Terminal(folder)
    root, keys = str(folder / "root.key"), str(folder / "publishing.key")
    terminal.run("keygen", "root", "--out", root)
    terminal.run("keygen", "capsule", "--root", root, "--out", keys)
    return folder


@pytest.fixture
def keys(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "keys"))


def trap(kind: str, path: Path) -> Callable[[], bool]:
    """Put something at a path; return what says that it is still the same."""
    theirs = path.with_name("theirs")
    theirs.write_text("theirs")
    if kind == "folder":
        path.mkdir()
        return lambda: path.is_dir() and not list(path.iterdir())
    if kind == "file":
        path.write_text("theirs")
        return lambda: path.read_text() == "theirs"
    if kind == "pipe":
        os.mkfifo(path)
        return lambda: path.is_fifo()
    nothing, device = path.with_name("nothing"), Path(os.devnull)
    path.symlink_to({"link": theirs, "dangling": nothing, "device": device}[kind])
    return lambda: (
        path.is_symlink()
        and theirs.read_text() == "theirs"
        and not nothing.exists()
        and device.is_char_device()
    )


TRAPS = ("folder", "pipe", "link", "dangling", "device")


# --- backup -------------------------------------------------------------------------


def unpacked(raw: bytes) -> list[str]:
    import io

    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        return tar.getnames()


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_backup_goes_to_standard_output_and_replaces_nothing(
    home: Terminal, data: str, tmp_path: Path, name: str
) -> None:
    before = os.lstat("/dev/stdout")
    words = [*MUSTER, "backup", name, "--data", data]
    piped = subprocess.run(words, env=home.environment(), capture_output=True, check=True)
    with (tmp_path / "copy").open("ab") as copy:
        copy.write(b"before")
        copy.flush()
        subprocess.run(words, env=home.environment(), stdout=copy, check=True)

    raw = (tmp_path / "copy").read_bytes()
    assert raw.startswith(b"before")
    assert unpacked(raw.removeprefix(b"before")) == ["muster.sqlite3"]
    assert os.path.samestat(os.lstat("/dev/stdout"), before)
    if name == "-":
        assert unpacked(piped.stdout) == ["muster.sqlite3"]
        assert b" MB\n" in piped.stderr


def test_a_backup_is_no_json(home: Terminal, data: str) -> None:
    line = home.fails("backup", "-", "--json", "--data", data, expect=2)
    assert "standard output is taken" in line


def test_a_backup_of_which_only_a_part_was_taken_has_failed(home: Terminal, data: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing) as pipe:
        done = subprocess.run(
            [*MUSTER, "backup", "-", "--data", data],
            env=home.environment(),
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "muster: cannot write -: broken pipe\n"
    assert "no space left" in home.fails("backup", "/dev/full", "--data", data)


def test_a_backup_follows_a_link_to_a_file_and_writes_into_a_pipe(
    home: Terminal, data: str, tmp_path: Path
) -> None:
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    target.write_text("old")
    link.symlink_to(target)
    home.run("backup", str(link), "--data", data)
    assert link.is_symlink()
    assert unpacked(target.read_bytes()) == ["muster.sqlite3"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600

    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as cat:
        home.run("backup", str(pipe), "--data", data)
        assert cat.stdout
        assert unpacked(cat.stdout.read()) == ["muster.sqlite3"]
    assert pipe.is_fifo()


@pytest.mark.parametrize("kind", ["dangling", "folder"])
def test_a_backup_refuses_what_it_cannot_be_put_into(
    home: Terminal, data: str, tmp_path: Path, kind: str
) -> None:
    same = trap(kind, tmp_path / "copy")
    code = 2 if kind == "folder" else 1
    home.fails("backup", str(tmp_path / "copy"), "--data", data, expect=code)
    assert same()


# --- keys ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*TRAPS, "file"])
def test_a_new_key_takes_no_name_that_is_taken(home: Terminal, keys: Path, kind: str) -> None:
    path = keys / "new.key"
    same = trap(kind, path)
    root, online = str(keys / "root.key"), str(keys / "publishing.key")
    before = (keys / "publishing.key").read_bytes()
    tries: list[tuple[str, ...]] = [
        ("keygen", "root", "--out", str(path)),
        ("capsule", "rotate", "--new-root", str(path), "--root", root, "--keys", online),
    ]
    if kind != "folder":  # in which it would be called publishing.key
        tries.append(("keygen", "capsule", "--root", root, "--out", str(path)))
    for words in tries:
        assert "already" in home.fails(*words)
        assert same()
    assert (keys / "publishing.key").read_bytes() == before


@pytest.mark.parametrize("verb", ["rotate --online", "rotate --new-root", "revoke"])
def test_keys_behind_a_link_are_refused_before_anything_is_written(
    home: Terminal, keys: Path, verb: str
) -> None:
    real, link, root = keys / "publishing.key", keys / "link.key", keys / "root.key"
    link.symlink_to(real)
    before = {path: path.read_bytes() for path in (real, root)}
    words = {
        "rotate --online": ("rotate", "--online"),
        "rotate --new-root": ("rotate", "--new-root", str(keys / "new.key")),
        "revoke": ("revoke", "A" * 43 + "="),
    }[verb]
    line = home.fails("capsule", *words, "--root", str(root), "--keys", str(link))

    assert "not a regular file" in line
    assert {path: path.read_bytes() for path in before} == before
    assert not (keys / "new.key").exists()


# --- capsules -----------------------------------------------------------------------


@contextlib.contextmanager
def published() -> Iterator[str]:
    """Serve a capsule; give URL#KEY."""
    import asyncio
    import threading

    us, ready, ended = Community(), threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with Place(publishes(us.publish("a"))) as place:
            found.append(us.url(place.url))
            ready.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield found[0]
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("kind", TRAPS)
def test_what_is_fetched_replaces_files_only(home: Terminal, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    same = trap(kind, out / "peers.json")
    with published() as url:
        line = home.fails("capsule", "fetch", url, "--out", str(out))

    assert "cannot write to" in line
    assert same()


@pytest.mark.parametrize("kind", TRAPS)
def test_the_cache_replaces_files_only(home: Terminal, tmp_path: Path, kind: str) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with published() as url:
        home.run("bootstrap", "--capsule", url, "--cache", str(cache))
        (trust,) = cache.glob("trust-*.json")
        trust.unlink()
        same = trap(kind, trust)
        done: Any = subprocess.run(
            [*MUSTER, "bootstrap", "--capsule", url, "--cache", str(cache)],
            env=home.environment(),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr
    assert same()
