"""The systemd units: systemd itself checks them, and they start what the command really takes."""

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from muster.cli.main import parser
from tests.support.local import ROOT

UNIT = ROOT / "packaging" / "muster.service"
WATCH = ROOT / "packaging" / "muster-watch.service"
NODE = ROOT / "packaging" / "muster-node.service"
TIMER = ROOT / "packaging" / "muster-watch.timer"
ANALYZE = shutil.which("systemd-analyze")

systemd = pytest.mark.skipif(
    ANALYZE is None, reason="needs systemd-analyze: apt-get install systemd"
)


def service(unit: Path = UNIT) -> dict[str, str]:
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read(unit)
    return dict(read["Service"])


@pytest.fixture(params=[UNIT, WATCH, NODE], ids=lambda unit: unit.stem)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit with a command that is there."""
    here = str(Path(sys.executable).with_name("muster"))
    path = Path(tmp_path / request.param.name)
    path.write_text(request.param.read_text().replace("/opt/muster/bin/muster", here))
    return path


@systemd
def test_systemd_finds_nothing_wrong(unit: Path) -> None:
    command = [str(ANALYZE), "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@systemd
def test_systemd_finds_little_exposed(unit: Path) -> None:
    """Of 10; what is left is that it talks with the network and has a file system to read."""
    command = [str(ANALYZE), "security", "--offline=yes", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"exposure level for \S+: (\d+\.\d+)", done.stdout)

    assert found, done.stdout + done.stderr
    assert float(found[1]) <= 1.5


def test_the_command_takes_what_the_unit_gives_it() -> None:
    program, *words = shlex.split(service()["ExecStart"])
    chosen = parser().parse_args(words)

    assert program == "/opt/muster/bin/muster"
    assert chosen.run == "muster.cli.serving:serve"
    assert (chosen.host, chosen.trusted_proxy) == ("127.0.0.1", ["127.0.0.1/32"])
    assert chosen.data == "/var/lib/" + service()["StateDirectory"]


def test_it_is_installed_as_the_image_is_whose_steps_are_tested() -> None:
    said = [line.removeprefix("#").strip() for line in UNIT.read_text().splitlines()]
    steps = re.findall(r"\S+/pip install [^\\\n]+", (ROOT / "Dockerfile").read_text())

    assert len(steps) == 2
    assert [line for line in said if "pip install" in line] == [step.strip() for step in steps]


@systemd
def test_systemd_takes_the_timer_with_the_unit_that_it_starts(tmp_path: Path) -> None:
    here = str(Path(sys.executable).with_name("muster"))
    (tmp_path / WATCH.name).write_text(WATCH.read_text().replace("/opt/muster/bin/muster", here))
    timer = Path(shutil.copy(TIMER, tmp_path))
    command = [str(ANALYZE), "verify", "--man=no", str(timer)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_command_takes_what_the_watching_unit_gives_it() -> None:
    told = service(WATCH)
    said = [line.removeprefix("#").strip() for line in WATCH.read_text().splitlines()]
    [example] = [line for line in said if line.startswith("echo 'WATCH=")]
    words = example.partition("=")[2].partition("'")[0]
    program, *given = shlex.split(told["ExecStart"].replace("$WATCH", words))
    chosen = parser().parse_args(given)

    assert program == "/opt/muster/bin/muster"
    assert chosen.run == "muster.cli.watching:watch"
    assert (chosen.base, chosen.after, chosen.root) == ("https://example.org", 2, "KEY")
    assert "MUSTER_HOME=/var/lib/" + told["StateDirectory"] in WATCH.read_text()
