"""Databases for the tests of indexes: PostgreSQL from a wheel, Milvus in a file."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory):
    pytest.importorskip("psycopg", reason="PostgreSQL is spoken to through it: pip install 'xmodal[postgres]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        pgserver = pytest.importorskip("pgserver", reason="it brings PostgreSQL with pgvector: pip install pgserver")
        # Run as root, the server becomes another user, who may not enter pytest's own folders.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o755)
            server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
            yield server.get_uri()
            server.cleanup()


@pytest.fixture(scope="session")
def needs_milvus():
    pytest.importorskip("milvus_lite", reason="it is Milvus in a file: pip install milvus-lite")


@pytest.fixture(scope="session")
def milvus_url(needs_milvus, tmp_path_factory):
    return f"milvus://{tmp_path_factory.mktemp('milvus') / 'test.db'}"


@pytest.fixture
def collection():
    """A name that no other test uses."""
    return f"c{uuid.uuid4().hex[:12]}"
