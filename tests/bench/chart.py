"""The picture: a panel for each topic and engine, a group of bars for each question, seconds on a logarithmic scale."""

from __future__ import annotations

import html
import math

from .goals import ENGINES, FIRST, KAFKA, PROVEN, STATIC, Queries
from .queries import QUERIES

COLOURS = {STATIC: "#9aa5b1", PROVEN: "#1b7f5c", FIRST: "#5cc29a", "Kafka": "#d9822b"}
WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 560, 130, 60, 11, 9, 64
STYLE = "text{font:12px sans-serif;fill:#222}.title{font-weight:bold}.small{font-size:10px}.grid{stroke:#ddd}"


def svg(queries: Queries) -> str:
    """The whole picture; panels without figures are left out."""
    panels = [(topic, engine) for topic in queries.topics() for engine in ENGINES if any(r["topic"] == topic and r["engine"] == engine for r in queries.results)]
    seconds = [run["wall_s"] for run in queries.results]
    low, high = math.floor(math.log10(min(seconds))), math.ceil(math.log10(max(seconds)))
    height = TOP + len(QUERIES["narrow"]) * (len(COLOURS) * BAR + GAP) + 30
    rows = math.ceil(len(panels) / 2)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" height="{rows * height}" viewBox="0 0 {2 * WIDTH} {rows * height}">']
    parts += [f"<style>{STYLE}</style>", '<rect width="100%" height="100%" fill="white"/>']
    for number, (topic, engine) in enumerate(panels):
        parts.append(f'<g transform="translate({number % 2 * WIDTH},{number // 2 * height})">')
        parts += panel(queries, topic, engine, low, high, height)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def panel(queries: Queries, topic: str, engine: str, low: int, high: int, height: int) -> list[str]:
    def x(value: float) -> float:
        return LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = [text(8, 20, f"{topic} topic through {engine.capitalize()}: seconds, median and (line) least to most", "title")]
    contenders = {STATIC: STATIC, PROVEN: PROVEN, FIRST: FIRST, "Kafka": KAFKA[engine]}
    for number, (colour, contender) in enumerate(contenders.items()):
        at = LEFT + number * 105
        parts += [f'<rect x="{at}" y="30" width="10" height="10" fill="{COLOURS[colour]}"/>', text(at + 14, 39, contender, "small")]
    for power in range(low, high + 1):
        at = x(10**power)
        parts += [f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 12}" y2="{height - 30}"/>', text(at - 8, height - 16, f"{10**power:g}", "small")]
    y = TOP
    for query in QUERIES[topic]:
        parts.append(text(8, y + len(contenders) * BAR / 2 + 4, query))
        for colour, contender in contenders.items():
            runs = [run["wall_s"] for run in queries.runs(topic, query, contender, engine)]
            if runs:
                median = queries.seconds(topic, query, contender, engine)
                middle = y + BAR / 2 - 0.5
                parts.append(f'<rect x="{LEFT}" y="{y}" width="{max(x(median) - LEFT, 1):.1f}" height="{BAR - 1}" fill="{COLOURS[colour]}"/>')
                parts.append(f'<line x1="{x(min(runs)):.1f}" x2="{x(max(runs)):.1f}" y1="{middle}" y2="{middle}" stroke="#222"/>')
                parts.append(text(x(max(runs)) + 4, y + BAR - 2, f"{median:.2f}", "small"))
            y += BAR
        y += GAP
    return parts


def text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{html.escape(words)}</text>'
