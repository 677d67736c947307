"""mteb itself runs a text to audio retrieval and an audio classification over a model, without a network."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny import tiny_model

import xmodal.compat  # noqa: F401  (mteb imports transformers)
from xmodal import audio
from xmodal.embedder import Embedder
from xmodal.metrics import retrieval_metrics

mteb = pytest.importorskip("mteb", reason="pip install mteb")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def metadata(name, kind, category, score):
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name=name, dataset={"path": "none/none", "revision": "0"}, description="Made on the spot.", type=kind,
        category=category, modalities=["text", "audio"] if "t" in category else ["audio"], eval_splits=["test"],
        eval_langs=["eng-Latn"], main_score=score, reference=None, date=None, domains=None, task_subtypes=None,
        license=None, annotations_creators=None, dialect=None, sample_creation=None, bibtex_citation="",
    )  # fmt: skip


@pytest.fixture(scope="module")
def sounds(tone_tracks):
    rows = [json.loads(line) for line in tone_tracks.read_text().splitlines()]
    paths = [tone_tracks.parent / row["path"] for row in rows]
    return rows, paths, [{"array": audio.load(path, 8000).tolist(), "sampling_rate": 8000} for path in paths]


@pytest.fixture(scope="module")
def model():
    from xmodal.interop.mteb import MtebModel

    return MtebModel(Embedder(tiny_model(), device="cpu"), "xmodal/tiny")


def run(model, task):
    result = mteb.evaluate(model, [task], cache=None, show_progress_bar=False, encode_kwargs={"batch_size": 8})
    assert not result.exceptions
    return result.task_results[0].scores["test"][0]


def test_mteb_runs_a_text_to_audio_retrieval_and_gets_our_figures(model, sounds):
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

    rows, paths, clips = sounds
    texts = [row["captions"][0] for row in rows[:4]]
    right = {
        f"q{n}": {f"d{m}": 1 for m, row in enumerate(rows) if row["captions"][0] == text}
        for n, text in enumerate(texts)
    }

    class Tones(AbsTaskRetrieval):
        metadata = metadata("TonesRetrieval", "Any2AnyRetrieval", "t2a", "ndcg_at_10")

        def load_data(self, **kwargs):
            corpus = Dataset.from_dict({"id": [f"d{n}" for n in range(len(clips))], "audio": clips})
            queries = Dataset.from_dict({"id": list(right), "text": texts})
            split = RetrievalSplitData(corpus=corpus, queries=queries, relevant_docs=right, top_ranked=None)
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    scores = run(model, Tones())
    embedder = model.embedder
    cosines = embedder.embed_texts(texts) @ embedder.embed_files(paths).embeddings.vectors.T
    relevance = np.array([[f"d{m}" in right[f"q{n}"] for m in range(len(rows))] for n in range(len(texts))])
    import torch

    ours = retrieval_metrics(torch.from_numpy(cosines), torch.from_numpy(relevance), [1, 10])
    assert scores["hit_rate_at_1"] == pytest.approx(ours["R@1"], abs=1e-4)


def test_mteb_runs_an_audio_classification(model, sounds):
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.classification import AbsTaskClassification

    rows, _, clips = sounds
    labels = [int(row["pitch"] == "high") for row in rows]

    class Pitch(AbsTaskClassification):
        metadata = metadata("TonesPitch", "AudioClassification", "a2c", "accuracy")
        input_column_name = "audio"
        samples_per_label = 6
        n_experiments = 2

        def load_data(self, **kwargs):
            part = {"audio": clips, "label": labels}
            self.dataset = DatasetDict(
                train=Dataset.from_dict({name: values[:24] for name, values in part.items()}),
                test=Dataset.from_dict({name: values[24:] for name, values in part.items()}),
            )
            self.data_loaded = True

    assert run(model, Pitch())["accuracy"] > 0.8, "low and high tones are easily told apart, even by random weights"


def test_the_model_says_who_it_is(model):
    meta = model.mteb_model_meta
    assert (meta.name, meta.revision, meta.embed_dim) == ("xmodal/tiny", model.embedder.space_id, 12)
    assert meta.modalities == ["text", "audio"]
    with pytest.raises(ValueError, match="a column audio or text, got image"):
        model.encode([{"image": [1]}])
    vectors = model.encode([{"text": ["a", "b"]}])
    np.testing.assert_allclose(model.similarity(vectors, vectors).diagonal(), 1, atol=1e-5)
    np.testing.assert_allclose(model.similarity_pairwise(vectors, vectors), 1, atol=1e-5)
