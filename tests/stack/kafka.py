"""A real Apache Kafka broker: one node that is its own controller (KRaft), on 127.0.0.1, with its data in a temporary folder."""

import base64
import subprocess
import uuid
from collections.abc import Mapping, Sequence

from . import jdk, maven
from .process import Server, StartFailed, free_port
from .relay import Relay

# What suits tests: one replica of everything, and background work that happens within seconds, not minutes.
# A topic still decides by itself when it is compacted or expires (min.cleanable.dirty.ratio, segment.ms, retention.ms).
DEFAULTS = {
    "auto.create.topics.enable": "false",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    "group.coordinator.append.linger.ms": "0",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.backoff.ms": "200",
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    "log.initial.task.delay.ms": "500",
    "log.retention.check.interval.ms": "500",
    "log.segment.delete.delay.ms": "500",
    "message.max.bytes": str(32 * 1024 * 1024),
    "min.insync.replicas": "1",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
}


class Broker(Server):
    """`properties` override the defaults and may be changed between a stop and a start."""

    name = "kafka"
    # Whether it has a remote store on a local disk to choose from.
    more_jars = False

    def __init__(self, properties: Mapping[str, object] | None = None, heap: str = "512m", jvm: Sequence[str] = jdk.BRIEF) -> None:
        super().__init__()
        self.port = free_port()
        self.controller_port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        # Never a first letter `-`, which the storage tool would take for an option.
        self.cluster_id = base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        self.properties = {k: str(v) for k, v in (properties or {}).items()}
        self.heap = heap
        self.jvm = jvm

    def prepare(self) -> None:
        self._write_configuration()
        arguments = ["format", "-t", self.cluster_id, "-c", str(self._configuration)]
        command = self._java("-Xmx128m", *jdk.BRIEF) + ["kafka.tools.StorageTool", *arguments]
        done = subprocess.run(command, cwd=self.work, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise StartFailed(f"the broker's storage could not be formatted\n{done.stdout}{done.stderr}")

    def command(self) -> list[str]:
        self._write_configuration()
        options = (f"-Xms{self.heap}", f"-Xmx{self.heap}", *self.jvm, "-Dlog4j2.level=INFO")
        return self._java(*options) + ["kafka.Kafka", str(self._configuration)]

    def is_ready(self) -> bool:
        return "Kafka Server started" in self.log_text()

    @property
    def _configuration(self):
        return self.work / "server.properties"

    def _java(self, *options: str) -> list[str]:
        jars = [*maven.classpath("kafka"), *(maven.classpath("kafka-more") if self.more_jars else [])]
        return [jdk.java("broker"), *options, "-cp", ":".join(str(jar) for jar in jars)]

    def node(self) -> dict[str, str]:
        """What makes it a node of its own."""
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": f"CLIENT://{self.bootstrap},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"CLIENT://{self.bootstrap}",
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "CLIENT",
            "controller.listener.names": "CONTROLLER",
        }

    def _write_configuration(self) -> None:
        own = self.node() | {"log.dirs": str(self.work / "data")}
        lines = [f"{key}={value}\n" for key, value in (own | DEFAULTS | self.properties).items()]
        self._configuration.write_text("".join(lines))


class FarBroker(Broker):
    """One that clients reach through `relay`, which is a bad network on demand. `far` is its address there."""

    def __init__(self, properties: Mapping[str, object] | None = None, heap: str = "256m") -> None:
        super().__init__(properties, heap)
        self.relay = Relay(f"kafka://{self.bootstrap}")
        self.far = self.relay.address
        self.properties["advertised.listeners"] = f"CLIENT://{self.far},CONTROLLER://127.0.0.1:{self.controller_port}"

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.relay.close()
