"""Milvus: an index for more tracks than one machine holds, and milvus-lite, the same in one file.

The only module that imports pymilvus. ``milvus://host:19530`` is a server, ``milvus:///folder/file.db`` a file. Milvus
filters inside its graph and compares one by one where a filter is selective.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Float32, Int64

from xmodal.columns import metadata_table
from xmodal.embeddings import Embeddings
from xmodal.errors import IndexFormatError
from xmodal.index.database import Database, DatabaseIndex
from xmodal.index.where import Condition, tokens, wanted_tokens

_REGISTRY = "xmodal_collections"
_BATCH = 1_000  # rows to a request: below Milvus's 64 MB for 4,096 dimensions
_MOST = 16_384  # results of one request
_EF = 64
_TOKENS, _TOKEN_BYTES, _ID_BYTES = 1_024, 256, 4_096


class MilvusIndex(DatabaseIndex):
    """A collection of a Milvus server, or of a milvus-lite file."""

    kind = "milvus"

    def _connect(self) -> Database:
        return _Milvus(self.url, self.collection)


class _Milvus:
    def __init__(self, url: str, collection: str) -> None:
        try:
            from pymilvus import DataType, MilvusClient, MilvusException
        except ImportError as error:
            raise ValueError(
                "an index in Milvus needs pymilvus; install it with: pip install 'xmodal[milvus]'"
            ) from error
        parts = urlsplit(url)
        # A file's folder must be there, and a server is named by the scheme of its transport.
        uri = parts.path if not parts.netloc else f"http://{parts.netloc}"
        if not parts.netloc:
            Path(uri).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._client: Any = MilvusClient(uri=uri, token=os.environ.get("MILVUS_TOKEN", ""))
        except MilvusException as error:
            raise IndexFormatError(f"{url}: Milvus cannot be reached ({' '.join(str(error).split())})") from error
        self._types: Any = DataType
        self._table, self._name = f"xmodal_{collection}", collection
        self._writing = threading.Lock()
        self._loaded: set[str] = set()

    def facts(self) -> dict[str, Any] | None:
        if not self._load(_REGISTRY):
            return None
        found = self._client.get(_REGISTRY, ids=[self._name], output_fields=["facts"])
        if found:
            self._load(self._table)
        return dict(found[0]["facts"]) if found else None

    def _load(self, name: str) -> bool:
        """Bring a collection into Milvus's memory, where a server or file that was started again does not have it."""
        if name not in self._loaded and self._client.has_collection(name):
            self._client.load_collection(name)
            self._loaded.add(name)
        return name in self._loaded

    def create(self, facts: dict[str, Any], dim: int) -> None:
        kinds, client = self._types, self._client
        if not client.has_collection(_REGISTRY):
            schema = client.create_schema(auto_id=False)
            schema.add_field("name", kinds.VARCHAR, max_length=64, is_primary=True)
            schema.add_field("facts", kinds.JSON)
            schema.add_field("vector", kinds.FLOAT_VECTOR, dim=2)  # a collection cannot be without
            indexes = client.prepare_index_params()
            indexes.add_index("vector", index_type="FLAT", metric_type="IP")
            client.create_collection(_REGISTRY, schema=schema, index_params=indexes, consistency_level="Strong")
        schema = client.create_schema(auto_id=False)
        schema.add_field("row", kinds.INT64, is_primary=True)
        schema.add_field("id", kinds.VARCHAR, max_length=_ID_BYTES)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=dim)
        schema.add_field("metadata", kinds.JSON)
        schema.add_field(
            "tokens", kinds.ARRAY, element_type=kinds.VARCHAR, max_capacity=_TOKENS, max_length=_TOKEN_BYTES
        )
        schema.add_field("numbers", kinds.JSON)
        indexes = client.prepare_index_params()
        indexes.add_index("vector", index_type="HNSW", metric_type="IP", params={"M": 32, "efConstruction": 100})
        client.create_collection(self._table, schema=schema, index_params=indexes, consistency_level="Strong")
        self._register({**facts, "next_row": 0})

    def _register(self, facts: dict[str, Any]) -> None:
        self._client.upsert(_REGISTRY, [{"name": self._name, "facts": facts, "vector": [1.0, 0.0]}])

    def drop(self) -> None:
        self._client.drop_collection(self._table)
        self._loaded.discard(self._table)
        self._client.delete(_REGISTRY, ids=[self._name])

    def count(self) -> int:
        return int(self._client.query(self._table, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def replace(self, gone: Sequence[int], embeddings: Embeddings) -> None:
        # Milvus has no transactions. New rows first: a kill between leaves an id twice, which the next update mends,
        # and never loses one. Numbers are taken before they are used, so none is given twice.
        with self._writing:
            if len(embeddings):
                metadata_table(embeddings.metadata)  # refuses what JSON cannot hold, before anything is sent
                facts = self.facts()
                assert facts is not None, "a collection is created with its entry"
                first = int(facts["next_row"])
                self._register({**facts, "next_row": first + len(embeddings)})
                for start in range(0, len(embeddings), _BATCH):
                    self._client.insert(self._table, list(_entries(embeddings, start, first)))
            for start in range(0, len(gone), _BATCH):
                self._client.delete(self._table, ids=list(gone[start : start + _BATCH]))

    def rows(self) -> Int64[np.ndarray, " rows"]:
        return np.array(sorted(self._every_row("")), np.int64)

    def _every_row(self, said: str) -> Iterator[int]:
        pages = self._client.query_iterator(self._table, filter=said, batch_size=_BATCH, output_fields=["row"])
        try:
            while part := pages.next():
                yield from (int(one["row"]) for one in part)
        finally:
            pages.close()

    def rows_of(self, ids: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(ids), _BATCH):
            said = f"id in {json.dumps(list(ids[start : start + _BATCH]), ensure_ascii=False)}"
            part = self._client.query(self._table, filter=said, output_fields=["row", "id"], limit=_MOST)
            found |= {str(one["id"]): int(one["row"]) for one in part}
        return found

    def select(self, where: Sequence[Condition]) -> Int64[np.ndarray, " rows"]:
        return np.array(sorted(self._every_row(_filter(None, where))), np.int64)

    def get(self, rows: Sequence[int], field: str) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for start in range(0, len(rows), _BATCH):
            part = self._client.get(
                self._table, ids=[int(row) for row in rows[start : start + _BATCH]], output_fields=["row", field]
            )
            found |= {int(one["row"]): one[field] for one in part}
        return found

    def nearest(
        self,
        queries: Float32[np.ndarray, "queries dim"],
        k: int,
        among: Sequence[int] | None,
        where: Sequence[Condition],
        breadth: int | None,
        exact: bool,
    ) -> list[list[tuple[float, int]]]:
        k = min(k, _MOST)
        # Milvus has no switch for an exact search; its widest walk is as near as it comes.
        ef = max(2 * k, 32_768 if exact else breadth or _EF)
        results = []
        for start in range(0, len(queries), _BATCH):
            found = self._client.search(
                self._table,
                data=queries[start : start + _BATCH].tolist(),
                limit=k,
                filter=_filter(among, where),
                search_params={"metric_type": "IP", "params": {"ef": min(ef, 32_768)}},
            )
            results += [[(float(hit["distance"]), int(hit["row"])) for hit in hits] for hits in found]
        return results

    def close(self) -> None:
        self._client.close()


def _entries(embeddings: Embeddings, start: int, first: int) -> Iterator[dict[str, Any]]:
    for place in range(start, min(start + _BATCH, len(embeddings))):
        said, numbers = tokens(embeddings.metadata[place])
        yield {
            "row": first + place,
            "id": embeddings.ids[place],
            "vector": embeddings.vectors[place].tolist(),
            "metadata": embeddings.metadata[place],
            "tokens": said[:_TOKENS],
            "numbers": numbers,
        }


def _filter(among: Sequence[int] | None, where: Sequence[Condition]) -> str:
    parts = [] if among is None else [f"row in {[int(row) for row in among]}"]
    for condition in where:
        if condition.comparison in ("=", "!="):
            wanted = json.dumps(wanted_tokens(condition), ensure_ascii=False)
            parts.append(f"{'not ' * (condition.comparison == '!=')}array_contains_any(tokens, {wanted})")
        else:
            parts.append(f"numbers[{json.dumps(condition.key)}] {condition.comparison} {condition.bound!r}")
    return " and ".join(parts)
