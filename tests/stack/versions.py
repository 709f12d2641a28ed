"""The pinned versions, read from versions.toml."""

import tomllib
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
VERSIONS = tomllib.loads((Path(__file__).parent / "versions.toml").read_text())
