"""The command line of the test stack: `setup`, `doctor`, `up`, `test`, `lock`."""

import argparse
import concurrent.futures
import signal
import subprocess
import sys
import time
from functools import partial

from . import cache, disk, flink, isk, jdk, kafka, keycloak, lake, maven, process, registry, trino, trino_kafka, venv, versitygw
from .versions import TESTS, VERSIONS


def setup(bench: bool = False) -> None:
    """Downloads and prepares everything that is not there yet."""
    started = time.monotonic()
    print(f"test stack: preparing in {cache.root()}", flush=True)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for step in [pool.submit(_install_java_programs, bench), pool.submit(venv.install)]:
            step.result()
    print(f"test stack: ready after {time.monotonic() - started:.0f} s", flush=True)


def doctor() -> int:
    """Says what is there and what is missing."""
    checks = [
        *((f"Java for {program}", partial(jdk.home, program)) for program in ("broker", "registry", "spark", "flink", "keycloak", "trino")),
        ("Kafka broker", lambda: f"{VERSIONS['kafka']['broker']}, {len(maven.classpath('kafka'))} jars"),
        ("schema registry", lambda: _present(registry._unpacked() / registry.STARTER)),
        ("Trino server", lambda: _present(trino._home() / "TrinoLauncher.class")),
        ("Iceberg for Spark", lambda: ", ".join(jar.name for jar in maven.classpath("spark-iceberg"))),
        ("Kafka Connect", lambda: f"Iceberg's sink {VERSIONS['spark']['iceberg']}, {len(maven.classpath('connect'))} jars"),
        ("Flink", lambda: _present(flink.compiled())),
        ("lake: catalog", lambda: f"Iceberg {VERSIONS['lake']['iceberg']}, {len(maven.classpath('lake-catalog'))} jars"),
        ("lake: object store", lambda: f"S3Proxy {VERSIONS['lake']['s3proxy']}, {len(maven.classpath('lake-store'))} jars"),
        ("Keycloak", lambda: _present(keycloak.unpacked())),
        ("Python clients", lambda: _present(venv.folder() / "complete").parent),
        ("isk binary", isk.binary),
    ]
    failures = 0
    for what, check in checks:
        try:
            print(f"ok       {what}: {check()}")
        except (RuntimeError, OSError) as problem:
            failures += 1
            print(f"missing  {what}: {problem}")
    return 1 if failures else 0


def up(with_isk: bool, with_trino: bool, with_lake: bool) -> None:
    """Starts a stack, prints where it listens as shell variables, and holds it until Ctrl-C."""
    broker, schemas = kafka.Broker(), registry.Registry()
    process.start_together([broker, schemas])
    print(f"KAFKA_BOOTSTRAP={broker.bootstrap}\nSCHEMA_REGISTRY_URL={schemas.url}", flush=True)
    environment = {}
    if with_lake:
        upstream = lake.Lake().__enter__()
        environment = upstream.isk_environment()
        print("".join(f"{name}={value}\n" for name, value in environment.items()), end="", flush=True)
    if with_isk:
        service = isk.Isk.beside(broker, schemas, environment).start()
        print(f"ISK_CATALOG_URI={service.catalog_uri}\nISK_S3_ENDPOINT={service.s3_endpoint}", flush=True)
        if with_trino:
            server = trino.Trino({"isk": trino.iceberg_catalog(service.catalog_uri, service.s3_endpoint)}).start()
            print(f"TRINO_URL={server.url}", flush=True)
    print(f"STACK_FOLDER={process.work_root()}", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("ending", flush=True)


def test(arguments: list[str]) -> int:
    """Runs pytest in the clients' environment; the arguments are pytest's. Without any, all tests run, in two processes."""
    setup()
    # Most of a test's time is waiting for servers, so two files at a time, each process with servers of its own.
    # The files come in the order that conftest.py gives them, and not by how many tests they have.
    everything = [str(TESTS), "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "--durations=25"]
    command = [*disk.as_mounter(), str(venv.python()), "-m", "pytest", "-c", str(TESTS / "pytest.ini"), *(arguments or everything)]
    return subprocess.run(command).returncode


def python(arguments: list[str]) -> int:
    """Runs the clients' Python with these arguments."""
    return subprocess.run([str(venv.python()), *arguments]).returncode


def _install_java_programs(bench: bool) -> None:
    jdk.install()
    maven.install(maven.programs())
    registry.install()
    trino.install()
    flink.install()
    keycloak.install()
    if bench:
        maven.install(maven.bench_programs())
        trino_kafka.install()
        versitygw.install()


def _present(path):
    if not path.exists():
        raise RuntimeError("run `tests/stack/run setup`")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/stack/run", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("setup", help=setup.__doc__)
    preparing.add_argument("--bench", action="store_true", help="what only the benchmark needs too")
    commands.add_parser("doctor", help=doctor.__doc__)
    commands.add_parser("lock", help=venv.lock.__doc__)
    holding = commands.add_parser("up", help=up.__doc__)
    holding.add_argument("--isk", action="store_true", help="start isk too, over this broker and registry")
    holding.add_argument("--lake", action="store_true", help="start an upstream catalog and its object store too; isk has it as its coldset")
    holding.add_argument("--trino", action="store_true", help="start Trino too, over isk")
    commands.add_parser("test", help=test.__doc__, add_help=False)
    commands.add_parser("python", help=python.__doc__, add_help=False)
    options, rest = parser.parse_known_args()
    if options.command not in ("test", "python") and rest:
        parser.error(f"unknown: {' '.join(rest)}")
    if options.command == "setup":
        setup(options.bench)
    elif options.command == "doctor":
        return doctor()
    elif options.command == "lock":
        venv.lock()
    elif options.command == "up":
        up(options.isk or options.trino, options.trino, options.lake)
    elif options.command == "test":
        return test(rest)
    elif options.command == "python":
        return python(rest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
