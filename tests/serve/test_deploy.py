"""The examples of deploy/: settings that exist, and embedding workers that give the vectors of the model."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import yaml
from asgi_calls import call
from corrupt_audio import chirp, write

from serve.settings import Settings, read_settings
from xmodal.embedder import load

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("ray_embed", DEPLOY / "ray_embed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake_ray(monkeypatch):
    """Enough of Ray Serve to call a deployment in this process; batches hold all that came within a moment."""
    options = {}

    def deployment(**said):
        options.update(said)

        def wrap(cls):
            cls.bind = classmethod(lambda cls: cls())
            return cls

        return wrap

    def batch(**said):
        def wrap(function):
            waiting = []

            async def one(self, item):
                future = asyncio.get_running_loop().create_future()
                waiting.append((item, future))
                await asyncio.sleep(0.02)
                if any(other is future for _, other in waiting):
                    taken, waiting[:] = list(waiting), []
                    options.setdefault("batches", []).append(len(taken))
                    results = await function(self, [item for item, _ in taken])
                    for (_, other), result in zip(taken, results, strict=True):
                        other.set_result(result)
                return await future

            return one

        return wrap

    ray, serve = types.ModuleType("ray"), types.ModuleType("ray.serve")
    serve.deployment, serve.batch, ray.serve = deployment, batch, serve
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.serve", serve)
    return options


def asgi(application):
    from starlette.requests import Request

    async def app(scope, receive, send):
        response = await application(Request(scope, receive))
        await response(scope, receive, send)

    return app


def test_workers_for_embedding_give_the_models_vectors_in_shared_batches(example, fake_ray, served, tmp_path):
    application = example.deployment(str(served / "model"), gpus=0, replicas=3)
    assert fake_ray["num_replicas"] == 3
    assert fake_ray["ray_actor_options"]["num_gpus"] == 0
    app = asgi(application)
    embedder = load(served / "model", device="cpu")
    path = write(tmp_path / "a.wav", chirp(1.3, 8000), 8000)

    async def main():
        texts = [["low tone"], ["high tone", 'lyrics: "a" tags: low'], ["steady"]]
        bodies = [json.dumps({"texts": one}).encode() for one in texts]
        answers = await asyncio.gather(*(call(app, "POST", "/", body=[body]) for body in bodies))
        for one, answer in zip(texts, answers, strict=True):
            said = json.loads(answer.body)
            assert said["space_id"] == embedder.space_id
            np.testing.assert_allclose(said["vectors"], embedder.embed_queries(one), atol=1e-6)
        assert fake_ray["batches"] == [3]
        sound = await call(app, "POST", "/", body=[path.read_bytes()], headers={"content-type": "audio/wav"})
        expected = embedder.embed_files([path]).embeddings.vectors
        np.testing.assert_allclose(json.loads(sound.body)["vectors"], expected, atol=1e-6)
        broken = await call(app, "POST", "/", body=[b"RIFF"], headers={"content-type": "audio/wav"})
        assert broken.status == 422
        assert "/tmp" not in broken.body.decode()
        for body in (b"", b"[]", b'{"texts":[]}', b'{"texts":[""]}', b'{"texts":["\\ud800"]}', b"[" * 100_000):
            assert (await call(app, "POST", "/", body=[body])).status == 422
        huge = await call(app, "POST", "/", body=[bytes(2**20)], endless=True)
        assert huge.status == 413
        await application.worker.decoders.close()

    asyncio.run(main())


def test_the_application_is_made_when_it_is_asked_for(example, fake_ray, served, monkeypatch):
    monkeypatch.setenv("XMODAL_MODEL", str(served / "model"))
    monkeypatch.setenv("XMODAL_GPUS", "0")
    assert example.app.worker.embedder.dim == 12
    with pytest.raises(AttributeError):
        _ = example.nothing


def variables(text):
    return dict(re.findall(r"(XMODAL_SERVE_[A-Z_]+)[=:] *\"?([^\s\"\\]+)", text))


def test_every_setting_of_the_container_and_of_compose_exists():
    container = variables((DEPLOY / "Containerfile").read_text())
    settings = read_settings([], container)
    assert (settings.host, settings.port, settings.log_format) == ("0.0.0.0", 8000, "json")
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    worker = compose["services"]["worker1"]
    environment = {**worker["environment"], "XMODAL_SERVE_ADMIN_TOKEN": "a" * 20}
    settings = read_settings([], container | environment)
    assert settings.host_name == ("localhost", "music.example")
    assert worker["read_only"] is True
    assert worker["cap_drop"] == ["ALL"]
    assert int(worker["stop_grace_period"].removesuffix("s")) > settings.drain_seconds + settings.drain_delay_seconds


def test_the_container_runs_as_nobody_in_particular_and_the_proxy_takes_what_the_server_takes():
    container = (DEPLOY / "Containerfile").read_text()
    assert container.index("USER 10001") < container.index("ENTRYPOINT")
    assert "HEALTHCHECK" in container
    # Where packages come from is said by whoever builds it.
    assert re.findall(r"https?://([^/:\s]+)", container) == ["127.0.0.1"]
    proxy = (DEPLOY / "nginx.conf").read_text()
    size = int(re.search(r"client_max_body_size (\d+)m", proxy)[1]) * 2**20
    assert size > Settings().upload_max_bytes
    for path in ("/metrics", "/v1/reload"):
        assert f"location = {path} {{ deny all; }}" in proxy
        assert path in (DEPLOY / "Caddyfile").read_text()


def test_nginx_reads_the_proxys_settings(tmp_path):
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    settings = (DEPLOY / "nginx.conf").read_text()
    settings = re.sub(r"worker(\d):8000", r"127.0.0.1:900\1", settings)  # else it looks for the names
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid;\nerror_log {tmp_path}/log;\n{settings}")
    said = subprocess.run(
        [nginx, "-t", "-c", str(tmp_path / "nginx.conf")], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    for body in re.findall(r"return \d+ '(.*)';", settings):
        assert set(json.loads(body)) == {"type", "title", "status", "detail"}
