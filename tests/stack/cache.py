"""Where downloads are kept: outside the tree, so that a clean checkout need not fetch them again."""

import hashlib
import os
from pathlib import Path


def root() -> Path:
    """The cache folder: $ISK_TEST_CACHE, or a folder in the user's cache."""
    configured = os.environ.get("ISK_TEST_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "isk-tests"


def digest(text: str) -> str:
    """A short name for a thing that is wholly described by `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
