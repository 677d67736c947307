"""sentence-transformers' own encode, similarity and evaluators over a model of xmodal, for texts and audio."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny import tiny_model

from xmodal import audio
from xmodal.embedder import Embedder
from xmodal.errors import AudioError
from xmodal.interop.sentence_transformers import XmodalModule


@pytest.fixture(scope="module")
def tones(tone_tracks):
    return [tone_tracks.parent / json.loads(line)["path"] for line in tone_tracks.read_text().splitlines()[:6]]


@pytest.fixture(scope="module")
def model():
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(modules=[XmodalModule(tiny_model())], device="cpu")


def test_encode_gives_the_vectors_that_xmodal_gives_for_every_kind_of_item(model, tones):
    embedder = Embedder(tiny_model(), device="cpu")
    expected = embedder.embed_files(tones).embeddings.vectors
    samples, wide = audio.load(tones[1], 8000), audio.load(tones[2], 16000)
    items = [
        str(tones[0]),
        samples,
        {"array": wide, "sampling_rate": 16000},
        {"audio": {"path": str(tones[3])}},
        torch.from_numpy(audio.load(tones[4], 8000)),
        tones[5],
    ]
    found = model.encode(items)
    np.testing.assert_allclose(found[[0, 1, 3, 4, 5]], expected[[0, 1, 3, 4, 5]], atol=1e-6)
    assert found[2] @ expected[2] > 0.98, "resampled up and down again"
    np.testing.assert_allclose(
        model.encode(["slow piano", "drums, w. mp3"]), embedder.embed_texts(["slow piano", "drums, w. mp3"]), atol=1e-6
    )
    assert model.encode("one text").shape == (12,)
    assert model.get_embedding_dimension() == 12


def test_similarity_is_the_cosine_across_texts_and_audio(model, tones):
    texts, sounds = model.encode(["a", "b c"]), model.encode([str(path) for path in tones])
    np.testing.assert_allclose(model.similarity(texts, sounds).numpy(), texts @ sounds.T, atol=1e-6)


def test_their_retrieval_evaluator_runs_with_texts_as_queries_and_files_as_documents(model, tones):
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    vectors = model.encode([str(path) for path in tones])
    nearest = int((model.encode(["low tone"]) @ vectors.T).argmax())
    corpus = {str(number): str(path) for number, path in enumerate(tones)}
    evaluator = InformationRetrievalEvaluator(
        {"q": "low tone"}, corpus, {"q": {str(nearest)}}, mrr_at_k=[3], ndcg_at_k=[3], accuracy_at_k=[1],
        precision_recall_at_k=[1], map_at_k=[3], write_csv=False,
    )  # fmt: skip
    figures = evaluator(model)
    assert figures["cosine_accuracy@1"] == 1.0


def test_a_saved_sentence_transformer_comes_back_with_the_same_vectors(model, tones, tmp_path):
    from sentence_transformers import SentenceTransformer

    model.save(str(tmp_path / "st"), create_model_card=False)
    assert not list((tmp_path / "st").rglob("*.bin"))
    again = SentenceTransformer(
        str(tmp_path / "st"), device="cpu", trust_remote_code=True
    )  # asked of all outside their own
    for items in (["low tone"], [str(tones[0])]):
        np.testing.assert_array_equal(again.encode(items), model.encode(items))


def test_a_file_that_cannot_be_decoded_and_samples_that_are_none_are_refused(model, tmp_path):
    (tmp_path / "broken.mp3").write_bytes(b"no audio")
    with pytest.raises(AudioError, match=r"broken\.mp3"):
        model.encode([str(tmp_path / "broken.mp3")])
    with pytest.raises(ValueError, match="one or more finite samples"):
        model.encode([np.array([0.0, np.nan], dtype=np.float32)])
