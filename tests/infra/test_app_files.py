"""What of the app is packed for services without sources: today's, whole, and nothing else."""

import shutil
from pathlib import Path

import pytest

from chalicelib.app_files import WEB, AppFiles
from chalicelib.library import Library
from infra import app_files
from muster.cli.output import Failure
from tests.support import web_app


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """A checkout's folder with a small app whose packed files are today's."""
    made = web_app.as_modules(tmp_path / "checkout" / "web")
    assert app_files.main(["--write"], web=made) == 0
    return made


def copied(web: Path, tmp_path: Path) -> Path:
    """Copy the app to where the library has been copied."""
    target = tmp_path / "package" / "web"
    shutil.copytree(web / "muster", target / "muster")
    app_files.copy(web, target)
    return target


def test_what_is_copied_is_what_a_service_serves_and_no_source(web: Path, tmp_path: Path) -> None:
    target = copied(web, tmp_path)
    found = {
        path.relative_to(target / "app").as_posix()
        for path in (target / "app").rglob("*")
        if path.is_file()
    }
    served = AppFiles(target / "app", Library(target / "muster")).files

    assert found == {*web_app.BESIDE, *web_app.PACKED}
    assert {"/app/", "/app/sw.js", "/app/icon.svg", "/app/manifest.webmanifest"} < set(served)
    assert "/app/main.js" not in served


@pytest.mark.parametrize(
    "name", ["app/main.js", "app/app.css", "app/view/log.js", "muster/json.js"]
)
def test_packed_files_that_are_older_than_their_sources_are_refused(
    web: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (web / name).open("a") as opened:
        opened.write(" ")

    assert app_files.main(["--check"], web=web) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("muster: web/app/packed was made of other sources")
    assert "make app" in said
    with pytest.raises(Failure, match="other sources"):
        copied(web, tmp_path)
    assert app_files.main(["--write"], web=web) == 0
    assert app_files.main(["--check"], web=web) == 0


def test_a_source_that_was_added_moved_or_removed_counts_too(web: Path) -> None:
    first = app_files.digest(web)
    (web / "app" / "view" / "new.js").write_text("")
    added = app_files.digest(web)
    (web / "app" / "view" / "new.js").rename(web / "app" / "view" / "newer.js")
    moved = app_files.digest(web)
    (web / "app" / "view" / "newer.js").unlink()

    assert len({first, added, moved}) == 3
    assert app_files.digest(web) == first


@pytest.mark.parametrize("name", ["index.html", "worker.js", "icon.svg", "packed/app.js"])
def test_what_is_copied_or_made_is_no_source(web: Path, name: str) -> None:
    (web / "app" / name).write_text("another")

    assert app_files.main(["--check"], web=web) == 0


def test_an_app_that_was_never_packed_is_refused(web: Path, tmp_path: Path) -> None:
    shutil.rmtree(web / "app" / "packed")

    with pytest.raises(Failure, match="web/app is not packed; 'make app'"):
        copied(web, tmp_path)


@pytest.mark.parametrize("name", ["index.html", "worker.js", "vendor/LICENSES"])
def test_a_file_that_is_missing_is_named(web: Path, name: str, tmp_path: Path) -> None:
    (web / "app" / name).unlink()

    with pytest.raises(Failure, match=f"web/app/{name} is missing"):
        copied(web, tmp_path)


def test_a_page_that_names_what_is_not_packed_is_refused(web: Path, tmp_path: Path) -> None:
    page = web / "app" / "index.html"
    page.write_text(page.read_text() + '<link rel="modulepreload" href="./view/log.js">')

    with pytest.raises(Failure, match=r"names what is not packed: view/log\.js"):
        copied(web, tmp_path)


def test_the_packed_app_of_this_checkout_is_today_s() -> None:
    app_files.check(WEB)
