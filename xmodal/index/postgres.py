"""PostgreSQL with pgvector: an index for those who run one already.

The only module that imports psycopg. Vectors have an HNSW index, and conditions a GIN index over
:func:`xmodal.index.where.tokens`. pgvector before 0.8 filters what its graph found, so a selective filter would return
less than there is: few allowed rows are compared one by one instead, and so is whatever came out short.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Float32, Int64

from xmodal.embeddings import Embeddings
from xmodal.errors import IndexFormatError
from xmodal.index.base import walk_breadth
from xmodal.index.database import Database, DatabaseIndex
from xmodal.index.where import Condition, tokens, wanted_tokens

_REGISTRY = "xmodal_collections"
_EF_SEARCH, _MOST_EF = 100, 1_000  # pgvector allows no more
_COMPARED = 20_000  # allowed rows up to which they are compared one by one
_DIM_LIMIT = 2_000  # pgvector indexes no longer vectors; beyond, every search compares all
_ROWS = "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)"  # as of the last index or ANALYZE
_HAS_GRAPH = (
    "SELECT 1 FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam "
    "WHERE indrelid = to_regclass(%s) AND amname = 'hnsw'"
)


class PostgresIndex(DatabaseIndex):
    """A table of a PostgreSQL database with the extension pgvector."""

    kind = "postgres"

    def _connect(self) -> Database:
        return _Postgres(self.url, self.collection)


class _Postgres:
    """One table. Connections are kept and lent, one to a thread at a time."""

    def __init__(self, url: str, collection: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise ValueError(
                "an index in PostgreSQL needs psycopg; install it with: pip install 'xmodal[postgres]'"
            ) from error
        self._idle: list[Any] = []
        self._lending = threading.Lock()
        self._psycopg: Any = psycopg
        self._url, self._table = url, f"xmodal_{collection}"
        self._name = collection

    @contextmanager
    def _lent(self) -> Iterator[Any]:
        with self._lending:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            try:
                connection = self._psycopg.connect(self._url)
            except self._psycopg.OperationalError as error:
                host = urlsplit(self._url).hostname or "this machine"
                reason = " ".join(str(error).split())
                raise IndexFormatError(f"{self._url}: PostgreSQL on {host} cannot be reached ({reason})") from error
        try:
            with connection.transaction():
                yield connection
        except BaseException:
            connection.close()
            raise
        with self._lending:
            self._idle.append(connection)

    def facts(self) -> dict[str, Any] | None:
        with self._lent() as connection:
            if connection.execute("SELECT to_regclass(%s)", [_REGISTRY]).fetchone()[0] is None:
                return None
            found = connection.execute(f"SELECT facts FROM {_REGISTRY} WHERE name = %s", [self._name]).fetchone()
            return None if found is None else dict(found[0])

    def create(self, facts: dict[str, Any], dim: int) -> None:
        with self._lent() as connection:
            try:
                with connection.transaction():
                    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except self._psycopg.Error as error:
                reason = " ".join(str(error).split())
                raise IndexFormatError(
                    f"{self._url}: this PostgreSQL has no pgvector ({reason}); install the extension"
                ) from error
            connection.execute(f"CREATE TABLE IF NOT EXISTS {_REGISTRY} (name text PRIMARY KEY, facts jsonb NOT NULL)")
            connection.execute(
                f"CREATE TABLE {self._table} ("
                "row bigint GENERATED ALWAYS AS IDENTITY (MINVALUE 0 START 0) PRIMARY KEY, id text UNIQUE NOT NULL, "
                f"vector vector({int(dim)}) NOT NULL, metadata json NOT NULL, "
                "tokens text[] NOT NULL, numbers jsonb NOT NULL)"
            )
            connection.execute(f"CREATE INDEX ON {self._table} USING gin (tokens)")
            connection.execute(f"INSERT INTO {_REGISTRY} VALUES (%s, %s)", [self._name, json.dumps(facts)])

    def drop(self) -> None:
        with self._lent() as connection:
            connection.execute(f"DROP TABLE IF EXISTS {self._table}")
            connection.execute(f"DELETE FROM {_REGISTRY} WHERE name = %s", [self._name])

    def count(self) -> int:
        with self._lent() as connection:
            return int(connection.execute(f"SELECT count(*) FROM {self._table}").fetchone()[0])

    def replace(self, gone: Sequence[int], embeddings: Embeddings) -> None:
        with self._lent() as connection:  # one transaction: all of it or nothing
            if gone:
                connection.execute(f"DELETE FROM {self._table} WHERE row = ANY(%s)", [list(gone)])
            if not len(embeddings):
                return
            into = f"COPY {self._table} (id, vector, metadata, tokens, numbers) FROM STDIN"
            with connection.cursor() as cursor, cursor.copy(into) as copy:
                for id_, vector, facts in zip(embeddings.ids, embeddings.vectors, embeddings.metadata, strict=True):
                    said, numbers = tokens(facts)
                    # PostgreSQL's texts hold no NUL.
                    row = (id_, _written(vector), _as_json(facts), said, json.dumps(numbers))
                    copy.write_row(row)
            if embeddings.dim <= _DIM_LIMIT and connection.execute(_HAS_GRAPH, [self._table]).fetchone() is None:
                # Of the rows that are there, and not before them: linked one by one they take several times as long.
                connection.execute(
                    f"CREATE INDEX ON {self._table} USING hnsw (vector vector_ip_ops) "
                    "WITH (m = 16, ef_construction = 100)"
                )

    def rows(self) -> Int64[np.ndarray, " rows"]:
        with self._lent() as connection:
            found = connection.execute(f"SELECT row FROM {self._table} ORDER BY row").fetchall()
        return np.array([row for (row,) in found], np.int64)

    def rows_of(self, ids: Sequence[str]) -> dict[str, int]:
        with self._lent() as connection:
            found = connection.execute(f"SELECT id, row FROM {self._table} WHERE id = ANY(%s)", [list(ids)])
            return dict(found.fetchall())

    def select(self, where: Sequence[Condition]) -> Int64[np.ndarray, " rows"]:
        said, values = _sql(None, where)
        with self._lent() as connection:
            found = connection.execute(f"SELECT row FROM {self._table} {said} ORDER BY row", values).fetchall()
        return np.array([row for (row,) in found], np.int64)

    def get(self, rows: Sequence[int], field: str) -> dict[int, Any]:
        column = {"id": "id", "metadata": "metadata", "vector": "vector::text"}[field]
        with self._lent() as connection:
            found = connection.execute(
                f"SELECT row, {column} FROM {self._table} WHERE row = ANY(%s)", [list(rows)]
            ).fetchall()
        if field == "vector":
            return {row: np.array(json.loads(value), np.float32) for row, value in found}
        return dict(found)

    def nearest(
        self,
        queries: Float32[np.ndarray, "queries dim"],
        k: int,
        among: Sequence[int] | None,
        where: Sequence[Condition],
        breadth: int | None,
        exact: bool,
    ) -> list[list[tuple[float, int]]]:
        said, values = _sql(among, where)
        with self._lent() as connection:
            if breadth is None:  # to count a million rows takes longer than to search them
                guessed = connection.execute(_ROWS, [self._table]).fetchone()[0]
                breadth = max(_EF_SEARCH, walk_breadth(guessed))
            ef = max(breadth, 2 * k)
            if said and not exact:
                counted = f"SELECT count(*) FROM (SELECT 1 FROM {self._table} {said} LIMIT {_COMPARED + 1}) AS allowed"
                exact = connection.execute(counted, values).fetchone()[0] <= _COMPARED
            # LOCAL: the setting ends with this transaction, and no other search sees it.
            if exact or ef > _MOST_EF:
                connection.execute("SET LOCAL enable_indexscan = off")
                order = "score DESC, row"
            else:
                connection.execute(f"SET LOCAL hnsw.ef_search = {int(ef)}")
                connection.execute("SET LOCAL enable_seqscan = off")
                order = "vector <#> %s::vector"
            asked = (
                f"SELECT -(vector <#> %s::vector) AS score, row FROM {self._table} {said} "
                f"ORDER BY {order} LIMIT {int(k)}"
            )
            results = []
            for query in queries:
                written = [_written(query)]
                again = written if order.startswith("vector") else []
                found = connection.execute(asked, [*written, *values, *again]).fetchall()
                results.append([(float(score), int(row)) for score, row in found])
        return results

    def __del__(self) -> None:
        self.close()  # an open connection that is forgotten is a warning, and a place less on the server

    def close(self) -> None:
        with self._lending:
            while self._idle:
                self._idle.pop().close()


def _sql(among: Sequence[int] | None, where: Sequence[Condition]) -> tuple[str, list[Any]]:
    parts: list[str] = []
    values: list[Any] = []
    if among is not None:
        parts.append("row = ANY(%s)")
        values.append(list(among))
    for condition in where:
        if condition.comparison in ("=", "!="):
            parts.append(f"{'NOT ' * (condition.comparison == '!=')}(tokens && %s)")
            values.append(wanted_tokens(condition))
        else:
            parts.append(f"(numbers ->> %s)::float8 {condition.comparison} %s")  # one of four signs, checked before
            values += [condition.key, condition.bound]
    return ("WHERE " + " AND ".join(parts) if parts else ""), values


def _written(vector: Float32[np.ndarray, " dim"]) -> str:
    return "[" + ",".join(map(repr, vector.tolist())) + "]"


def _as_json(facts: dict[str, Any]) -> str:
    try:
        return json.dumps(facts, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be text, numbers, lists and dicts, but hold {facts!r}: {error}") from None
