"""The questions, the same for everyone, and the asking: in rounds, each contender in turn, so that noise falls on all alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from .measure import measured
from .topics import Topic

# What a question means is said for a topic's name; {table} and {time} are a contender's own, {since} is an hour ago.
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


class Contender(Protocol):
    """One way to ask a topic. `engine` runs the SQL; `processes` are those whose CPU time counts, by name."""

    name: str
    engine: Any
    time: str

    def prepare(self, topic: Topic) -> None:
        """Once for each topic, before anything is measured."""

    def before(self) -> None:
        """Before each question, not measured."""

    def table(self, topic: Topic, query: str) -> str:
        """The table's name in SQL."""

    def processes(self) -> dict[str, int]: ...


def run(contenders: Iterable[Contender], topics: Iterable[Topic], rounds: int) -> list[dict[str, Any]]:
    """All questions in all rounds; the round before the first warms up and does not count. Answers must agree."""
    results = []
    for topic in topics:
        for contender in contenders:
            contender.prepare(topic)
        for query, text in QUERIES[topic.name].items():
            answers = {}
            for number in range(rounds + 1):
                for contender in contenders:
                    contender.before()
                    since = contender.engine.timestamp(topic.since_ms)
                    sql = text.format(table=contender.table(topic, query), time=contender.time, since=since)
                    rows, cost = measured(lambda c=contender, s=sql: c.engine.sql(s), contender.processes())
                    answers[contender.name, contender.engine.name] = shape(query, rows)
                    if number > 0:
                        results.append({"topic": topic.name, "query": query, "contender": contender.name, "engine": contender.engine.name} | cost)
            expect_agreement(topic, query, answers)
            print(f"{topic.name}, {query}: done", flush=True)
    return results


def shape(query: str, rows: list[tuple]) -> Any:
    """What must be the same whoever is asked."""
    if query == "limit 10":
        return len(rows)
    return sorted(tuple(value if isinstance(value, int | float) else str(value) for value in row) for row in rows)


def expect_agreement(topic: Topic, query: str, answers: dict[tuple[str, str], Any]) -> None:
    first = next(iter(answers.values()), None)
    if any(answer != first for answer in answers.values()):
        shown = "\n".join(f"{who}: {str(answer)[:300]}" for who, answer in answers.items())
        raise AssertionError(f"{topic.name}, {query}: answers differ\n{shown}")
