"""Java programs from Maven packages: resolves each program's jars once and remembers them as a classpath.

All programs of a set are modules of one generated Maven build, so one `mvn` run downloads everything, in parallel.
The jars stay in a local repository inside the cache; a program's classpath is a file beside it.
"""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from . import cache
from .versions import VERSIONS

DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"

# Its parallel downloads now and then lose a file to each other.
ATTEMPTS = 3

# Large, and used only by catalogs and caches that no test configures.
TRINO_EXCLUDED = ("net.snowflake:snowflake-jdbc", "org.rocksdb:rocksdbjni")


# What S3Proxy would need to put objects anywhere but into a folder.
S3PROXY_EXCLUDED = (
    "com.azure:*",
    "com.github.openstack4j.core:*",
    "com.github.openstack4j.core.connectors:*",
    "com.google.cloud:*",
    "io.grpc:*",
    "org.apache.sshd:*",
)

# Confluent's registry client is in no public Maven repository but their own; see `trino_kafka.py`.
KAFKA_CONNECTOR_EXCLUDED = ("io.confluent:*",)

# What PySpark has with it.
SPARK_EXCLUDED = (
    "org.apache.spark:spark-tags_2.13",
    "org.scala-lang:scala-library",
    "org.apache.hadoop:*",
    "org.slf4j:*",
    "org.lz4:*",
    "at.yawk.lz4:*",
    "org.xerial.snappy:*",
    "com.github.luben:*",
)

AWS_EXCLUDED = ("software.amazon.awssdk:netty-nio-client", "software.amazon.awssdk:apache5-client")


@dataclass(frozen=True)
class Artifact:
    """A Maven artifact; `closure=False` takes it without what it depends on."""

    group: str
    name: str
    version: str
    type: str = "jar"
    classifier: str = ""
    closure: bool = True
    scope: str = "runtime"
    excluded: tuple[str, ...] = ()

    def to_xml(self) -> str:
        excluded = list(self.excluded) if self.closure else ["*:*"]
        exclusions = "".join(
            "<exclusion><groupId>{}</groupId><artifactId>{}</artifactId></exclusion>".format(*e.split(":")) for e in excluded
        )
        return (
            f"<dependency><groupId>{self.group}</groupId><artifactId>{self.name}</artifactId>"
            f"<version>{self.version}</version><type>{self.type}</type>"
            + (f"<classifier>{self.classifier}</classifier>" if self.classifier else "")
            + f"<scope>{self.scope}</scope><exclusions>{exclusions}</exclusions></dependency>"
        )


@dataclass(frozen=True)
class Program:
    """Artifacts that run together; `managed_by` is a POM whose version choices are taken over."""

    name: str
    artifacts: list[Artifact]
    managed_by: list[Artifact] = field(default_factory=list)


def programs() -> list[Program]:
    v = VERSIONS
    trino = v["trino"]["server"]
    trino_versions = [Artifact("io.trino", "trino-root", trino, type="pom", scope="import")]
    kafka = Artifact("org.apache.kafka", "kafka_2.13", v["kafka"]["broker"])
    # Without this the broker logs nothing: its own package names no back end.
    kafka_logging = Artifact("org.apache.logging.log4j", "log4j-slf4j-impl", v["kafka"]["log4j"])
    spark_runtime = f"iceberg-spark-runtime-{v['spark']['line']}_{v['spark']['scala']}"
    return [
        Program("kafka", [kafka, kafka_logging]),
        Program("kafka-more", _kafka_more()),
        Program(
            "registry",
            [Artifact("io.apicurio", "apicurio-registry-app", v["registry"]["apicurio"], "tar.gz", "all", closure=False)],
        ),
        Program(
            "spark-iceberg",
            [
                Artifact("org.apache.iceberg", spark_runtime, v["spark"]["iceberg"], closure=False),
                Artifact("org.apache.iceberg", "iceberg-aws-bundle", v["spark"]["iceberg"], closure=False),
            ],
        ),
        Program(
            "connect",
            [
                Artifact("org.apache.kafka", "connect-runtime", v["kafka"]["broker"]),
                Artifact("org.apache.kafka", "connect-transforms", v["kafka"]["broker"]),
                kafka_logging,
                Artifact("org.apache.iceberg", "iceberg-kafka-connect", v["spark"]["iceberg"]),
                Artifact("org.apache.iceberg", "iceberg-parquet", v["spark"]["iceberg"]),
                Artifact("org.apache.iceberg", "iceberg-aws", v["spark"]["iceberg"]),
                Artifact("org.apache.iceberg", "iceberg-aws-bundle", v["spark"]["iceberg"], closure=False),
            ],
        ),
        Program("flink-iceberg", _flink()),
        Program("lake-catalog", _lake_catalog()),
        Program("lake-store", [Artifact("org.gaul", "s3proxy", v["lake"]["s3proxy"], excluded=S3PROXY_EXCLUDED)]),
        Program("rest-kit", _rest_kit()),
        Program("keycloak", [Artifact("org.keycloak", "keycloak-quarkus-dist", v["keycloak"]["server"], "zip", closure=False)]),
        Program("trino-server", [Artifact("io.trino", "trino-main", trino)], trino_versions),
        Program("trino-iceberg", [Artifact("io.trino", "trino-iceberg", trino, excluded=TRINO_EXCLUDED)], trino_versions),
    ]


def _kafka_more() -> list[Artifact]:
    """The broker's tools, and the remote store on a local disk that its own tests use. Both want the broker's jars as well."""
    version = VERSIONS["kafka"]["broker"]
    store = [Artifact("org.apache.kafka", name, version, classifier="test", closure=False) for name in ("kafka-storage", "kafka-clients")]
    return [Artifact("org.apache.kafka", "kafka-tools", version), *store]


def bench_programs() -> list[Program]:
    """What only the benchmark runs: what ISK is measured against."""
    spark, connectors = VERSIONS["spark"], VERSIONS["spark"]["connectors"]
    trino = VERSIONS["trino"]["kafka"]
    trino_versions = [Artifact("io.trino", "trino-root", trino, type="pom", scope="import")]
    names = (f"spark-sql-kafka-0-10_{spark['scala']}", f"spark-avro_{spark['scala']}")
    return [
        Program("spark-kafka", [Artifact("org.apache.spark", name, connectors, excluded=SPARK_EXCLUDED) for name in names]),
        Program("trino-kafka-server", [Artifact("io.trino", "trino-main", trino)], trino_versions),
        Program("trino-kafka", [Artifact("io.trino", "trino-kafka", trino, excluded=KAFKA_CONNECTOR_EXCLUDED)], trino_versions),
    ]


def _flink() -> list[Artifact]:
    """Flink inside one process, its SQL, and Iceberg's source for it."""
    v = VERSIONS["flink"]
    names = ("table-planner-loader", "table-runtime", "table-api-java-bridge", "clients", "connector-base", "connector-files")
    return [
        *(Artifact("org.apache.flink", f"flink-{name}", v["version"]) for name in names),
        Artifact("org.apache.hadoop", "hadoop-client-runtime", v["hadoop"]),
        Artifact("org.apache.iceberg", f"iceberg-flink-runtime-{v['line']}", v["iceberg"], closure=False),
        Artifact("org.apache.iceberg", "iceberg-aws-bundle", v["iceberg"], closure=False),
        Artifact("org.slf4j", "slf4j-simple", VERSIONS["lake"]["slf4j"]),
    ]


def _lake_catalog() -> list[Artifact]:
    """Iceberg's own REST catalog server, as its project runs it in tests; its package names nothing of what it needs."""
    v = VERSIONS["lake"]
    iceberg, aws, jetty = v["iceberg"], "software.amazon.awssdk", v["jetty"]
    return [
        Artifact("org.apache.iceberg", "iceberg-open-api", iceberg, classifier="test-fixtures", closure=False),
        Artifact("org.apache.iceberg", "iceberg-core", iceberg, classifier="tests", closure=False),
        Artifact("org.apache.iceberg", "iceberg-core", iceberg),
        Artifact("org.apache.iceberg", "iceberg-aws", iceberg),
        *(Artifact(aws, name, v["awssdk"], excluded=AWS_EXCLUDED) for name in ("s3", "sts", "kms", "apache-client")),
        Artifact("org.eclipse.jetty.ee10", "jetty-ee10-servlet", jetty),
        Artifact("org.eclipse.jetty.compression", "jetty-compression-server", jetty),
        Artifact("org.eclipse.jetty.compression", "jetty-compression-gzip", jetty),
        Artifact("org.xerial", "sqlite-jdbc", v["sqlite"]),
        Artifact("org.slf4j", "slf4j-simple", v["slf4j"]),
    ]


def _rest_kit() -> list[Artifact]:
    """Iceberg's own tests of a REST catalog; what else they need is the catalog server's."""
    v = VERSIONS["lake"]
    return [
        Artifact("org.apache.iceberg", "iceberg-open-api", v["iceberg"], classifier="tests", closure=False),
        Artifact("org.apache.iceberg", "iceberg-api", v["iceberg"], classifier="tests", closure=False),
        Artifact("org.junit.platform", "junit-platform-console-standalone", v["junit"], closure=False),
        Artifact("org.assertj", "assertj-core", v["assertj"]),
        Artifact("org.awaitility", "awaitility", v["awaitility"]),
    ]


def classpath(program: str) -> list[Path]:
    """The jars of a program; `setup` must have run (`setup --bench` for those of the benchmark)."""
    for wanted in (programs(), bench_programs()):
        file = _build_dir(wanted) / program / "classpath"
        if file.exists():
            return [Path(jar) for jar in file.read_text().strip().split(":")]
    raise RuntimeError(f"{program} is not installed: run `tests/stack/run setup`, with `--bench` for the benchmark's")


def install(wanted: list[Program]) -> None:
    """Downloads what is missing of these programs."""
    build = _build_dir(wanted)
    if (build / "complete").exists():
        return
    for program in wanted:
        _write(build / program.name / "pom.xml", _module_pom(program))
    _write(build / "pom.xml", _parent_pom([p.name for p in wanted]))
    command = [
        "mvn", "--batch-mode", "--quiet", "-T2", f"-Dmaven.repo.local={cache.root() / 'm2'}",
        "-Dmaven.artifact.threads=8", "-Dmdep.outputFile=classpath",
        "-Dmdep.includeScope=runtime", f"{DEPENDENCY_PLUGIN}:build-classpath",
    ]  # fmt: skip
    for attempts_left in reversed(range(ATTEMPTS)):
        done = subprocess.run(command, cwd=build, check=attempts_left == 0)
        if done.returncode == 0:
            break
        print("test stack: Maven failed; once more", file=sys.stderr, flush=True)
    (build / "complete").touch()


def _build_dir(wanted: list[Program]) -> Path:
    return cache.root() / "maven" / cache.digest("".join(_module_pom(p) for p in wanted))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _module_pom(program: Program) -> str:
    managed = "".join(a.to_xml() for a in program.managed_by)
    return _pom(
        program.name,
        "jar",
        f"<dependencyManagement><dependencies>{managed}</dependencies></dependencyManagement>"
        f"<dependencies>{''.join(a.to_xml() for a in program.artifacts)}</dependencies>",
    )


def _parent_pom(modules: list[str]) -> str:
    return _pom("stack", "pom", "<modules>" + "".join(f"<module>{m}</module>" for m in modules) + "</modules>")


def _pom(name: str, packaging: str, body: str) -> str:
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        f"<groupId>isk.test</groupId><artifactId>{name}</artifactId><version>0</version>"
        f"<packaging>{packaging}</packaging>{body}</project>"
    )
