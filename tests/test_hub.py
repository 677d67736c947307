"""Publishing and fetching models, against a Hub that is a folder."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path

import pytest
import torch
from tiny import tiny_model

from xmodal.embedder import load
from xmodal.errors import ModelError
from xmodal.hub import fetch, push
from xmodal.model import TwoTower, read_description


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Hugging Face's client with a folder instead of a network; what it was asked for is in ``asked``."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    remote, cache, asked = tmp_path / "remote", tmp_path / "cache", []

    class Api:
        def __init__(self, token=None):
            asked.append(("token", token))

        def create_repo(self, repo_id, *, private, repo_type, exist_ok):
            asked.append(("create", repo_id, private, repo_type, exist_ok))
            (remote / repo_id).mkdir(parents=True, exist_ok=True)

        def upload_folder(self, *, repo_id, folder_path, revision, commit_message, repo_type):
            shutil.copytree(folder_path, remote / repo_id, dirs_exist_ok=True)
            return f"https://huggingface.co/{repo_id}/commit/1"

    def snapshot_download(repo_id, *, revision, cache_dir, token, allow_patterns, local_files_only):
        asked.append(("download", repo_id, revision, local_files_only))
        place = Path(cache_dir or cache) / repo_id
        if place.is_dir():
            return str(place)
        if local_files_only or not (remote / repo_id).is_dir():
            raise LocalEntryNotFoundError("no such thing")
        for path in (remote / repo_id).rglob("*"):
            name = path.relative_to(remote / repo_id)
            if path.is_file() and any(fnmatch.fnmatch(str(name), pattern) for pattern in allow_patterns):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place / name)
        return str(place)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    return type("Hub", (), {"remote": remote, "cache": cache, "asked": asked})


def test_a_model_that_was_pushed_is_fetched_with_the_same_vectors_and_space(hub):
    model = tiny_model()
    address = model.push_to_hub("me/tiny", card="## Trained on nothing", private=True, token="t")
    assert address == "https://huggingface.co/me/tiny/commit/1"
    assert ("create", "me/tiny", True, "model", True) in hub.asked
    (hub.remote / "me/tiny/evil.bin").write_bytes(b"pickle")
    again = TwoTower.from_pretrained("me/tiny", revision="main")
    wave = torch.randn(2, 4000).clamp(-1, 1)
    assert torch.equal(again.embed_audio(wave), model.embed_audio(wave))
    assert again.space_id() == model.space_id()
    assert not list(hub.cache.rglob("*.bin")), "only the parts of a model folder are fetched"
    assert load("me/tiny", device="cpu").space_id == model.space_id()


def test_the_local_cache_is_asked_first_and_alone_when_told_so(hub):
    tiny_model().push_to_hub("me/tiny")
    with pytest.raises(ModelError, match="me/tiny is neither a folder nor in the local cache of the Hub"):
        TwoTower.from_pretrained("me/tiny", local_files_only=True)
    TwoTower.from_pretrained("me/tiny")
    hub.asked.clear()
    TwoTower.from_pretrained("me/tiny")
    assert hub.asked == [("download", "me/tiny", None, True)]


def test_a_folder_is_never_looked_up_on_the_network(hub, tmp_path):
    tiny_model().save_pretrained(tmp_path / "me" / "tiny")
    tiny_model(seed=1).save_pretrained(tmp_path / "me" / "tiny")  # as theirs does, over what is there
    assert TwoTower.from_pretrained("me/tiny").space_id() == tiny_model(seed=1).space_id()
    assert fetch("./absent/x") == Path("absent/x")
    with pytest.raises(ModelError, match="is not a model folder"):
        load(tmp_path / "absent")
    assert not hub.asked


def test_the_card_is_one_that_the_hub_reads(tmp_path):
    from huggingface_hub import ModelCard

    tiny_model().save_pretrained(tmp_path / "m", card="## Figures\n\nR@1 0.5")
    card = ModelCard.load(tmp_path / "m" / "README.md")
    assert card.data.library_name == "xmodal"
    assert card.data.pipeline_tag == "feature-extraction"
    assert "R@1 0.5" in card.text
    assert read_description(tmp_path / "m")["space_id"] in card.text


def test_what_the_hub_does_not_have_and_a_bad_id_are_refused_in_one_sentence(hub):
    with pytest.raises(
        ModelError, match=r"me/none is neither .* nor could it be fetched .*no such thing.*hf auth login"
    ):
        TwoTower.from_pretrained("me/none")
    with pytest.raises(ModelError, match="'tiny' is no id of the Hugging Face Hub; it has the form user/model"):
        push("x", "tiny")
