"""A small knowledge base, with real full-text search."""

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

ARTICLES: list[dict[str, str]] = json.loads(Path(__file__).with_name("knowledge.json").read_text())
COMMON = re.compile(
    r"(a|an|and|are|at|be|but|can|do|for|from|has|have|how|i|in|is|it|its|me|my|not|of|on|or|our|that|the|there|this|to|was|"
    r"we|what|when|where|why|will|with|you|your)"
)
"""Words that say nothing of what a text is about."""

FIND = """
    SELECT team, title, body, round(-bm25(articles, 1, 4, 1), 2) AS score
    FROM articles WHERE articles MATCH ? ORDER BY score DESC LIMIT ?
"""


def search(request: str, limit: int = 3) -> list[dict[str, Any]]:
    """Find the articles that fit a request best."""
    words = [word for word in re.findall(r"\w+", request.lower()) if not COMMON.fullmatch(word)]
    if not words:
        return []
    base = sqlite3.connect(":memory:")
    base.row_factory = sqlite3.Row
    base.execute("CREATE VIRTUAL TABLE articles USING fts5(team, title, body, tokenize='porter unicode61')")
    base.executemany("INSERT INTO articles VALUES (:team, :title, :body)", ARTICLES)
    rows = base.execute(FIND, (" OR ".join(f'"{word}"' for word in words), limit)).fetchall()
    base.close()
    return [dict(row) for row in rows]
