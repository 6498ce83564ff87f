"""docs/terminal.md names the tests of each row of the command line's contract; they are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "terminal.md").read_text()
FILES = {TESTS / "house" / name for name in re.findall(r"`tests/house/(test_\w+\.py)`", PAGE)}
FILES |= {TESTS / "client" / name for name in re.findall(r"`(test_\w+\.py)`", PAGE)}


def test_every_test_that_the_page_names_is_there():
    texts = [path.read_text() for path in FILES]
    assert len(texts) > 15
    for name in re.findall(r"`(test_\w+)`", PAGE):
        assert any(f"def {name}(" in text for text in texts), name
