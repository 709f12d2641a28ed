"""One form for the values of all engines, and an order-free checksum of each column.

Types are written as Python values: "long", ["string"] (a list), ("map", "long") (keys are strings), {"x": "double"} (a struct).
"""

import datetime
import decimal
import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MICROSECOND = datetime.timedelta(microseconds=1)

# What every table has after the value's fields.
METADATA_COLUMNS = {
    "kafka_partition": "int",
    "kafka_offset": "long",
    "kafka_timestamp": "timestamptz",
    "kafka_timestamp_type": "string",
    "kafka_key": "binary",
    "kafka_headers": [{"key": "string", "value": "binary"}],
}


def canonical(kind: Any, value: Any) -> Any:
    """The value as JSON can say it. What clients call by different names (bytes and bytearray, ...) becomes the same."""
    if value is None:
        return None
    if isinstance(kind, list):
        return [canonical(kind[0], item) for item in value]
    if isinstance(kind, tuple):
        pairs = value.items() if isinstance(value, Mapping) else [(p["key"], p["value"]) if isinstance(p, Mapping) else p for p in value]
        return sorted([_primitive("string", key), canonical(kind[1], item)] for key, item in pairs)
    if isinstance(kind, dict):
        fields = value if isinstance(value, Mapping) else dict(zip(kind, value, strict=True))
        assert set(fields) == set(kind), f"a struct of {list(kind)} came as {list(fields)}"
        return {name: canonical(inner, fields[name]) for name, inner in kind.items()}
    return _primitive(kind, value)


def _primitive(kind: str, value: Any) -> Any:
    if kind in ("int", "long"):
        return int(value)
    if kind in ("float", "double"):
        return repr(float(value))
    if kind == "boolean":
        return bool(value)
    if kind == "binary" or kind.startswith("fixed"):
        return (value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)).hex()
    if kind == "uuid":
        return str(uuid.UUID(bytes=bytes(value)) if isinstance(value, bytes | bytearray) else value)
    if kind.startswith("decimal"):
        scale = int(kind.rstrip(")").split(",")[1])
        return format(decimal.Decimal(value).quantize(decimal.Decimal(1).scaleb(-scale), context=decimal.Context(prec=40)), "f")
    if kind.startswith("timestamp"):
        aware = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        return (aware - EPOCH) // MICROSECOND
    if kind == "time":
        return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
    if kind == "date":
        return (value if type(value) is datetime.date else value.date()).isoformat()
    assert kind == "string", kind
    return value.decode() if isinstance(value, bytes) else str(value)


def without_nested_nulls(kind: Any, value: Any) -> Any:
    """The canonical value as an engine shows it that has no null lists, maps and structs."""
    if isinstance(kind, list):
        return [without_nested_nulls(kind[0], item) for item in value or []]
    if isinstance(kind, tuple):
        return [[key, without_nested_nulls(kind[1], item)] for key, item in value or []]
    if isinstance(kind, dict):
        return {name: without_nested_nulls(inner, (value or {}).get(name)) for name, inner in kind.items()}
    return value


def checksums(columns: Mapping[str, Any], rows: Iterable[Sequence[Any] | Mapping[str, Any]], nested_nulls: bool = True) -> dict[str, str]:
    """For each column, the number of values and the sum of their digests; for `*`, of whole rows, so that mixed-up rows show."""
    sums, count = dict.fromkeys([*columns, "*"], 0), 0
    for row in rows:
        values = [row[name] for name in columns] if isinstance(row, Mapping) else row
        typed = [(kind, canonical(kind, value)) for kind, value in zip(columns.values(), values, strict=True)]
        seen = [value if nested_nulls else without_nested_nulls(kind, value) for kind, value in typed]
        texts = [json.dumps(value, sort_keys=True) for value in seen]
        for name, text in zip(sums, [*texts, "\n".join(texts)], strict=True):
            sums[name] += int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
        count += 1
    return {name: f"{count} rows, {total % 2**64:016x}" for name, total in sums.items()}
