"""The pictures in the documents are made by a program, and show the screen that there is."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = {"chat", "chat-help", "chat-invite", "chat-search", "chat-settings"}


def test_the_pictures_of_the_chat_are_made_and_need_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.pictures", str(tmp_path)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if "MUSTER" not in name},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in tmp_path.iterdir()} == NAMES
    assert {path.stem for path in (ROOT / "docs" / "pictures").glob("chat*.svg")} == NAMES
    for folder in (tmp_path, ROOT / "docs" / "pictures"):
        for path in folder.glob("chat*.svg"):
            drawn = path.read_text("utf-8")
            assert "url(" not in drawn.replace("url(#", "")
            assert "tomatoes" in drawn or path.stem != "chat"
