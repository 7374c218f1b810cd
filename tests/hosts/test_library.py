"""The browser library under `/app/muster/`, on both hosts: what is served, and how."""

import contextlib
import gzip
import http.client
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chalicelib.library import FOLDER, Library
from tests.support import aws, local
from tests.support.serving import serving

INDEX, DEEP = "/app/muster/index.js", "/app/muster/bootstrap/index.js"
HEADERS = {
    "content-type": "text/javascript; charset=utf-8",
    "x-content-type-options": "nosniff",
    "access-control-allow-origin": "*",
    "cross-origin-resource-policy": "cross-origin",
    "vary": "Accept-Encoding",
}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Host:
    """A host that listens; paths go over the wire as they are."""

    name: str
    netloc: str

    def call(self, path: str, method: str = "GET", **headers: str) -> Answer:
        line = http.client.HTTPConnection(self.netloc, timeout=30)
        with contextlib.closing(line):
            line.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items():
                line.putheader(name.replace("_", "-"), value)
            line.endheaders()
            found = line.getresponse()
            told = {name.lower(): value for name, value in found.getheaders()}
            return Answer(found.status, told, found.read())


@contextlib.contextmanager
def _opened(name: str, directory: Path) -> Iterator[str]:
    if name == "one machine":
        with local.running(directory, "--closed", "--publish-every=0") as server:
            yield server.base
        return
    settings = local.GENEROUS | {"MUSTER_ACCESS": "closed"}
    with aws.running("sqlite", directory=directory, dynalite_url="", **settings) as made:
        with serving(made) as base:
            yield base
        assert made.crashes == []


@pytest.fixture(scope="module", params=["one machine", "aws"])
def host(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """Each host, closed to strangers: pages import the library before they know any circle."""
    with _opened(request.param, tmp_path_factory.mktemp("data")) as base:
        yield Host(request.param, base.partition("//")[2])


def test_every_module_is_served_as_it_is(host: Host) -> None:
    """One body is compared for each; the budget of a container holds them all once."""
    paths = sorted(FOLDER.rglob("*.js"))

    assert len(paths) > 20
    for path in paths:
        name = path.relative_to(FOLDER).as_posix()
        answer = host.call(f"/app/muster/{name}", Accept_Encoding="gzip")
        assert answer.status == 200, name
        assert gzip.decompress(answer.body) == path.read_bytes(), name


@pytest.mark.parametrize("path", [INDEX, DEEP])
def test_a_module_is_served_as_pages_of_any_origin_need_it(host: Host, path: str) -> None:
    answer = host.call(path, Origin="https://app.example")

    assert answer.status == 200
    assert answer.body == (FOLDER / path.removeprefix("/app/muster/")).read_bytes()
    assert HEADERS.items() <= answer.headers.items()
    assert answer.headers["cache-control"].startswith("public, max-age=300")
    assert "set-cookie" not in answer.headers
    assert "content-encoding" not in answer.headers
    assert answer.headers["x-request-id"]


def test_gzip_is_sent_to_who_takes_it_alone(host: Host) -> None:
    plain = host.call(INDEX)
    for accepted in ("gzip", "br, GZIP;q=0.5, *", "deflate,gzip ; q=1"):
        zipped = host.call(INDEX, Accept_Encoding=accepted)
        assert zipped.headers["content-encoding"] == "gzip", accepted
        assert HEADERS.items() <= zipped.headers.items()
        assert gzip.decompress(zipped.body) == plain.body
        assert zipped.headers["etag"] != plain.headers["etag"]
    for accepted in ("identity", "br", "gzip;q=0", "gzip;q=0.000", "x-gzip"):
        answer = host.call(INDEX, Accept_Encoding=accepted)
        assert answer.body == plain.body, accepted
        assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_what_a_page_has_already_is_not_sent_again(host: Host, encoding: str) -> None:
    tag = host.call(INDEX, Accept_Encoding=encoding).headers["etag"]

    for condition in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = host.call(INDEX, Accept_Encoding=encoding, If_None_Match=condition)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert again.headers["access-control-allow-origin"] == "*"
    other = host.call(INDEX, Accept_Encoding=encoding, If_None_Match='"other"')
    assert other.status == 200


def test_a_head_is_a_get_without_its_body(host: Host) -> None:
    head, got = host.call(INDEX, "HEAD"), host.call(INDEX)

    assert (head.status, head.body) == (200, b"")
    assert head.headers["etag"] == got.headers["etag"]
    assert HEADERS.items() <= head.headers.items()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nobody_writes_there(host: Host, method: str) -> None:
    answer = host.call(INDEX, method)

    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_a_preflight_lets_a_page_ask_conditionally(host: Host) -> None:
    answer = host.call(INDEX, "OPTIONS", Origin="https://app.example")

    assert answer.status == 204
    assert "If-None-Match" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    "path",
    [
        "/app/muster",
        "/app/muster/",
        "/app/muster/bootstrap",
        "/app/muster/bootstrap/",
        "/app/muster/INDEX.JS",
        "/app/Muster/index.js",
        "/app/muster/index.js/",
        "/app/muster//index.js",
        "/app/muster/./index.js",
        "/app/muster/../muster/index.js",
        "/app/muster/bootstrap/../index.js",
        "/app/muster/../../pyproject.toml",
        "/app/muster/../examples/page.js",
        "/app/muster/..%2f..%2fpyproject.toml",
        "/app/muster/%2e%2e/%2e%2e/pyproject.toml",
        "/app/muster/..%5c..%5cpyproject.toml",
        "/app/muster/index.js%00",
        "/app/muster/%00/index.js",
        "/app/muster/index.js%0a",
        "/app/muster/C:/index.js",
        "/app/muster//etc/passwd",
        "/app/muster/package.json",
        "/app/muster/README.md",
        "/app/muster/LICENSE",
        "/app/muster/types/index.d.ts",
        "/app/examples/page.js",
    ],
)
def test_nothing_else_is_served(host: Host, path: str) -> None:
    answer = host.call(path)

    assert answer.status == 404, answer
    assert b'"NOT_FOUND"' in answer.body
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/app/muster/bootstrap%2findex.js", "/app/muster/%69ndex.js"])
def test_another_spelling_of_a_name_is_another_name(
    host: Host, path: str, request: pytest.FixtureRequest
) -> None:
    """Imports of a module are resolved against how it was asked for."""
    if host.name == "aws":
        assert host.call(path).status in (200, 404)  # API Gateway may decode it before
        return
    assert host.call(path).status == 404


def test_only_modules_that_lie_in_the_folder_itself_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    (folder / "chat").mkdir(parents=True)
    (folder / ".cache").mkdir()
    for name in ("index.js", "chat/talk.js", ".cache/x.js", ".x.js", "A.js", "a b.js", "a.json"):
        (folder / name).write_text("export {};")
    (tmp_path / "secret.js").write_text("no")
    (folder / "link.js").symlink_to(tmp_path / "secret.js")
    (folder / "gone.js").symlink_to(tmp_path / "nothing.js")
    (folder / "dir.js").mkdir()

    found = Library(folder).modules

    assert set(found) == {"/app/muster/chat/talk.js", "/app/muster/index.js"}
    assert Library(tmp_path / "nothing").modules == {}


# --- what strangers can take ------------------------------------------------------------


def test_on_one_machine_a_module_counts_as_a_call_of_its_address(tmp_path: Path) -> None:
    few = {"address_burst": "3", "address_per_s": "1"}
    with local.running(tmp_path, "--publish-every=0", **few) as server:
        host = Host("one machine", server.base.partition("//")[2])
        answers = [host.call(path) for path in (INDEX, INDEX, "/app/muster/none.js", INDEX, INDEX)]

    assert [answer.status for answer in answers[:3]] == [200, 200, 404]
    assert answers[-1].status == 429
    assert answers[-1].headers["retry-after"]
