"""Databases for the tests of indexes: PostgreSQL from a wheel, Milvus in a file."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory):
    pytest.importorskip("psycopg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        pgserver = pytest.importorskip("pgserver")
        # Run as root, the server becomes another user, who may not enter pytest's own folders.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o755)
            server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
            yield server.get_uri()
            server.cleanup()


@pytest.fixture(scope="session")
def milvus_url(tmp_path_factory):
    pytest.importorskip("milvus_lite")
    return f"milvus://{tmp_path_factory.mktemp('milvus') / 'test.db'}"


@pytest.fixture
def collection():
    """A name that no other test uses."""
    return f"c{uuid.uuid4().hex[:12]}"
