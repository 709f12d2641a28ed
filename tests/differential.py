"""Records of random schemas as Confluent's serializers write them, with what the producer's own library reads back.

    python tests/differential.py OUT [--schemas 500] [--records 200] [--seed 1] [--formats avro json protobuf]

Writes one JSON object a line for each schema: its format and text, and the records: framed bytes in hexadecimal digits and the row that the
library's reading of them is. `crates/decode/tests/differential.rs` decodes them: a small file is part of the tests, `make differential` makes a large one.

Values of rows: null, true, {"i": whole number}, {"f": the bits of a double}, {"t": text}, {"b": bytes in digits}, {"l": list}, {"m": map's pairs by key},
{"s": struct's fields}, {"j": any JSON}.
"""

import argparse
import base64
import datetime
import decimal
import gzip
import json
import random
import string
import struct
import uuid

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2, wrappers_pb2

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
WORDS = ["", "a", "Zoë", "line\nbreak", 'quote" \\ slash/', "\U0001f600 smile", "\x00\x1f\x7f", "x" * 200, "日本語"]
FIELD = descriptor_pb2.FieldDescriptorProto


def micros(moment):
    return (moment - EPOCH) // datetime.timedelta(microseconds=1)


def i(n):
    return {"i": str(n)}


def f(x):
    return {"f": str(struct.unpack("<Q", struct.pack("<d", x))[0])}


class Random(random.Random):
    def word(self):
        return self.choice(WORDS) if self.random() < 0.3 else "".join(self.choices(string.ascii_letters + "äß€ ", k=self.randrange(12)))

    def bits(self, bits):
        """Whole numbers of so many bits, the small and the extreme ones more often."""
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        return self.choice([0, 1, -1, low, high, self.randrange(-100, 100), self.randrange(low, high)])

    def double(self):
        return self.choice([0.0, -0.0, 1.5, 1e308, 5e-324, 0.1, 1 / 3, -2.5e-10, self.uniform(-1e6, 1e6), float(self.bits(54))])

    def single(self):
        return struct.unpack("<f", struct.pack("<f", self.choice([0.0, -0.0, 0.5, 3.4028234663852886e38, 1e-45, self.uniform(-1e3, 1e3)])))[0]

    def bytes(self):
        return self.randbytes(self.choice([0, 1, 3, 20]))

    def moment(self, digits):
        seconds = self.choice([0, -1, self.randrange(-(10**10), 10**10), -62_135_596_800 + 86_400, 253_402_300_799])
        return EPOCH + datetime.timedelta(seconds=seconds, microseconds=self.randrange(10**digits) * 10 ** (6 - digits))


# ---- Avro: a type is (schema, make a value, shown value)


class Avro:
    def __init__(self, rnd):
        self.rnd, self.names = rnd, 0

    def name(self):
        self.names += 1
        return f"N{self.names}"

    def scalar(self):
        r = self.rnd
        precision = r.randrange(1, 39)
        scale = r.randrange(precision + 1)
        size = max(1, (10**precision).bit_length() // 8 + 1)

        def number():
            return decimal.Decimal(r.randrange(-(10**precision) + 1, 10**precision)).scaleb(-scale, decimal.Context(prec=60))

        def unscaled(d):
            return i(int(d.scaleb(scale, decimal.Context(prec=60))))

        symbols = ["A", "B", "C", "D"][: r.randrange(1, 5)]
        length = r.randrange(1, 20)
        midnight = datetime.datetime(2000, 1, 1)
        all = [
            ("boolean", lambda: r.random() < 0.5, lambda v: v),
            ("int", lambda: r.bits(32), i),
            ("long", lambda: r.bits(64), i),
            ("float", r.single, f),
            ("double", r.double, f),
            ("string", r.word, lambda v: {"t": v}),
            ("bytes", r.bytes, lambda v: {"b": v.hex()}),
            ({"type": "enum", "name": self.name(), "symbols": symbols}, lambda: r.choice(symbols), lambda v: {"t": v}),
            ({"type": "fixed", "name": self.name(), "size": length}, lambda: r.randbytes(length), lambda v: {"b": v.hex()}),
            ({"type": "int", "logicalType": "date"}, lambda: r.moment(0).date(), lambda v: i((v - EPOCH.date()).days)),
            ({"type": "int", "logicalType": "time-millis"}, lambda: datetime.time(r.randrange(24), 59, 1, r.randrange(1000) * 1000), lambda v: i((datetime.datetime.combine(midnight, v) - midnight) // datetime.timedelta(microseconds=1))),
            ({"type": "long", "logicalType": "time-micros"}, lambda: datetime.time(r.randrange(24), 59, 1, r.randrange(10**6)), lambda v: i((datetime.datetime.combine(midnight, v) - midnight) // datetime.timedelta(microseconds=1))),
            ({"type": "long", "logicalType": "timestamp-millis"}, lambda: r.moment(3), lambda v: i(micros(v))),
            ({"type": "long", "logicalType": "timestamp-micros"}, lambda: r.moment(6), lambda v: i(micros(v))),
            ({"type": "long", "logicalType": "local-timestamp-millis"}, lambda: r.moment(3).replace(tzinfo=None), lambda v: i(micros(v.replace(tzinfo=datetime.UTC)))),
            ({"type": "long", "logicalType": "local-timestamp-micros"}, lambda: r.moment(6).replace(tzinfo=None), lambda v: i(micros(v.replace(tzinfo=datetime.UTC)))),
            ({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}, number, unscaled),
            ({"type": "fixed", "name": self.name(), "size": size, "logicalType": "decimal", "precision": precision, "scale": scale}, number, unscaled),
            ({"type": "string", "logicalType": "uuid"}, lambda: uuid.UUID(int=r.getrandbits(128)), lambda v: {"b": v.hex}),
        ]
        return r.choice(all)

    def type(self, depth):
        r = self.rnd
        kind = r.random()
        if depth == 0 or kind < 0.55:
            return self.scalar()
        if kind < 0.65:
            schema, make, show = self.type(depth - 1)
            return {"type": "array", "items": schema}, lambda: [make() for _ in range(r.randrange(4))], lambda v: {"l": [show(x) for x in v]}
        if kind < 0.75:
            schema, make, show = self.type(depth - 1)
            return {"type": "map", "values": schema}, lambda: {r.word(): make() for _ in range(r.randrange(4))}, lambda v: {"m": [[k, show(v[k])] for k in sorted(v, key=str.encode)]}
        if kind < 0.9:
            schema, make, show = self.type(depth - 1)
            if isinstance(schema, list):
                return schema, make, show
            branches = ["null", schema] if r.random() < 0.7 else [schema, "null"]
            return branches, lambda: None if r.random() < 0.4 else make(), lambda v: None if v is None else show(v)
        if kind < 0.95:
            # The branches differ in Python, so that the library cannot take one for another.
            chosen = r.sample(["boolean", "long", "double", "string", "bytes"], r.randrange(2, 5))
            made = {"boolean": (lambda: r.random() < 0.5, bool, lambda v: v), "long": (lambda: r.bits(64), int, i), "double": (r.double, float, f)}
            made |= {"string": (r.word, str, lambda v: {"t": v}), "bytes": (r.bytes, bytes, lambda v: {"b": v.hex()})}
            null = ["null"] if r.random() < 0.5 else []

            def make():
                return None if null and r.random() < 0.3 else made[r.choice(chosen)][0]()

            def show(v):
                return None if v is None else {"s": [made[c][2](v) if type(v) is made[c][1] else None for c in chosen]}

            return null + chosen, make, show
        return self.record(depth - 1)

    def record(self, depth):
        name, r = self.name(), self.rnd
        fields = [(f"f{n}", *self.type(depth)) for n in range(r.randrange(1, 8))]
        schema = {"type": "record", "name": name, "fields": [{"name": n, "type": s} for n, s, _, _ in fields]}
        return schema, lambda: {n: make() for n, _, make, _ in fields}, lambda v: {"s": [show(v[n]) for n, _, _, show in fields]}


def avro(rnd):
    schema, make, show = Avro(rnd).record(3)
    text, client = json.dumps(schema), SchemaRegistryClient.new_client({"url": "mock://"})
    return text, make, AvroSerializer(client, text), AvroDeserializer(client), show


# ---- JSON Schema


def json_scalar(r):
    def text(v):
        return {"t": v}

    words = [r.word() or "empty" for _ in range(3)]
    zone = datetime.timezone(datetime.timedelta(minutes=r.randrange(-14 * 60, 14 * 60)))
    middle = [datetime.datetime(y, 3, 1, 12, 30, 59, u, tzinfo=zone) for y in (1, 1969, 2024, 9998) for u in (0, 500_000, 123_456)]

    def free():
        return r.choice([None, True, r.word(), r.bits(53), [1, "x", None], {"a": {"b": [0.5]}}])

    return r.choice(
        [
            ({"type": "boolean"}, lambda: r.random() < 0.5, lambda v: v),
            ({"type": "integer"}, lambda: r.bits(64), i),
            ({"type": "number"}, lambda: r.choice([r.double(), r.bits(40)]), lambda v: f(float(v))),
            ({"type": "string"}, r.word, text),
            ({"type": "string", "enum": words}, lambda: r.choice(words), text),
            ({"enum": words}, lambda: r.choice(words), text),
            ({"type": "string", "format": "date-time"}, lambda: r.choice(middle).isoformat(), lambda v: i(micros(datetime.datetime.fromisoformat(v)))),
            ({"type": "string", "format": "date"}, lambda: r.moment(0).date().isoformat(), lambda v: i((datetime.date.fromisoformat(v) - EPOCH.date()).days)),
            ({"type": "string", "format": "uuid"}, lambda: str(uuid.UUID(int=r.getrandbits(128))), lambda v: {"b": uuid.UUID(v).hex}),
            ({}, free, lambda v: None if v is None else {"j": v}),
        ]
    )


def json_type(r, depth):
    kind = r.random()
    if depth == 0 or kind < 0.5:
        return json_scalar(r)
    if kind < 0.62:
        schema, make, show = json_type(r, depth - 1)
        return {"type": "array", "items": schema}, lambda: [make() for _ in range(r.randrange(4))], lambda v: {"l": [show(x) for x in v]}
    if kind < 0.72:
        schema, make, show = json_type(r, depth - 1)
        if not schema:
            return json_scalar(r)
        return {"type": "object", "additionalProperties": schema}, lambda: {r.word(): make() for _ in range(r.randrange(4))}, lambda v: {"m": [[k, show(v[k])] for k in sorted(v, key=str.encode)]}
    if kind < 0.85:
        schema, make, show = json_type(r, depth - 1)
        if not schema or "oneOf" in schema or "enum" in schema:
            return schema, make, show
        return {"oneOf": [{"type": "null"}, schema]}, lambda: None if r.random() < 0.4 else make(), lambda v: None if v is None else show(v)
    return json_object(r, depth - 1)


def json_object(r, depth):
    fields = [(r.choice([f"f{n}", f"Fäld {n}", f'q"{n}', f"d{n}x"]), *json_type(r, depth)) for n in range(r.randrange(1, 8))]
    rest = r.random() < 0.2
    schema = {"type": "object", "properties": {n: s for n, s, _, _ in fields}}
    if rest:
        schema["additionalProperties"] = {"type": "integer"}

    def make():
        members = [(n, make()) for n, _, make, _ in fields if r.random() < 0.9]
        members += [(f"more {n}", r.bits(64)) for n in range(r.randrange(3))] if rest or r.random() < 0.1 else []
        if r.random() < 0.3:
            r.shuffle(members)
        return dict(members)

    def show(v):
        shown = [None if v.get(n) is None else s(v[n]) for n, _, _, s in fields]
        names = {n for n, *_ in fields}
        more = {k: x for k, x in v.items() if k not in names}
        return {"s": shown + ([{"m": [[k, i(more[k])] for k in sorted(more, key=str.encode)]}] if rest else [])}

    return schema, make, show


def as_json(rnd):
    schema, make, show = json_object(rnd, 3)
    schema["title"] = "Root"
    text, client = json.dumps(schema), SchemaRegistryClient.new_client({"url": "mock://"})
    return text, make, JSONSerializer(text, client, conf={"validate": False}), JSONDeserializer(text, schema_registry_client=client, conf={"validate": False}), show


# ---- Protobuf


SCALARS = {
    FIELD.TYPE_DOUBLE: (Random.double, f),
    FIELD.TYPE_FLOAT: (Random.single, f),
    FIELD.TYPE_INT32: (lambda r: r.bits(32), i),
    FIELD.TYPE_SINT32: (lambda r: r.bits(32), i),
    FIELD.TYPE_SFIXED32: (lambda r: r.bits(32), i),
    FIELD.TYPE_INT64: (lambda r: r.bits(64), i),
    FIELD.TYPE_SINT64: (lambda r: r.bits(64), i),
    FIELD.TYPE_SFIXED64: (lambda r: r.bits(64), i),
    FIELD.TYPE_UINT32: (lambda r: r.bits(32) + 2**31, i),
    FIELD.TYPE_FIXED32: (lambda r: r.bits(32) + 2**31, i),
    FIELD.TYPE_UINT64: (lambda r: r.bits(64) + 2**63, i),
    FIELD.TYPE_FIXED64: (lambda r: r.bits(64) + 2**63, i),
    FIELD.TYPE_BOOL: (lambda r: r.random() < 0.5, lambda v: v),
    FIELD.TYPE_STRING: (Random.word, lambda v: {"t": v}),
    FIELD.TYPE_BYTES: (Random.bytes, lambda v: {"b": v.hex()}),
}
KEYS = [FIELD.TYPE_STRING, FIELD.TYPE_INT32, FIELD.TYPE_SINT64, FIELD.TYPE_FIXED32, FIELD.TYPE_UINT64, FIELD.TYPE_BOOL]
SYMBOLS = {0: "ZERO", 1: "ONE", -7: "MINUS", 300: "MANY"}
KNOWN = {".google.protobuf.Timestamp": timestamp_pb2, ".google.protobuf.Int64Value": wrappers_pb2, ".google.protobuf.StringValue": wrappers_pb2, ".google.protobuf.BoolValue": wrappers_pb2}


class Proto:
    """Adds messages to a file; a field is (name, fill a message, show a message's)."""

    def __init__(self, rnd):
        self.rnd, self.count = rnd, 0
        self.file = descriptor_pb2.FileDescriptorProto(name="random.proto", package="rnd", syntax="proto3")
        self.file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"])
        self.file.enum_type.add(name="Symbol", value=[descriptor_pb2.EnumValueDescriptorProto(name=n, number=v) for v, n in SYMBOLS.items()])

    def message(self, holder, depth):
        r = self.rnd
        self.count += 1
        made = holder.add(name=f"M{self.count}")
        if r.random() < 0.5:
            made.oneof_decl.add(name="choice")
        numbers = sorted(r.sample([*range(1, 30), 1000, 2**29 - 1], r.randrange(1, 9)))
        fields = [self.field(made, n, depth) for n in numbers]
        if not any(field.HasField("oneof_index") for field in made.field):
            made.ClearField("oneof_decl")
        # Optional fields have groups of their own, which come behind the others.
        for field in made.field:
            if field.proto3_optional:
                field.oneof_index = len(made.oneof_decl)
                made.oneof_decl.add(name=f"_{field.name}")

        def fill(message):
            for fill, _ in r.sample(fields, len(fields)):
                if r.random() < 0.8:
                    fill(message)

        def show(message):
            return {"s": [show(message) for _, show in fields]}

        return made, fill, show

    def value(self, field, path, holder, depth):
        """Sets the field's type; gives what makes a value (or fills a message), what shows one, and whether it is a message."""
        r, kind = self.rnd, self.rnd.random()
        if kind < 0.12:
            field.type, field.type_name = FIELD.TYPE_ENUM, ".rnd.Symbol"
            return lambda: r.choice([*SYMBOLS, 12345]), lambda v: {"t": SYMBOLS.get(v, str(v))}, False
        if kind < 0.24 and depth:
            inner, fill, show = self.message(holder, depth - 1)
            field.type, field.type_name = FIELD.TYPE_MESSAGE, f"{path}.{inner.name}"
            return fill, show, True
        if kind < 0.36:
            name = r.choice(list(KNOWN))
            field.type, field.type_name = FIELD.TYPE_MESSAGE, name
            if name.endswith("Timestamp"):
                # From the year 1 to the year 9999, in nanoseconds.
                def fill(m):
                    m.FromMicroseconds(micros(r.moment(6)))
                    m.nanos += r.randrange(1000)

                return fill, lambda m: i(m.seconds * 10**6 + m.nanos // 1000), True
            make, show = {"Int64Value": (lambda: r.bits(64), i), "StringValue": (r.word, lambda v: {"t": v}), "BoolValue": (lambda: r.random() < 0.5, lambda v: v)}[name.rsplit(".", 1)[1]]

            def wrapped(m):
                m.SetInParent()
                m.value = make()

            return wrapped, lambda m: show(m.value), True
        field.type = r.choice(list(SCALARS))
        make, show = SCALARS[field.type]
        return lambda: make(r), show, False

    def field(self, message, number, depth):
        r, name = self.rnd, f"f{number}"
        field = message.field.add(name=name, number=number, label=FIELD.LABEL_OPTIONAL)
        path = self.path(message)
        how = r.random()
        if how < 0.15:
            field.label, field.type, field.type_name = FIELD.LABEL_REPEATED, FIELD.TYPE_MESSAGE, f"{path}.F{number}Entry"
            entry = message.nested_type.add(name=f"F{number}Entry")
            entry.options.map_entry = True
            key = r.choice(KEYS)
            entry.field.add(name="key", number=1, type=key, label=FIELD.LABEL_OPTIONAL)
            make, show, is_message = self.value(entry.field.add(name="value", number=2, label=FIELD.LABEL_OPTIONAL), path, message.nested_type, depth)

            def fill(m):
                for _ in range(r.randrange(4)):
                    k = SCALARS[key][0](r)
                    if is_message:
                        make(getattr(m, name)[k])
                    else:
                        getattr(m, name)[k] = make()

            def text(k):
                return str(k).lower() if isinstance(k, bool) else str(k)

            return fill, lambda m: {"m": sorted(([text(k), show(v)] for k, v in getattr(m, name).items()), key=lambda pair: pair[0].encode())}
        make, show, is_message = self.value(field, path, message.nested_type, depth)
        if how < 0.35:
            field.label = FIELD.LABEL_REPEATED

            def add(m):
                for _ in range(r.randrange(4)):
                    if is_message:
                        make(getattr(m, name).add())
                    else:
                        getattr(m, name).append(make())

            return add, lambda m: {"l": [show(v) for v in getattr(m, name)]}
        if message.oneof_decl and how < 0.6:
            field.oneof_index = 0
        elif not is_message and how < 0.75:
            field.proto3_optional = True
        present = is_message or field.HasField("oneof_index") or field.proto3_optional

        def set(m):
            if is_message:
                getattr(m, name).SetInParent()
                make(getattr(m, name))
            else:
                setattr(m, name, make())

        return set, lambda m: None if present and not m.HasField(name) else show(getattr(m, name))

    def path(self, message):
        """The full name of a message that was added to the file."""

        def find(holder, above):
            for one in holder:
                if one is message or one.name == message.name:
                    return f"{above}.{one.name}"
                below = find(one.nested_type, f"{above}.{one.name}")
                if below:
                    return below
            return None

        return find(self.file.message_type, ".rnd")


def protobuf(rnd):
    made = Proto(rnd)
    root, fill, show = made.message(made.file.message_type, 2)
    pool = descriptor_pool.DescriptorPool()
    for known in (timestamp_pb2, wrappers_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.Add(made.file)
    cls = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"rnd.{root.name}"))

    def make():
        message = cls()
        fill(message)
        return message

    client = SchemaRegistryClient.new_client({"url": "mock://"})
    text = base64.b64encode(made.file.SerializeToString()).decode()
    conf = {"use.deprecated.format": False}
    return text, make, ProtobufSerializer(cls, client, conf=conf), ProtobufDeserializer(cls, conf), show


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="the file; compressed where it ends with .gz")
    parser.add_argument("--schemas", type=int, default=500, help="of each format")
    parser.add_argument("--records", type=int, default=200, help="of each schema")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--formats", nargs="+", default=["avro", "json", "protobuf"])
    options = parser.parse_args()
    context = SerializationContext("topic", MessageField.VALUE)
    opened = gzip.open if options.out.endswith(".gz") else open
    with opened(options.out, "wt") as out:
        for format in options.formats:
            for n in range(options.schemas):
                rnd = Random(f"{options.seed} {format} {n}")
                text, make, serialize, read, show = {"avro": avro, "json": as_json, "protobuf": protobuf}[format](rnd)
                records = []
                for _ in range(options.records):
                    framed = serialize(make(), context)
                    records.append([framed.hex(), show(read(framed, context))["s"]])
                print(json.dumps({"format": format, "schema": text, "records": records}), file=out)
        print(f"{options.out}: {options.schemas} schemas of {options.records} records in each of {', '.join(options.formats)}")


if __name__ == "__main__":
    main()
