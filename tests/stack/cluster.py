"""A cluster of real Kafka brokers and their controller. Clients reach each broker through a relay that counts what it sends."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import ElectionType, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from . import jdk, maven, records
from .kafka import Broker
from .relay import Relay

CONTROLLER = 100

# A follower that is away leaves the in-sync replicas soon, and none is made leader again unasked.
SOON = {
    "auto.leader.rebalance.enable": "false",
    "controlled.shutdown.enable": "true",
    "min.insync.replicas": "1",
    "num.replica.fetchers": "1",
    "replica.fetch.wait.max.ms": "100",
    "replica.lag.time.max.ms": "2000",
    "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
}


class Controller(Broker):
    """The cluster's one controller."""

    name = "kafka-controller"

    def node(self) -> dict[str, str]:
        return {
            "process.roles": "controller",
            "node.id": str(CONTROLLER),
            "controller.quorum.voters": f"{CONTROLLER}@127.0.0.1:{self.controller_port}",
            "listeners": f"CONTROLLER://127.0.0.1:{self.controller_port}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
        }


class Node(Broker):
    """One broker, in a rack of its own: `rack-<id>`. `relay` stands before it for clients; brokers reach each other directly."""

    def __init__(self, id: int, controller: Controller, properties: Mapping[str, object], heap: str) -> None:
        super().__init__(properties, heap)
        self.id = id
        self.controller = controller
        self.cluster_id = controller.cluster_id
        self.relay = Relay(f"kafka://127.0.0.1:{self.port}")
        self.bootstrap = self.relay.address

    def start(self, wait: bool = True) -> Node:
        self.relay.resume()
        return super().start(wait)

    def _end(self, first: signal.Signals) -> None:
        super()._end(first)
        # Who asks for it is refused, as by a machine whose broker is gone.
        self.relay.pause()

    def node(self) -> dict[str, str]:
        return {
            "process.roles": "broker",
            "node.id": str(self.id),
            "broker.rack": f"rack-{self.id}",
            "controller.quorum.voters": f"{CONTROLLER}@127.0.0.1:{self.controller.controller_port}",
            "listeners": f"CLIENT://127.0.0.1:{self.port},INTERNAL://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"CLIENT://{self.relay.address},INTERNAL://127.0.0.1:{self.controller_port}",
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "INTERNAL",
            "controller.listener.names": "CONTROLLER",
        }


class Cluster:
    """`nodes` by id, from 1 on. `bootstrap` names them all."""

    def __init__(self, size: int = 3, properties: Mapping[str, object] | None = None, heap: str = "256m") -> None:
        self.controller = Controller(heap="192m")
        self.nodes = {id: Node(id, self.controller, SOON | dict(properties or {}), heap) for id in range(1, size + 1)}
        self.bootstrap = ",".join(node.bootstrap for node in self.nodes.values())

    def __enter__(self) -> Cluster:
        servers = [self.controller, *self.nodes.values()]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.start(wait=False), servers))
        for server in servers:
            server.wait_until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes.values():
            node.kill()
        self.controller.kill()

    def create_topic(self, name: str, assignment: Sequence[Sequence[int]], config: Mapping[str, str] | None = None) -> str:
        """`assignment` has the replicas of each partition, the first leader first."""
        topic = NewTopic(name, num_partitions=len(assignment), replica_assignment=[list(ids) for ids in assignment], config=dict(config or {}))
        admin = self.admin()
        admin.create_topics([topic], operation_timeout=30)[name].result(30)
        self.wait_for(lambda: all(self.leader(name, p) == ids[0] and self.in_sync(name, p) == set(ids) for p, ids in enumerate(assignment)))
        return name

    def admin(self) -> AdminClient:
        return records.admin(self.bootstrap)

    def _partition(self, topic: str, partition: int):
        admin = self.admin()
        described = admin.describe_topics(TopicCollection([topic]), request_timeout=10)[topic].result(15)
        return described.partitions[partition]

    def leader(self, topic: str, partition: int = 0) -> int | None:
        leader = self._partition(topic, partition).leader
        return None if leader is None or leader.id < 0 else leader.id

    def in_sync(self, topic: str, partition: int = 0) -> set[int]:
        return {node.id for node in self._partition(topic, partition).isr}

    def replicas(self, topic: str, partition: int = 0) -> set[int]:
        return {node.id for node in self._partition(topic, partition).replicas}

    def move(self, topic: str, assignment: Mapping[int, Sequence[int]]) -> None:
        """Gives partitions other replicas, with Kafka's own tool, and waits until they have moved."""
        partitions = [{"topic": topic, "partition": partition, "replicas": list(ids)} for partition, ids in assignment.items()]
        plan = self.controller.work / "reassignment.json"
        plan.write_text(json.dumps({"version": 1, "partitions": partitions}))
        self._tool("reassign.ReassignPartitionsCommand", "--reassignment-json-file", str(plan), "--execute")
        for partition, ids in assignment.items():
            self.wait_for(lambda p=partition, ids=ids: self.replicas(topic, p) == self.in_sync(topic, p) == set(ids) and self.leader(topic, p) in ids)

    def prefer(self, topic: str, partition: int = 0) -> None:
        """Makes the first replica of a partition its leader."""
        admin = self.admin()  # must live until the answer is there
        admin.elect_leaders(ElectionType.PREFERRED, [TopicPartition(topic, partition)]).result(30)

    def _tool(self, name: str, *arguments: str) -> None:
        jars = ":".join(str(jar) for jar in [*maven.classpath("kafka"), *maven.classpath("kafka-more")])
        java = [jdk.java("broker"), "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", jars]
        command = [*java, f"org.apache.kafka.tools.{name}", "--bootstrap-server", self.bootstrap, *arguments]
        done = subprocess.run(command, cwd=self.controller.work, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name} ended with {done.returncode}\n{done.stdout}{done.stderr}")

    def wait_for(self, what: Callable[[], bool], seconds: float = 60) -> None:
        """Asks until it is so; a question that fails is asked again."""
        deadline, failed = time.monotonic() + seconds, None
        while True:
            try:
                if what():
                    return
            except Exception as error:
                failed = error
            if time.monotonic() > deadline:
                raise AssertionError(f"the cluster has not come to this within {seconds} s ({failed})")
            time.sleep(0.1)
