"""mteb itself runs retrieval and classification over a model, without a network, and agrees with our protocol."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch
from published_models import RATE, published
from tiny import tiny_model

import xmodal.compat  # noqa: F401  (mteb imports transformers)
from xmodal import audio
from xmodal.data.tracks import Caption, Track
from xmodal.embedder import Embedder, load
from xmodal.evaluation import Protocol, judge
from xmodal.importers import import_clap
from xmodal.metrics import retrieval_metrics

mteb = pytest.importorskip("mteb", reason="mteb is not installed: pip install mteb")
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


# -- CLAP: mteb's evaluators, with our import and with mteb's own wrapper, beside our protocol ------------------------

MOODS = ("w10", "w40", "w70")
KS = (1, 5, 10)


@pytest.fixture(scope="module")
def clips_and_words(tmp_path_factory):
    """Tracks of a random CLAP: two captions each, some captions of several tracks, and one mood of three."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    tracks = []
    for number in range(48):
        time = np.arange(rng.integers(4_000, 16_000)) / RATE
        samples = 0.4 * np.sin(2 * np.pi * rng.uniform(100, 3000) * time) * np.sin(rng.uniform(2, 9) * time)
        samples += rng.uniform(0, 0.2) * rng.standard_normal(len(time))
        # mteb's wrapper of CLAP rounds every clip down to 16 bits. The middle of a step is the same step again.
        samples = (np.trunc(samples.clip(-0.99, 0.99) * 32767) + 0.5 * np.sign(samples)) / 32767
        path = folder / f"{number}.wav"
        soundfile.write(path, samples, RATE, subtype="FLOAT")
        captions = (f"w{number % 16} w{number % 4 + 20}", f"w{number + 50} w{number + 100} w{number % 7}")
        tracks.append(
            Track(f"t{number}", path, tags={"mood": (MOODS[number % 3],)}, captions=tuple(map(Caption, captions)))
        )
    return tracks


@pytest.fixture(scope="module")
def clap_embedder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clap") / "model"
    import_clap(published("clap")).save(folder)
    return load(folder, device="cpu")


@pytest.fixture(scope="module", params=["our import", "mteb's own wrapper"])
def clap_for_mteb(request, clap_embedder):
    from mteb.models.model_implementations.clap_models import ClapZeroShotWrapper

    from xmodal.interop.mteb import MtebModel

    ours = MtebModel(clap_embedder, "xmodal/clap")
    if request.param == "our import":
        return ours
    theirs = ClapZeroShotWrapper(published("clap"), revision="main", device="cpu")
    theirs.mteb_model_meta = ours.mteb_model_meta  # a random model is in no list of mteb's
    return theirs


@pytest.fixture(scope="module")
def judged(clap_embedder, clips_and_words):
    protocol = Protocol(split="all", relevance="captions", classify="mood", prompts={"mood": ("{}",)}, ks=KS)
    return judge(clap_embedder, clips_and_words, protocol)


def as_mteb(tracks):
    return [{"array": audio.load(track.path, RATE).tolist(), "sampling_rate": RATE} for track in tracks]


def retrieval_task(name, category, corpus, queries, right):
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

    class Clips(AbsTaskRetrieval):
        metadata = metadata(name, "Any2AnyRetrieval", category, "ndcg_at_10")

        def load_data(self, **kwargs):
            split = RetrievalSplitData(corpus=corpus, queries=queries, relevant_docs=right, top_ranked=None)
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Clips()


@pytest.mark.parametrize("direction", ["text_to_audio", "audio_to_text"])
def test_an_imported_clap_has_the_same_figures_by_our_protocol_and_by_mteb(
    clap_for_mteb, judged, clips_and_words, direction
):
    from datasets import Dataset

    tracks = clips_and_words
    texts = list(dict.fromkeys(caption.text for track in tracks for caption in track.captions))
    own = [{caption.text for caption in track.captions} for track in tracks]
    clips = {"id": [track.id for track in tracks], "audio": as_mteb(tracks)}
    words = {"id": [f"w{n}" for n in range(len(texts))], "text": texts}
    corpus, queries, category = (clips, words, "t2a") if direction == "text_to_audio" else (words, clips, "a2t")
    said = {
        text_id: {track.id: 1 for track, mine in zip(tracks, own, strict=True) if text in mine}
        for text_id, text in zip(words["id"], texts, strict=True)
    }
    if direction == "audio_to_text":
        said = {t.id: {text_id: 1 for text_id in said if t.id in said[text_id]} for t in tracks}
    task = retrieval_task("ClipsRetrieval", category, Dataset.from_dict(corpus), Dataset.from_dict(queries), said)
    theirs, ours = run(clap_for_mteb, task), judged.retrieval[direction].values
    assert judged.retrieval[direction].queries == len(queries["id"])
    assert judged.retrieval[direction].right_answers > 1.2, "some queries have many right answers"
    # mteb rounds its figures to five places.
    assert {name: ours[name] for name in ("R@1", "R@5", "R@10", "nDCG@10")} == {
        "R@1": pytest.approx(theirs["hit_rate_at_1"], abs=1e-5),
        "R@5": pytest.approx(theirs["hit_rate_at_5"], abs=1e-5),
        "R@10": pytest.approx(theirs["hit_rate_at_10"], abs=1e-5),
        "nDCG@10": pytest.approx(theirs["ndcg_at_10"], abs=1e-5),
    }
    places = torch.tensor(judged.per_query[direction]["MedR"])
    within_ten = (1 / places).masked_fill(places > 10, 0)
    assert float(within_ten.mean()) == pytest.approx(theirs["mrr_at_10"], abs=1e-5)
    assert 0 < ours["R@10"] < 1


def test_an_imported_clap_classifies_the_same_by_our_protocol_and_by_mteb(clap_for_mteb, judged, clips_and_words):
    from datasets import Dataset
    from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification

    class Moods(AbsTaskZeroShotClassification):
        metadata = metadata("ClipsMoods", "AudioZeroshotClassification", "a2t", "accuracy")
        input_column_name = "audio"

        def get_candidate_labels(self):
            return list(MOODS)

        def load_data(self, **kwargs):
            labels = [MOODS.index(track.tags["mood"][0]) for track in clips_and_words]
            self.dataset = {"test": Dataset.from_dict({"audio": as_mteb(clips_and_words), "label": labels})}
            self.data_loaded = True

    theirs = run(clap_for_mteb, Moods())
    assert judged.classification["tracks"] == len(clips_and_words)
    assert judged.classification["accuracy"] == pytest.approx(theirs["accuracy"], abs=1e-5)
    assert judged.classification["accuracy"] not in (0, 1)
