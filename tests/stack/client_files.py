"""The files of deploy/clients, with a test's own addresses and credential in place of those that users replace."""

from __future__ import annotations

import re
from pathlib import Path

from .versions import TESTS

FOLDER = TESTS.parent / "deploy" / "clients"
# What the files say.
CATALOG = "http://127.0.0.1:11001"
GATEWAY = "http://127.0.0.1:11000"


def path(name: str, credential: str | None = None) -> Path:
    """The file for a service that asks who comes in, or for one that does not."""
    return FOLDER / ("credential" if credential else "open") / name


def text(name: str, catalog_uri: str, s3_endpoint: str = GATEWAY, credential: str | None = None) -> str:
    """A file's text for a service at these addresses; `credential` is `id:secret`."""
    text = path(name, credential).read_text().replace(CATALOG, catalog_uri).replace(GATEWAY, s3_endpoint)
    if credential:
        client, _, secret = credential.partition(":")
        text = text.replace("id:secret", credential).replace("'id'", f"'{client}'").replace("'secret'", f"'{secret}'")
    return text


def properties(text: str) -> dict[str, str]:
    """Of a .properties or .conf file: a name, `=` or spaces, and a value on each line."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(re.fullmatch(r"(\S+?)(?:\s*=\s*|\s+)(\S+)", line).groups() for line in lines)


def pyiceberg(text: str) -> dict[str, str]:
    """The properties of the catalog `isk`, read as PyIceberg reads its file."""
    import strictyaml

    return strictyaml.load(text).data["catalog"]["isk"]


def statements(text: str) -> list[str]:
    """Of an SQL file."""
    without_comments = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE)
    return [statement.strip() for statement in without_comments.split(";") if statement.strip()]


def options(statement: str) -> dict[str, str]:
    """The quoted pairs of an SQL statement."""
    return dict(re.findall(r"'([^']+)' = '([^']*)'", statement))
