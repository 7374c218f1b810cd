"""A small app in the two forms that hosts serve: as modules, and as it is packed."""

import contextlib
import os
import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from chalicelib.aws.host import AwsHost
from tests.support import aws, local
from tests.support.gateway import Gateway

ROOT = Path(__file__).resolve().parents[2]

PAGE = """<!doctype html>
<title>A small app</title>
<link rel="manifest" href="./manifest.webmanifest">
<link rel="icon" href="./icon.svg" type="image/svg+xml">
<link rel="apple-touch-icon" href="./apple-touch-icon.png">
<link rel="stylesheet" href="./app.css">
<script type="module" src="./main.js"></script>
<p id="said">nothing</p>
"""
WORKER = """self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(MUSTER.version).then((cache) => cache.addAll(MUSTER.files)));
});
"""
BESIDE: Mapping[str, str | bytes] = {
    "index.html": PAGE,
    "manifest.webmanifest": '{"name":"A small app","start_url":"./","icons":[]}\n',
    "icon.svg": '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"/>\n',
    "icon-maskable.svg": '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"/>\n',
    "apple-touch-icon.png": b"\x89PNG\r\n\x1a\n no text",
    "worker.js": WORKER,
    "vendor/LICENSES": "Somebody's licence\n",
}
MODULES = {
    "main.js": """import { say } from "./view/log.js";
import { hex } from "./muster/bytes.js";
say(hex(new Uint8Array([0xa9])));
""",
    "view/log.js": """import "../vendor/ui.js";
export const say = (text) => { document.getElementById("said").textContent = text; };
""",
    "vendor/ui.js": "export {};\n",
    "app.css": "p { color: teal; }\n",
}
PACKED = {
    "packed/app.js": """const say=(text)=>{document.getElementById("said").textContent=text};
say("packed");export const later=()=>import("./later.js");
""",
    "packed/later.js": 'export const found = "./nothing.js";\n',
    "packed/app.css": "p{color:teal}\n",
}
STRAY = {
    **{"main.md": "", "view/types.d.ts": "", "tsconfig.json": "", ".hidden.js": "", "A.js": ""},
    **{"packed/sources": "0123\n", "vendor/secret.txt": "", "other.html": "<p>"},
}


def as_modules(web: Path) -> Path:
    """Write the app as a checkout has it, the packed form beside it; return its folder."""
    return _written(web, {**BESIDE, **MODULES, **PACKED, **STRAY})


def as_packed(web: Path, *, random_bytes: int = 0) -> Path:
    """Write the app as a service has it that was packed.

    So many random bytes of it no gzip makes smaller: written in hex they take a seventh more.
    """
    packed = dict(PACKED)
    if random_bytes:  # two digits are a byte
        packed["packed/app.js"] += f"//{random.Random(14).randbytes(random_bytes).hex()}\n"
    return _written(web, {**BESIDE, **packed, **STRAY})


def _written(web: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, body in files.items():
        path = web / "app" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body.encode() if isinstance(body, str) else body)
    if not (web / "muster").exists():
        shutil.copytree(ROOT / "web" / "muster", web / "muster")
    return web


def on_aws(made: Gateway, web: Path) -> None:
    """Let the machines of a gateway find the app and the library in a folder of ours."""
    for machine in made.machines:
        vars(machine.module)["host"] = AwsHost(os.environ, web=web)


@contextlib.contextmanager
def on_one_machine(web: Path, directory: Path, *arguments: str) -> Iterator[local.Server]:
    """Run the one-machine host from a copy of the code, which has this app beside it."""
    for name in ("capsules", "muster", "chalicelib"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, web.parent / name, ignore=ignored)
    code = {"PYTHONPATH": str(web.parent), "PYTHONSAFEPATH": "1"}  # and not what is in its folder
    with aws.environ(code), local.running(directory, *arguments) as server:
        yield server
