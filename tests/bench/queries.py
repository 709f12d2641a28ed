"""The questions, the same for everyone, and the asking: in rounds, each contender in turn, so that noise falls on all alike."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from .engines import TooSlow
from .measure import measured
from .topics import Topic

# What a question means is said for a topic's kind; {table} and {time} are a contender's own, {since} is an hour ago.
QUERIES = {
    "narrow": {
        "count": "SELECT count(*) FROM {table}",
        "filtered aggregate": "SELECT count(*), sum(amount), max(account) FROM {table} WHERE kind = 'FEE' AND branch < 10",
        "group by": "SELECT branch, count(*), sum(amount) FROM {table} GROUP BY branch",
        "last hour": "SELECT count(*), sum(amount) FROM {table} WHERE {time} >= {since}",
        "limit 10": "SELECT * FROM {table} LIMIT 10",
        "3 columns": "SELECT max(id), sum(account), max(note) FROM {table}",
    },
    "wide": {
        "count": "SELECT count(*) FROM {table}",
        "filtered aggregate": "SELECT count(*), sum(weight), max(customer) FROM {table} WHERE status = 'LOST' AND address.city = 'Cork'",
        "group by": "SELECT region, count(*), sum(weight) FROM {table} GROUP BY region",
        "last hour": "SELECT count(*), sum(weight) FROM {table} WHERE {time} >= {since}",
        "limit 10": "SELECT * FROM {table} LIMIT 10",
        "3 columns": "SELECT max(id), sum(customer), max(address.city) FROM {table}",
    },
}


# A contender warms up on so large a part of a topic, and on so many records at the most.
WARM_UP_SHARE, WARM_UP_MOST = 0.1, 500_000


class Contender(Protocol):
    """One way to ask a topic. `engine` runs the SQL; `processes` are those whose CPU time counts, by name.

    `short` is its name on the command line; `few` says that it is asked in few rounds, being slow.
    """

    name: str
    short: str
    few: bool
    engine: Any
    time: str

    def prepare(self, topic: Topic) -> None:
        """Once for each topic, before anything is measured."""

    def before(self) -> None:
        """Before each question, not measured."""

    def table(self, topic: Topic, query: str) -> str:
        """The table's name in SQL."""

    def processes(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class Rounds:
    """How often each question is asked, of those that are slow too, and how long an answer may take."""

    all: int
    few: int
    seconds: float


Save = Callable[[Contender, Topic, list[dict[str, Any]]], None]


def run(contenders: list[Contender], topic: Topic, warm: Topic, rounds: Rounds, save: Save) -> None:
    """All questions in all rounds, after a round on a smaller topic of the same kind. Answers must agree. What is known is
    saved after each question."""
    for contender in contenders:
        clock = time.monotonic()
        for some in (warm, topic):
            contender.prepare(some)
        print(f"  {contender.name}: made ready in {time.monotonic() - clock:.0f} s", flush=True)
    for query in QUERIES[topic.kind]:
        for contender in contenders:
            ask(contender, warm, query, rounds.seconds)
    results: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in contenders}
    for query in QUERIES[topic.kind]:
        clock = time.monotonic()
        waiting = list(contenders)
        for number in range(rounds.all):
            for contender in list(waiting):
                if number >= (rounds.few if contender.few else rounds.all):
                    continue
                result = ask(contender, topic, query, rounds.seconds)
                results[contender.name].append(result)
                save(contender, topic, results[contender.name])
                if "over_s" in result:
                    waiting.remove(contender)
        expect_agreement([result for some in results.values() for result in some])
        seen = ", ".join(f"{name} {some[-1]['wall_s']:.2f}" for name, some in results.items())
        print(f"  {topic.kind}, {query}: {time.monotonic() - clock:.0f} s ({seen})", flush=True)


def ask(contender: Contender, topic: Topic, query: str, seconds: float) -> dict[str, Any]:
    """One question: what it cost, and what must be the same whoever is asked. A late answer counts as its limit."""
    contender.before()
    since = contender.engine.timestamp(topic.since_ms)
    sql = QUERIES[topic.kind][query].format(table=contender.table(topic, query), time=contender.time, since=since)
    result = {"topic": topic.kind, "records": topic.records, "query": query, "contender": contender.name, "engine": contender.engine.name}

    def answer() -> str | None:
        try:
            return shape(query, contender.engine.sql(sql, seconds))
        except TooSlow:
            return None

    seen, cost = measured(answer, contender.processes())
    return result | cost | ({"over_s": seconds, "wall_s": seconds} if seen is None else {"answer": seen})


def shape(query: str, rows: list[tuple]) -> str:
    if query == "limit 10":
        return str(len(rows))
    text = sorted(str(tuple(value if isinstance(value, int | float) else str(value) for value in row)) for row in rows)
    return text[0] if len(text) == 1 else hashlib.sha256("\n".join(text).encode()).hexdigest()


def expect_agreement(results: Iterable[dict[str, Any]]) -> None:
    """Of the same records the same question has one answer, also in another run."""
    answers: dict[tuple, dict[str, str]] = {}
    for result in results:
        if "answer" in result:
            question = (result["topic"], result["records"], result["query"])
            answers.setdefault(question, {})[result["answer"]] = f"{result['contender']} ({result['engine']})"
    for question, known in answers.items():
        if len(known) > 1:
            raise AssertionError(f"{question}: answers differ: {known}")
