"""Whole files: complete or not there, never through a link, never over something else."""

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from muster import whole_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    whole_file.write(path, "one")
    whole_file.write(path, b"two")

    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["file"]


def test_only_the_owner_may_read_unless_another_mode_is_given(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        whole_file.write(tmp_path / "private", "x")
        whole_file.write(tmp_path / "public", "x", mode=whole_file.PUBLIC)
    finally:
        os.umask(before)

    assert mode(tmp_path / "private") == 0o600
    assert mode(tmp_path / "public") == 0o644


def test_what_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    whole_file.write(path, "old")

    def half() -> None:
        with whole_file.writing(path) as file:
            file.write(b"half")
            raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        half()

    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_new_file_takes_no_name_that_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "file"
    whole_file.write(path, "first", new=True)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    for taken in (path, tmp_path / "link"):
        with pytest.raises(FileExistsError):
            whole_file.write(taken, "second", new=True)

    assert path.read_text() == "first"
    assert names(tmp_path) == ["file", "link"]


@pytest.mark.parametrize("trap", ["link to a file", "link to nothing", "folder", "pipe"])
def test_only_a_regular_file_is_replaced(tmp_path: Path, trap: str) -> None:
    theirs, path = tmp_path / "theirs", tmp_path / "ours"
    theirs.write_text("theirs")
    if trap == "folder":
        path.mkdir()
    elif trap == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(theirs if trap == "link to a file" else tmp_path / "nothing")

    with pytest.raises(OSError, match="not a regular file"):
        whole_file.write(path, "ours")

    assert theirs.read_text() == "theirs"
    assert names(tmp_path) == ["ours", "theirs"]


def test_two_who_make_a_file_at_once_do_not_overwrite_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def late() -> None:
        with whole_file.writing(path, new=True) as file:
            whole_file.write(path, "first", new=True)
            file.write(b"second")

    with pytest.raises(FileExistsError):
        late()

    assert path.read_text() == "first"
    assert names(tmp_path) == ["file"]


def test_a_disk_without_hard_links_keeps_new_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*names: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "file"
    whole_file.write(path, "first", new=True)
    with pytest.raises(FileExistsError):
        whole_file.write(path, "second", new=True)

    assert path.read_text() == "first"
    assert names(tmp_path) == ["file"]


def deliver(path: Path) -> None:
    with whole_file.delivering(path) as opened:
        opened.write(b"ours")


def test_what_is_delivered_replaces_a_file_also_where_a_link_leads(tmp_path: Path) -> None:
    theirs, link = tmp_path / "theirs", tmp_path / "link"
    theirs.write_text("old")
    link.symlink_to(theirs)
    deliver(link)
    deliver(tmp_path / "fresh")

    assert link.is_symlink()
    assert theirs.read_text() == (tmp_path / "fresh").read_text() == "ours"
    assert mode(theirs) == mode(tmp_path / "fresh") == 0o600
    assert names(tmp_path) == ["fresh", "link", "theirs"]


def test_a_pipe_and_a_device_are_written_to_and_stay_what_they_are(tmp_path: Path) -> None:
    pipe, null = tmp_path / "pipe", tmp_path / "null"
    os.mkfifo(pipe)
    null.symlink_to(os.devnull)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        deliver(pipe)
        deliver(null)
        assert os.read(reader, 100) == b"ours"
    finally:
        os.close(reader)

    assert pipe.is_fifo()
    assert null.is_symlink()
    assert Path(os.devnull).is_char_device()


def test_the_rest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name in ("folder", "dangling", "socket", "missing/file"):
            with pytest.raises(OSError, match=r"file|directory"):
                deliver(tmp_path / name)

    assert names(tmp_path) == ["dangling", "folder", "socket"]


def test_what_is_read_is_a_regular_file_and_bounded(tmp_path: Path) -> None:
    path, pipe = tmp_path / "file", tmp_path / "pipe"
    path.write_text("abc")
    os.mkfifo(pipe)

    assert whole_file.read(path, most=3) == b"abc"
    assert whole_file.read(path, most=1) == b"ab"
    for other in (pipe, tmp_path, Path(os.devnull)):
        with pytest.raises(OSError, match=r"regular file|directory"):
            whole_file.read(other, most=3)
