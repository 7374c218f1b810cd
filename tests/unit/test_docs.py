import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page.relative_to(ROOT).as_posix() for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
)
ELSEWHERE = ("http://", "https://", "mailto:")
CODE = "capsules|muster|chalicelib|infra|tools"
ROOMS = rf"{CODE}|tests|web|docs|packaging|\.ci"


@cache
def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """Return what is no code block: a `#` in there is a comment, a bracket is an index."""
    return re.sub(r"(?ms)^```.*?^```$|^(?: {4}|\t).*?$", "", text(page))


def links(page: str) -> list[str]:
    found = re.findall(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)", prose(page))
    return [link for link in found if not link.startswith(ELSEWHERE)]


def anchors(page: str) -> set[str]:
    """Return the names of a page's headings, as the places that show Markdown make them."""
    headings = re.findall(r"(?m)^#{1,6} +(.+?) *#*$", prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def target(page: str, link: str) -> str:
    """Return what a link leads to, as a path from the top of the repository."""
    file = unquote(link).partition("#")[0]
    there = (ROOT / page).parent / file if file else ROOT / page
    return there.resolve().relative_to(ROOT).as_posix()


def leads_somewhere(page: str, link: str) -> bool:
    there, anchor = target(page, link), unquote(link).partition("#")[2]
    return (ROOT / there).exists() and (not anchor or anchor in anchors(there))


def spans(page: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def paths(page: str) -> list[str]:
    """Return what looks like a path of this repository."""
    return [span for span in spans(page) if re.fullmatch(rf"({ROOMS})/[\w./-]*", span)]


def modules(page: str) -> list[str]:
    """Return the dotted names of ours, in backticks and in the Python that a page shows."""
    shown = re.findall(r"(?m)^(?:from|import) ([\w.]+)", text(page))
    named = [re.match(rf"(?:{CODE})(?:\.\w+)+(?=\(|$)", name) for name in (*spans(page), *shown)]
    return [name[0] for name in named if name]


def exists(name: str) -> bool:
    """Say whether a dotted name is a module, or a name in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            spec = find_spec(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        if spec and spec.origin:
            rest = ".".join(parts[length : length + 1])
            return not rest or bool(re.search(rf"\b{rest}\b", Path(spec.origin).read_text()))
    return False


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    assert [link for link in links(page) if not leads_somewhere(page, link)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_path_it_names_is_there(page: str) -> None:
    assert [path for path in paths(page) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_module_it_names_is_there(page: str) -> None:
    assert [name for name in modules(page) if not exists(name)] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, new = set[str](), ["README.md"]
    while new:
        page = new.pop()
        reached.add(page)
        new += {target(page, link) for link in links(page)} & set(PAGES) - reached

    assert set(PAGES) - reached == set()


def test_every_page_that_the_code_names_is_there() -> None:
    files = [
        file
        for room in (*CODE.split("|"), "tests", "web", "packaging")
        for file in (ROOT / room).rglob("*")
        if file.suffix in {".py", ".js", ".json", ".html", ".service", ".conf"}
        and file.is_file()
        and "node_modules" not in file.parts
    ]
    named = {
        name
        for file in files
        for name in re.findall(r"\bdocs/[\w/-]+\.\w+", file.read_text(encoding="utf-8"))
    }

    assert "docs/formats.md" in named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
