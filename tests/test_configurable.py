from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from xmodal.configurable import Configurable, instantiate
from xmodal.errors import ModelError
from xmodal.model import Projection


class Inner(Configurable):
    def __init__(self, size: int, name: str = "inner") -> None:
        self.size, self.name = size, name


class Outer(nn.Module, Configurable):
    def __init__(self, inner: Inner, *, shape: tuple[int, ...] = (1, 2), folder: Path | None = None) -> None:
        super().__init__()
        self.inner, self.shape, self.folder = inner, shape, folder


class Child(Inner):
    def __init__(self, extra: float) -> None:
        super().__init__(size=7)
        self.extra = extra


def test_a_config_records_given_and_default_arguments_and_nested_objects():
    config = Outer(Inner(3), folder=Path("a/b")).config
    assert config["init_args"]["inner"]["init_args"] == {"size": 3, "name": "inner"}
    assert config["init_args"]["shape"] == [1, 2]
    assert config["init_args"]["folder"] == "a/b"
    assert json.loads(json.dumps(config)) == config


def test_a_round_trip_makes_an_equal_object():
    again = instantiate(Outer(Inner(3, name="x")).config, trust=True)
    assert isinstance(again, Outer)
    assert (again.inner.size, again.inner.name) == (3, "x")


def test_the_childs_arguments_are_recorded_and_not_its_parents():
    assert Child(0.5).config["init_args"] == {"extra": 0.5}


def test_a_class_is_named_by_the_package_that_exports_it():
    from xmodal.towers import HashedBagOfWordsTower

    path = HashedBagOfWordsTower(buckets=10, embed_dim=2, feature_dim=2).config["class_path"]
    assert path == "xmodal.towers.HashedBagOfWordsTower"


def test_an_argument_that_no_config_can_hold_is_refused():
    with pytest.raises(TypeError, match="object cannot be written"):
        _ = Inner(object()).config  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["os.system", "subprocess.Popen", "builtins.eval", "xmodalevil.Tower"])
def test_classes_from_outside_are_refused_without_trust(path):
    with pytest.raises(ModelError, match="not a class of xmodal"):
        instantiate({"class_path": path, "init_args": {}})


@pytest.mark.parametrize(
    "path", ["xmodal.model.os", "xmodal.model.read_description", "xmodal.model.Path", "xmodal.audio.np"]
)
def test_only_configurable_classes_of_xmodal_can_be_made(path):
    with pytest.raises(ModelError, match="not a tower|does not exist"):
        instantiate({"class_path": path, "init_args": {}})


def test_a_class_that_does_not_exist_and_a_wrong_argument_are_answered_by_name():
    with pytest.raises(ModelError, match=r"xmodal\.towers\.Nonsense"):
        instantiate({"class_path": "xmodal.towers.Nonsense"})
    config = Projection(2, 3).config
    config["init_args"]["wdith"] = 3
    with pytest.raises(ModelError, match="wdith"):
        instantiate(config)
