"""Is everything in the package that Lambda is given, and nothing else? Chalice does not say."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib import app_files, library
from chalicelib.aws.events import EVERY
from infra import archive, packing
from infra.packing import Package
from muster.cli.output import Failure
from tests.support.gateway import rest_event

ZIP_BYTES = 8_000_000

TRY = """
import sys
sys.path.insert(0, sys.argv[1])
import json, app
import capsules, cryptography, msgspec, muster.felund.frames, nacl.signing
answer = app.app(json.loads(sys.argv[2]), None)
print(json.dumps([answer["statusCode"], app.__file__]))
"""


def test_the_package_runs_by_itself_and_is_small(
    package: Package, tree: Path, tmp_path: Path
) -> None:
    event = json.dumps(rest_event("OPTIONS", "/v1/health"))
    environment = {"MUSTER_STORE": f"sqlite:{tmp_path / 'muster.db'}"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", TRY, str(tree), event],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [204, str(tree / "app.py")]
    assert package.archive_bytes <= ZIP_BYTES


ADVISE = """
import sys
sys.path.insert(0, sys.argv[1])
import json, app
before = sorted(name for name in sys.modules if "assist" in name)
answer = app.app(json.loads(sys.argv[2]), None)
pq = json.loads(answer["body"])["pq"]
print(json.dumps([answer["statusCode"], len(pq["kem_public_hex"]), before, "ssl" in sys.modules]))
"""


def test_assist_runs_in_the_package_and_is_loaded_when_it_is_called(
    tree: Path, tmp_path: Path
) -> None:
    assert not list(tree.rglob("*raptorq*"))

    event = json.dumps(rest_event("GET", "/api/p2p/assist"))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", ADVISE, str(tree), event],
        env={
            "MUSTER_STORE": f"sqlite:{tmp_path / 'muster.db'}",
            "MUSTER_ASSIST_OPEN": "allow",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    status, digits, before, ssl = json.loads(done.stdout)
    assert (status, digits) == (200, 2 * 1184)
    assert before == [], "no other call pays for it"
    assert not ssl, "where nothing is probed, no sockets are"


def test_what_the_runtime_has_is_left_out(tree: Path) -> None:
    found = {path.name for path in tree.iterdir()}

    assert not found & {"boto3", "botocore", "pip", "setuptools", "cffi", "pycparser"}
    assert not list(tree.rglob("*.dist-info"))
    assert not list(tree.rglob("*.pyi"))


def test_no_test_tool_command_or_other_host_is_packed(tree: Path) -> None:
    ours = {path.relative_to(tree).as_posix() for path in tree.glob("*/*") if path.is_dir()}

    assert not {"infra", "tests", "tools"} & {path.name for path in tree.iterdir()}
    assert not packing.LEFT_OUT & ours
    assert "chalicelib/circle" in ours


def test_the_browser_library_is_packed_and_nothing_beside_its_modules(tree: Path) -> None:
    folder = tree / "web" / "muster"
    packed = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    ours = {path.relative_to(library.FOLDER): path for path in library.FOLDER.rglob("*.js")}

    assert {name: path.read_bytes() for name, path in packed.items()} == {
        name: path.read_bytes() for name, path in ours.items()
    }
    assert {path.name for path in (tree / "web").iterdir()} == {"app", "muster"}


def test_the_app_is_packed_without_its_sources_and_whole(tree: Path) -> None:
    folder = tree / "web" / "app"
    packed = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    code = {path.name for path in (app_files.WEB / "app" / "packed").glob("app.*")}
    served = app_files.AppFiles(folder, library.Library(tree / "web" / "muster")).files

    assert code == {"app.js", "app.css"}
    assert {f"packed/{name}" for name in code} <= packed
    assert {name for name in packed if not name.startswith("packed/")} == {*app_files.BESIDE}
    assert {"/app/", "/app/sw.js", "/app/manifest.webmanifest", "/app/icon.svg"} <= set(served)
    for name in packed:
        assert (folder / name).read_bytes() == (app_files.WEB / "app" / name).read_bytes()


def test_what_packed_code_imports_of_ours_is_packed(tree: Path) -> None:
    """Late imports too, which no cold start would miss."""
    roots = ("app", "capsules", "chalicelib", "muster")
    sources = [tree / "app.py", *(p for name in roots[1:] for p in (tree / name).rglob("*.py"))]
    missing = {
        (source.relative_to(tree).as_posix(), name)
        for source in sources
        for name in imported(source)
        if name.partition(".")[0] in (*roots, "infra", "tools")
        and not (tree / name.replace(".", "/")).is_dir()
        and not (tree / f"{name.replace('.', '/')}.py").exists()
    }

    assert missing == set()


def imported(source: Path) -> Iterator[str]:
    """Yield the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(source.read_text())):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(name)):
                yield name


def test_every_module_is_compiled_and_taken_as_it_is(tree: Path) -> None:
    """Flag 1 is a hash in place of a time, without 2 it is not checked (PEP 552)."""
    tag = sys.implementation.cache_tag
    sources = list(tree.rglob("*.py"))

    assert tree / "app.py" in sources
    for source in sources:
        compiled = source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"
        assert compiled.read_bytes()[4:8] == b"\1\0\0\0", source
    assert not list((tree / "nacl").rglob("*.py"))
    assert str(tree).encode() not in (tree / "__pycache__" / f"app.{tag}.pyc").read_bytes()


def test_the_template_names_the_python_that_compiled(package: Package) -> None:
    functions = [
        resource["Properties"]["Runtime"]
        for resource in package.template["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    ]

    assert set(functions) == {package.runtime}


def test_the_same_files_make_the_same_zip(tree: Path, package: Package, tmp_path: Path) -> None:
    first = archive.write(tree, tmp_path / "first.zip")
    for path in tree.rglob("*.py"):
        path.touch()
    archive.precompile(tree)

    assert archive.write(tree, tmp_path / "second.zip").read_bytes() == first.read_bytes()
    assert first.read_bytes() == package.archive.read_bytes()


def test_libraries_for_another_machine_are_refused(tree: Path) -> None:
    (other,) = (name for name in archive.MACHINES if not archive.fits(tree, name))
    with pytest.raises(Failure, match=f"not for {other}"):
        archive.check(tree, other)


def test_a_package_that_lacks_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "app.py").touch()
    with pytest.raises(Failure, match="lacks capsules, chalice"):
        archive.check(tmp_path, "x86_64")


def test_the_command_says_what_it_made(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infra.packing", "--python", sys.executable]
    done = subprocess.run(
        [*command, str(tmp_path / "out")],
        cwd=packing.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "MB for python3." in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        packing.ARCHIVE,
        packing.TEMPLATE,
    }


def test_the_template_has_every_path_and_function(package: Package) -> None:
    resources = package.template["Resources"]
    handlers = {
        resource["Properties"]["Handler"]
        for resource in resources.values()
        if resource["Type"] == "AWS::Serverless::Function"
    }
    api = resources["RestAPI"]["Properties"]["DefinitionBody"]

    assert {"app.app", "app.on_connect", "app.on_message", "app.on_disconnect"} <= handlers
    assert {"app.greet", "app.sweep", "app.publish"} <= handlers
    assert set(api["paths"]) == {EVERY}
