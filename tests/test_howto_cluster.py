"""The compose file in docs/howto-cluster.md, as far as it can be judged without starting it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

PAGE = Path(__file__).parents[1] / "docs" / "howto-cluster.md"


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1])


def test_every_service_is_a_pinned_image_that_keeps_its_data_and_listens_at_home_alone(compose):
    services = compose["services"]
    assert set(services) == {"etcd", "minio", "milvus", "postgres"}
    for name, service in services.items():
        image, tag = service["image"].rsplit(":", 1)
        assert "/" in image, name
        assert re.search(r"[0-9]", tag), name
        (volume,) = service["volumes"]
        assert volume.split(":")[0] in compose["volumes"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert set(service.get("depends_on", [])) <= set(services)


def test_no_secret_stands_in_it_and_both_sides_of_a_link_agree(compose):
    services = compose["services"]
    secrets = {
        value
        for service in services.values()
        for name, value in service["environment"].items()
        if re.search("PASSWORD|SECRET|USER|KEY", name)
    }
    assert secrets == {"${MINIO_USER}", "${MINIO_PASSWORD}", "${PGPASSWORD}"}
    milvus = services["milvus"]["environment"]
    assert milvus["ETCD_ENDPOINTS"] == "etcd:2379"
    assert "2379" in services["etcd"]["command"]
    assert milvus["MINIO_ADDRESS"].split(":")[0] == "minio"
    asked = dict(re.findall(r"(\w+)=(\d+)GB", services["postgres"]["command"]))
    assert int(services["postgres"]["shm_size"].removesuffix("gb")) >= int(asked["maintenance_work_mem"])
