"""The app under `/app/`, on both hosts, as modules and as it is packed: what is served, and how."""

import contextlib
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from chalicelib.app_files import FOR_GOOD, ICONS, POLICY, WEB, AppFiles
from chalicelib.aws import events
from chalicelib.library import Library
from tests.hosts.test_library import Host
from tests.support import aws, local, web_app
from tests.support.gateway import rest_event
from tests.support.serving import serving

DIGEST = r"\.[0-9a-f]{16}\."


@dataclass
class Site(Host):
    """A host with the small app, and the form that it has it in."""

    form: str
    web: Path

    def page(self) -> str:
        return self.call("/app/").body.decode()

    def named(self, name: str) -> str:
        """Return the path of a packed file, as the page and the other files name it."""
        linked = [path for path in self.linked() if not path.endswith(".png")]
        every = [self.page(), *(self.call(path).body.decode() for path in linked)]
        found = re.search(name.replace(".", DIGEST), "".join(every))
        assert found, name
        return f"/app/{found[0]}"

    def linked(self) -> list[str]:
        """Return the paths that the page names."""
        return [f"/app/{name}" for name in re.findall(r'(?:src|href)="\./([^"]+)"', self.page())]

    def worker(self) -> tuple[dict[str, Any], str]:
        """Return what the service worker is told, and the rest of it."""
        line, _, rest = self.call("/app/sw.js").body.decode().partition("\n")
        told = re.fullmatch(r"const MUSTER = (\{.*\});", line)
        assert told, line
        return json.loads(told[1]), rest


@contextlib.contextmanager
def _opened(name: str, web: Path, directory: Path) -> Iterator[str]:
    if name == "one machine":
        with web_app.on_one_machine(web, directory, "--closed", "--publish-every=0") as server:
            yield server.base
        return
    settings = local.GENEROUS | {"MUSTER_ACCESS": "closed"}
    with aws.running("sqlite", directory=directory, **settings) as made:
        web_app.on_aws(made, web)
        with serving(made) as base:
            yield base
        assert made.crashes == []


FORMS = {"modules": web_app.as_modules, "packed": web_app.as_packed}


@pytest.fixture(
    scope="module", params=[(host, form) for host in ("one machine", "aws") for form in FORMS]
)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Each host with each form, closed to strangers: a link is opened by who is none yet."""
    host, form = request.param
    folder = tmp_path_factory.mktemp("checkout")
    web = FORMS[form](folder / "web")
    with _opened(host, web, tmp_path_factory.mktemp("data")) as base:
        yield Site(host, base.partition("//")[2], form, web)


def test_the_page_is_served_with_what_it_names(site: Site) -> None:
    answer = site.call("/app/")

    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    if site.form == "modules":
        assert answer.body == (site.web / "app" / "index.html").read_bytes()
    else:
        assert re.search(rf'<script type="module" src="\./app{DIGEST}js">', site.page())
        assert re.search(rf'<link rel="stylesheet" href="\./app{DIGEST}css">', site.page())
    assert len(site.linked()) == 5
    for path in site.linked():
        assert site.call(path).status == 200, path


def test_the_page_may_do_what_the_app_does_and_no_more(site: Site) -> None:
    for path in ("/app/", "/app/sw.js"):
        headers = site.call(path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["permissions-policy"] == (
            "camera=(self), microphone=(self), display-capture=(self)"
        )
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("prefix", ["", "/circles"])
def test_the_path_without_its_slash_leads_on_behind_any_prefix(site: Site, prefix: str) -> None:
    for method in ("GET", "HEAD"):
        answer = site.call("/app", method)
        assert (answer.status, answer.body) == (308, b"")
        there = urljoin(f"https://host{prefix}/app", answer.headers["location"])
        assert there == f"https://host{prefix}/app/"


def test_every_file_is_served_as_what_it_is(site: Site) -> None:
    kinds = {"icon.svg": "image/svg+xml", "manifest.webmanifest": "application/manifest+json"}
    kinds |= {"icon-maskable.svg": "image/svg+xml", "apple-touch-icon.png": "image/png"}
    script, style = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
    if site.form == "modules":
        kinds |= {"main.js": script, "view/log.js": script, "app.css": style}
    for name, kind in kinds.items():
        answer = site.call(f"/app/{name}")
        assert (answer.status, answer.headers["content-type"]) == (200, kind), name
        assert answer.body == (site.web / "app" / name).read_bytes()
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    licences = site.call("/app/vendor/LICENSES")
    assert licences.body == b"Somebody's licence\n"
    assert licences.headers["content-type"] == "text/plain; charset=utf-8"


def test_packed_files_are_kept_for_good_under_names_of_their_own(site: Site) -> None:
    if site.form == "modules":
        assert not re.search(DIGEST, site.page())
        return
    for name, kind in (("app.js", "javascript"), ("later.js", "javascript"), ("app.css", "css")):
        path = site.named(name)
        answer = site.call(path)
        assert answer.status == 200, path
        assert answer.headers["cache-control"] == FOR_GOOD
        assert answer.headers["content-type"] == f"text/{kind}; charset=utf-8"
        assert site.call(f"/app/{name}").status == 404
    app, later = site.call(site.named("app.js")).body, site.named("later.js")
    assert f'import(".{later.removeprefix("/app")}")'.encode() in app
    assert b'"./nothing.js"' in site.call(later).body, "what is no packed file keeps its name"


def test_the_worker_is_told_its_version_and_everything_that_it_is_to_keep(site: Site) -> None:
    told, rest = site.worker()
    answer = site.call("/app/sw.js")

    assert rest == web_app.WORKER
    assert set(told) == {"version", "files"}
    assert re.fullmatch("[0-9a-f]{16}", told["version"])
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    if site.form == "modules":
        library = [f"./muster/{path.name}" for path in (site.web / "muster").glob("*.js")]
        assert {"./", "./main.js", "./view/log.js", "./app.css", *library} <= set(told["files"])
    else:
        packed = {
            f".{site.named(n).removeprefix('/app')}" for n in ("app.js", "later.js", "app.css")
        }
        assert set(told["files"]) == {"./", "./icon.svg", "./manifest.webmanifest", *packed}
    assert not {f"./{name}" for name in ICONS} & set(told["files"]), "installers ask for those"
    for name in told["files"]:
        assert site.call(urljoin("/app/", name)).status == 200, name


def test_gzip_is_sent_to_who_takes_it_alone(site: Site) -> None:
    for path in ("/app/", "/app/sw.js", *site.linked()):
        plain = site.call(path, Accept_Encoding="identity")
        zipped = site.call(path, Accept_Encoding="br, gzip")
        assert zipped.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert gzip.decompress(zipped.body) == plain.body
        assert zipped.headers["etag"] != plain.headers["etag"]
        assert plain.headers["vary"] == zipped.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_what_a_browser_has_already_is_not_sent_again(site: Site, encoding: str) -> None:
    for path in ("/app/", "/app/sw.js", *site.linked()):
        tag = site.call(path, Accept_Encoding=encoding).headers["etag"]
        again = site.call(path, Accept_Encoding=encoding, If_None_Match=f'"other", W/{tag}')
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        other = site.call(path, Accept_Encoding=encoding, If_None_Match='"other"')
        assert other.status == 200


def test_a_head_is_a_get_without_its_body(site: Site) -> None:
    for path in ("/app/", "/app/sw.js", *site.linked()):
        head, got = site.call(path, "HEAD"), site.call(path)
        assert (head.status, head.body) == (200, b"")
        for answer in (head, got):
            del answer.headers["x-request-id"], answer.headers["content-length"]
            answer.headers.pop("date", None)
        assert head.headers == got.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nobody_writes_there(site: Site, method: str) -> None:
    for path in ("/app/", "/app", "/app/icon.svg"):
        answer = site.call(path, method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    "path",
    [
        "/app//",
        "/app/index.html",
        "/app/worker.js",
        "/app/sw.js/",
        "/app/packed",
        "/app/packed/app.js",
        "/app/packed/sources",
        "/app/app.0123456789abcdef.js",
        "/app/main.md",
        "/app/view",
        "/app/view/",
        "/app/view/types.d.ts",
        "/app/tsconfig.json",
        "/app/.hidden.js",
        "/app/A.js",
        "/app/other.html",
        "/app/vendor/secret.txt",
        "/app/vendor/licenses",
        "/app/./icon.svg",
        "/app/../app/icon.svg",
        "/app/view/../icon.svg",
        "/app/../../pyproject.toml",
        "/app/..%2f..%2fpyproject.toml",
        "/app/%2e%2e/muster/index.js",
        "/app/..%5cpyproject.toml",
        "/app/icon.svg%00",
        "/app/icon.svg%0a",
        "/app/%00",
        "/app//etc/passwd",
        "/app/C:/icon.svg",
        "/app/ICON.SVG",
        "/App/",
        "/apps/",
        "/application",
        "/app/%c3%a9",
    ],
)
def test_nothing_else_is_served(site: Site, path: str) -> None:
    answer = site.call(path)

    assert answer.status == 404, answer
    told = json.loads(answer.body)
    assert told["code"] == "NOT_FOUND"
    assert "\n" not in told["message"]


def test_the_library_is_still_there_for_pages_of_any_origin(site: Site) -> None:
    answer = site.call("/app/muster/index.js")

    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "*")
    assert site.call("/app/muster/none.js").status == 404


# --- what is read -----------------------------------------------------------------------


def files(web: Path) -> dict[str, Any]:
    return dict(AppFiles(web / "app", Library(web / "muster")).files)


def told(web: Path) -> Any:
    return json.loads(re.findall(rb"^const MUSTER = (.*);", files(web)["/app/sw.js"].body)[0])


def test_a_service_without_the_app_says_so(tmp_path: Path) -> None:
    with aws.running("sqlite", directory=tmp_path) as made:
        web_app.on_aws(made, tmp_path / "none")
        answers = [made.call("GET", path) for path in ("/app/", "/app", "/app/sw.js")]

    assert {found.status for found in answers} == {404}
    assert all("has no app" in found.json()["message"] for found in answers)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["index.html", "worker.js", "icon.svg", "manifest.webmanifest"])
def test_an_edit_is_another_version(tmp_path: Path, form: str, name: str) -> None:
    web = FORMS[form](tmp_path / "web")
    first, before = told(web)["version"], set(files(web))
    assert told(web)["version"] == first
    with (web / "app" / name).open("a") as opened:
        opened.write(" ")

    assert told(web)["version"] != first
    assert (set(files(web)) == before) is (form == "modules")


def test_an_edit_of_any_packed_file_gives_all_of_them_new_names(tmp_path: Path) -> None:
    """They name each other, and a name is kept for good."""
    web = web_app.as_packed(tmp_path / "web")
    before = {name for name in files(web) if re.search(DIGEST, name)}
    (web / "app" / "packed" / "later.js").write_text('export * from "./app.js";')
    after = {name for name in files(web) if re.search(DIGEST, name)}

    assert (len(before), len(after)) == (3, 3)
    assert not before & after
    later = next(name for name in after if "later" in name)
    app = next(name for name in after if name.endswith(".js") and "later" not in name)
    assert files(web)[later].body == f'export * from ".{app.removeprefix("/app")}";'.encode()


def test_an_edit_of_the_library_below_is_another_version_of_the_modules(tmp_path: Path) -> None:
    web = web_app.as_modules(tmp_path / "web")
    first = told(web)["version"]
    (web / "muster" / "bytes.js").write_text("export {};")

    assert told(web)["version"] != first


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    web = web_app.as_modules(tmp_path / "web")
    (tmp_path / "secret.js").write_text("no")
    (web / "app" / "view" / "out.js").symlink_to(tmp_path / "secret.js")

    assert "/app/view/log.js" in files(web)
    assert "/app/view/out.js" not in files(web)


def test_every_icon_that_the_app_names_is_served_and_as_large_as_it_says() -> None:
    served = files(WEB)
    named = json.loads((WEB / "app" / "manifest.webmanifest").read_text())["icons"]
    size = served["/app/apple-touch-icon.png"].body[16:24]

    assert [int.from_bytes(size[at : at + 4], "big") for at in (0, 4)] == [180, 180]
    assert {urljoin("/app/", one["src"]) for one in named} <= set(served)
    assert b" rx=" not in served["/app/icon-maskable.svg"].body, "systems cut their own corners"


def test_a_policy_allows_nothing_unsafe_and_no_script_of_others() -> None:
    policy = dict(part.partition(" ")[::2] for part in POLICY.split("; "))

    assert "unsafe" not in POLICY
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["worker-src"] == "'self'"
    assert {"https:", "wss:"} <= set(policy["connect-src"].split())
    assert "*" not in POLICY.replace("localhost:*", "").replace("127.0.0.1:*", "")


@pytest.mark.parametrize("matched", ["app/", "app"])
@pytest.mark.parametrize("path", ["/app/", "/stage/app/"])
def test_the_slash_at_the_end_of_a_path_counts_whatever_the_gateway_matched(
    matched: str, path: str
) -> None:
    """A gateway that left it out would send the browser round in a circle."""
    event = rest_event("GET", path) | {"pathParameters": {"proxy": matched}}
    without = rest_event("GET", "/app") | {"pathParameters": {"proxy": "app"}}

    assert events.read(event, clock=0).path == "/app/"
    assert events.read(without, clock=0).path == "/app"


# --- the app of this checkout -----------------------------------------------------------

IMPORTED = re.compile(r"""(?:\bfrom|\bimport)\s*\(?\s*["'](\.{1,2}/[^"']+)["']""")


def test_whatever_the_app_imports_is_served() -> None:
    """As modules; a packed app is asked what it lacks where it is packed."""
    scripts = {path: file for path, file in files(WEB).items() if path.endswith(".js")}
    served = {path: file.body.decode() for path, file in scripts.items()}
    library = set(Library(WEB / "muster").modules)

    assert "/app/main.js" in served
    for path, text in served.items():
        if path != "/app/sw.js":
            for name in IMPORTED.findall(text):
                assert urljoin(path, name) in {*served, *library}, (path, name)
