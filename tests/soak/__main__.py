"""The soak's command line: starts everything, lets clients read for some minutes while servers go away and come back, and says what it saw."""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import os
import platform
import signal
import statistics
import sys
import threading
import time
from pathlib import Path

import requests

from stack import clients, jdk, records
from stack.isk import Isk, binary, secret_of
from stack.kafka import Broker
from stack.lake import Lake
from stack.process import start_together, tell_reaper
from stack.registry import Registry
from stack.versions import TESTS

from . import readers
from .feeds import PARTITIONS, TOPICS, Feeds, Settled

ROOT = TESTS.parent
OUT = ROOT / "target" / "soak"
SECRET = secret_of("soak")
RULES = """
[[rule]]
principals = ["soak"]
tables = ["*"]
allow = "read"
"""
# Short, so that everything happens often.
SETTINGS = {
    "ISK_AUTH_TOKEN_SECONDS": "60",
    "ISK_AUTH_KEY_SECONDS": "60",
    "ISK_CACHE_BYTES": str(5 * 1024 * 1024),
    "ISK_METADATA_RETENTION_SECONDS": "120",
    "ISK_HISTORY_KEEP_SECONDS": "60",
    "ISK_FOLLOW_TOPICS": "evolving",
    "ISK_PROVER_TOPICS": "steady",
    "ISK_AUTH_OPEN_METRICS": "true",
}
MIB = 1024 * 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/soak/run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--records", type=int, default=600_000, help="of the topic `steady` at the start")
    parser.add_argument("--outages", type=int, default=3, help="how often the broker is killed and started again; the others as often")
    parser.add_argument("--docs", action="store_true", help="write the figures into docs/RELIABILITY.md")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    report = soak(options)
    (OUT / "soak.json").write_text(json.dumps(report, indent=1))
    text = as_text(report)
    print(text)
    if options.docs:
        page = ROOT / "docs" / "RELIABILITY.md"
        before, mark, rest = page.read_text().partition("<!-- soak -->\n")
        _, end, after = rest.partition("<!-- end -->\n")
        page.write_text(before + mark + text + end + after)
    return 0 if report["passed"] else 1


def soak(options: argparse.Namespace) -> dict:
    # A broker that was killed begins with the high watermark of its last checkpoint, and for a moment tells of nothing behind it.
    broker = Broker({"replica.high.watermark.checkpoint.interval.ms": 100}, heap="384m", jvm=jdk.FULL)
    registry = Registry()
    start_together([broker, registry])
    with broker, registry, Lake() as lake:
        lake.pyiceberg().create_namespace("coldset")
        with Isk.beside(broker, registry, lake.isk_environment() | SETTINGS, rules=RULES, known=["soak"]) as isk:
            return _soak(options, broker, registry, lake, isk)


def _soak(options, broker, registry, lake, isk) -> dict:
    spawn = multiprocessing.get_context("spawn")
    array = spawn.Array("q", len(TOPICS) * PARTITIONS)
    service = readers.Service(isk.catalog_uri, isk.s3_endpoint, "soak", SECRET)

    def unmoved():
        catalog = clients.pyiceberg_catalog(isk.catalog_uri, credential=f"soak:{SECRET}")
        return catalog.load_table("hotset.moved$unmoved").scan().to_arrow()

    seconds = options.minutes * 60
    feeds = Feeds(broker, registry, lake, Settled(array), seconds / 24, unmoved)
    feeds.make(options.records)
    feeds.start()
    # The cold table must be there before anybody asks for it.
    while not feeds.counts["moves"]:
        time.sleep(0.5)
    for old in OUT.glob("client-*.jsonl"):
        old.unlink()
    began = time.time()
    died: list[str] = []

    def keep_reading(numbers: list[int]) -> None:
        while (left := began + seconds - time.time()) > 1:
            process = spawn.Process(target=readers.run, args=(service, array, numbers, left, str(OUT / f"client-{numbers[0]}.jsonl")))
            process.start()
            # It has a session of its own, and goes when this one does all the same.
            tell_reaper(f"+{process.pid}")
            process.join(left + 90)
            # DuckDB was seen to end its process where two of its threads met an error at once, and to wait for a lock of its own
            # for ever after an error while it opened a file.
            if process.is_alive():
                process.kill()
                process.join()
            tell_reaper(f"-{process.pid}")
            if process.exitcode:
                died.append(f"clients {numbers} ended with {process.exitcode}")

    threads = [threading.Thread(target=keep_reading, args=(numbers,)) for numbers in readers.processes(options.clients)]
    for thread in threads:
        thread.start()
    samples, outages = [], []
    sampler = threading.Thread(target=_sample, args=(isk, samples, began + seconds), daemon=True)
    sampler.start()
    _outages(options, seconds, broker, registry, lake, service, outages)
    for thread in threads:
        thread.join()
    sampler.join(30)
    feeds.stop()
    noted = [json.loads(line) for path in sorted(OUT.glob("client-*.jsonl")) for line in path.open() if line.endswith("}\n")]
    return _report(options, seconds, noted, samples, outages, feeds, isk) | {"clients_died": died}


def _sample(isk: Isk, samples: list[dict], until: float) -> None:
    while time.time() < until:
        folder = Path(f"/proc/{isk.process.pid}")
        sample = {
            "at": time.time(),
            "resident": isk.resident_bytes(),
            "anonymous": isk.resident_bytes("RssAnon"),
            "descriptors": len(os.listdir(folder / "fd")),
            "threads": len(os.listdir(folder / "task")),
            "load": os.getloadavg()[0],
        }
        try:
            lines = requests.get(f"{isk.catalog_uri}/metrics", timeout=20).text.splitlines()
            sample |= {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line.startswith("isk_"))}
        except requests.RequestException as problem:
            sample["metrics"] = str(problem)
        samples.append(sample)
        time.sleep(5)


def _outages(options, seconds, broker, registry, lake, service, outages: list[dict]) -> None:
    """Kills or halts servers one after the other in the middle part of the time. The broker's return is watched."""
    rounds = [server for _ in range(options.outages) for server in (broker, registry, lake.store)]
    if not rounds:
        return
    records.create_topic(broker.bootstrap, "beacon", 1)
    each = seconds * 0.7 / len(rounds)
    time.sleep(seconds * 0.2)
    for server in rounds:
        next_one = time.time() + each
        outage = {"what": server.name, "from": time.time()}
        if server is registry:
            # It keeps schemas in memory, so it must live; it hangs instead.
            server.send(signal.SIGSTOP)
            time.sleep(5)
            server.send(signal.SIGCONT)
        else:
            server.kill()
            time.sleep(5)
            server.start()
        outage["to"] = time.time()
        if server is broker:
            outage["recovery"] = round(_until_read(broker, service, outage["to"]), 2)
        outages.append(outage)
        time.sleep(max(0.0, next_one - time.time()))


def _until_read(broker: Broker, service: readers.Service, since: float) -> float:
    """Seconds until a record that was produced after a moment is read."""
    value = b"%f" % since
    records.produce(records.producer(broker.bootstrap), "beacon", [value])
    while time.time() < since + 60:
        try:
            catalog = clients.pyiceberg_catalog(service.catalog_uri, credential=f"{service.name}:{service.secret}")
            values = catalog.load_table("hotset.beacon").scan().to_arrow().column("kafka_value").to_pylist()
            if value in [bytes(one) for one in values if one is not None]:
                return time.time() - since
        except Exception:  # noqa: BLE001: it is what is being waited out
            pass
        time.sleep(0.1)
    return float("inf")


def _quantile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else float("nan")


def _report(options, seconds, noted, samples, outages, feeds, isk) -> dict:
    def outage_at(note: dict) -> bool:
        end = note["at"] + note["ms"] / 1000
        return any(note["at"] < one["to"] + 15 and end > one["from"] for one in outages)

    counts = collections.Counter((note["kind"], note["outcome"] if note["outcome"] != "refused" or not outage_at(note) else "refused in outage") for note in noted)
    refused = collections.Counter(note["words"][-160:] for note in noted if note["outcome"] == "refused" and not outage_at(note))
    late = samples[len(samples) * 3 // 4 :]
    early = samples[len(samples) // 4 : len(samples) // 2]
    loads = [note["server_ms"] for note in noted if "server_ms" in note]
    calm = [note["server_ms"] for note in noted if "server_ms" in note and not outage_at(note)]
    compacted = [note["compacted"] for note in sorted(noted, key=lambda one: one["at"]) if "compacted" in note]
    rendered, cached = (max(sample.get(name, 0) for sample in samples) for name in ("isk_rendered_bytes_total", "isk_cache_bytes"))
    wrong = [f"{note['question']}: {note['words']}" for note in noted if note["outcome"] == "WRONG"]
    mean = {name: [statistics.mean(s[name] for s in part) for part in (early, late)] for name in ("resident", "descriptors", "threads")}
    panics = [line for line in isk.log.read_text(errors="replace").splitlines() if "panicked" in line]
    return {
        "command": f"tests/soak/run --minutes {options.minutes:g} --clients {options.clients}",
        "binary": str(binary()),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load": round(statistics.mean(s["load"] for s in samples), 1),
        "seconds": seconds,
        "clients": options.clients,
        "counts": {f"{kind}: {outcome}": count for (kind, outcome), count in sorted(counts.items())},
        "rows": sum(note.get("rows", 0) for note in noted),
        "wrong": wrong,
        "refused": refused.most_common(12),
        "events": {
            "records deleted": feeds.counts["retention"],
            "schema versions": feeds.counts["schema versions"],
            "moves to cold": feeds.counts["moves"],
            "transactions": feeds.counts["transactions"],
            "compactions seen": sum(after < before * 0.8 for before, after in zip(compacted, compacted[1:])),
            "credentials run out": sum(outcome == "expired" for note in noted for outcome in [note["outcome"]]),
            "cache filled anew": round(rendered / max(cached, 1), 1),
        },
        "outages": outages,
        "metadata_ms": {"p50": _quantile(calm, 0.5), "p99": _quantile(calm, 0.99), "p99 with outages": _quantile(loads, 0.99), "loads": len(loads)},
        "mean": mean,
        "peak": max(sample["resident"] for sample in samples),
        "samples": samples,
        "feed_failures": feeds.failures[:20],
        "panics": panics[:5],
        "passed": not wrong and not panics and bool(noted),
    }


def as_text(report: dict) -> str:
    """The figures in Markdown."""
    (resident_early, resident_late), (fd_early, fd_late), (threads_early, threads_late) = report["mean"].values()
    lines = [
        f"`{report['command']}`, {report['machine']} shared with all clients and servers, a mean load of {report['load']}:",
        "",
        "| | |",
        "|---|---|",
        f"| wrong answers | {len(report['wrong'])} |",
        *(f"| {what} | {count} |" for what, count in report["counts"].items()),
        f"| rows checked | {report['rows']} |",
        *(f"| {what} | {count} |" for what, count in report["events"].items()),
        f"| metadata requests, outages left out | p50 {report['metadata_ms']['p50']:.0f} ms, p99 {report['metadata_ms']['p99']:.0f} ms of {report['metadata_ms']['loads']} |",
        f"| memory, mean of the second and of the last quarter | {resident_early / MIB:.0f} and {resident_late / MIB:.0f} MiB ({resident_late / resident_early:.2f}); at the most {report['peak'] / MIB:.0f} |",
        f"| open files, the same | {fd_early:.0f} and {fd_late:.0f} |",
        f"| threads, the same | {threads_early:.0f} and {threads_late:.0f} |",
        f"| after the broker's return, a new record was read within | {', '.join(str(one['recovery']) for one in report['outages'] if 'recovery' in one)} s |",
        "",
    ]
    if report["clients_died"]:
        lines.append(f"- processes of four clients that ended by themselves, or had to be ended since DuckDB came to no end: {len(report['clients_died'])}")
    for words, count in report["refused"]:
        lines.append(f"- refused outside of outages, {count} times: `{' '.join(words.split())}`")
    for words in report["wrong"][:10]:
        lines.append(f"- WRONG: {words}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
