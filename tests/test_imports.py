"""The order of imports: lower rooms know nothing of the higher ones, and heavy libraries stay in their own files."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up; a module may import from its own layer and from those before it.
LAYERS = [
    {"errors", "compat", "configurable", "runs", "atomic"},
    {"audio", "text", "losses", "metrics", "refine", "columns", "embeddings"},
    {"towers", "data", "index", "hub"},
    {"model", "model_folder", "projections", "view"},
    {"doctor"},
    {"training", "importers"},
    {"embedder", "lanes"},
    {"search", "query", "tagging", "evaluation", "interop", "export"},
    {"late"},
    {"demo", "plots", "maps", "tag_plots", "report"},
    {"cli"},
]
HOME_OF = {
    "faiss": {"index/faiss.py"},
    "transformers": {"towers/pretrained.py"},
    "sentence_transformers": {"towers/sentence_transformer.py", "interop/sentence_transformers.py"},
    "datasets": {"data/huggingface.py", "export/formats.py"},
    "symusic": {"data/demo/render.py"},
    "optuna": {"training/sweep.py"},
    "ray": {"export/on_ray.py"},
    "pymilvus": {"index/milvus.py"},
    "psycopg": {"index/postgres.py"},
}


# The libraries of a web server are for the room above all others, which is a package of its own.
ONLY_IN_SERVE = {"fastapi", "starlette", "uvicorn", "pydantic", "prometheus_client"}


def modules():
    return sorted((ROOT / "xmodal").rglob("*.py"))


def imported_names(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path):
    parts = path.relative_to(ROOT / "xmodal").parts
    return parts[0].removesuffix(".py")


def layer(name):
    return next((number for number, rooms in enumerate(LAYERS) if name in rooms), None)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_downwards(path):
    if path.parent == ROOT / "xmodal" and path.name == "__init__.py":
        return  # the package's own names are loaded on first use
    own = layer(room(path))
    assert own is not None, f"{path} is in no layer; add its room to docs/architecture.md and to this test"
    for name in imported_names(path):
        if name.startswith("xmodal.") and (other := layer(name.split(".")[1])) is not None:
            assert other <= own, f"{path.relative_to(ROOT)} imports {name}, which lies above it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_heavy_library_is_imported_only_where_it_is_wrapped(path):
    inside = path.relative_to(ROOT / "xmodal").as_posix()
    for name in imported_names(path):
        homes = HOME_OF.get(name.split(".")[0])
        assert homes is None or inside in homes, f"{inside} imports {name}; only {homes} may"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_of_xmodal_knows_the_server(path):
    for name in imported_names(path):
        assert name.split(".")[0] not in ONLY_IN_SERVE | {"serve"}, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("xmodal", ["torch", "faiss", "transformers", "sentence_transformers", "fastapi", "symusic", "matplotlib"]),
        ("xmodal.cli", ["torch", "faiss", "transformers", "sentence_transformers", "numpy", "pyarrow"]),
        ("xmodal.towers", ["faiss", "transformers", "sentence_transformers"]),
        ("xmodal.index", ["faiss"]),
        ("serve.client", ["torch", "fastapi", "uvicorn", "numpy"]),
        ("serve.__main__", ["torch", "fastapi", "uvicorn", "numpy"]),
    ],
)
def test_importing_is_cheap(module, absent):
    code = f"import sys, {module}; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
