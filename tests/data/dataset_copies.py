"""Writes three-row copies of published data sets, in the layouts in which they are published."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any


def table(path: Path, columns: list[str], *rows: list[Any], delimiter: str = ",", encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.StringIO()
    writer = csv.writer(content, delimiter=delimiter, lineterminator="\n")
    writer.writerows([columns, *rows])
    path.write_text(content.getvalue(), encoding)


def audio(root: Path, *names: str) -> None:
    """Files with names of audio; adapters look at names only."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def magnatagatune(root: Path) -> None:
    tags = ["no voice", "female vocal", "guitar", "clasical", "chant"]
    broken = "6/norine_braun-now_and_zen-08-gently-117-146.mp3"
    table(
        root / "annotations_final.csv",
        ["clip_id", *tags, "mp3_path"],
        ["2", "1", "0", "1", "1", "0", "f/american_bach-1-0-29.mp3"],
        ["6", "0", "1", "1", "0", "1", "c/some-2-0-29.mp3"],
        ["7", "0", "0", "0", "0", "0", "b/other-3-0-29.mp3"],
        ["8", "0", "1", "0", "0", "0", broken],
        delimiter="\t",
    )
    columns = ["clip_id", "track_number", "title", "artist", "album", "url", "segmentStart", "segmentEnd"]
    table(
        root / "clip_info_final.csv",
        [*columns, "original_url", "mp3_path"],
        [
            "2",
            "1",
            "Gleichwie",
            "American Bach",
            "Cantatas",
            "u",
            "0",
            "29",
            "http://he3/1.mp3",
            "f/american_bach-1-0-29.mp3",
        ],
        ["6", "2", "Two", "Some", "More", "u", "0", "29", "http://he3/2.mp3", "c/some-2-0-29.mp3"],
        ["7", "3", "", "", "", "u", "0", "29", "", "b/other-3-0-29.mp3"],
        delimiter="\t",
    )
    audio(root / "mp3", "0/x.mp3", "f/american_bach-1-0-29.mp3", "c/some-2-0-29.mp3", "b/other-3-0-29.mp3", broken)


def mtg_jamendo(root: Path) -> None:
    rows = {
        "train": "track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\tgenre---punkrock\tmood/theme---fun",
        "validation": 'track_0000215\tartist_000014\talbum_000031\t15/215.mp3\t151.4\tgenre---metal\tgenre---"x',
        "test": "track_0003524\tartist_000530\talbum_000552\t24/3524.mp3\t266.1\tinstrument---piano",
    }
    folder = root / "data" / "splits" / "split-0"
    folder.mkdir(parents=True)
    for part, row in rows.items():
        header = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"
        (folder / f"autotagging-{part}.tsv").write_text(f"{header}\n{row}\n")
    (root / "data" / "raw.meta.tsv").write_text(
        "TRACK_ID\tARTIST_ID\tALBUM_ID\tTRACK_NAME\tARTIST_NAME\tALBUM_NAME\tRELEASEDATE\tURL\n"
        'track_0000214\tartist_000014\talbum_000031\t"Trop\tPunk\tSimple\t2004\thttp://x\n'
    )
    audio(root / "songs", "14/214.mp3", "15/215.low.mp3", "24/3524.mp3")


def musiccaps(root: Path) -> None:
    columns = ["ytid", "start_s", "end_s", "audioset_positive_labels", "aspect_list", "caption", "author_id"]
    table(
        root / "musiccaps-public.csv",
        [*columns, "is_balanced_subset", "is_audioset_eval"],
        ["-0Gj8-vB1q4", 30, 40, "/m/0140xf", "['low quality', \"child's voice\"]", "A ballad, sad.", 4, False, True],
        ["-0SdAVK79lg", 30, 40, "/m/0155w", "['guitar song']", "An electric guitar.", 0, False, False],
        ["zzz", 0, 10, "/m/0155w", "[]", "Nothing is left of it.", 0, True, False],
    )
    audio(root, "wav/[-0Gj8-vB1q4]-[30-40].wav", "wav/-0SdAVK79lg.mp3")


def song_describer(root: Path) -> None:
    columns = ["caption_id", "track_id", "caption", "is_valid_subset", "familiarity", "artist_id", "album_id", "path"]
    table(
        root / "song_describer.csv",
        [*columns, "duration"],
        [1, 1004034, "A retro-futurist groove.", True, 0, 368880, 118196, "34/1004034.mp3", 202.5],
        [2, 1004034, "Bubbly synths", "", 1, 368880, 118196, "34/1004034.mp3", 202.5],
        [3, 1007274, "acoustic guitar", "", 1, 429137, 118548, "74/1007274.mp3", 140.2],
    )
    audio(root / "audio", "34/1004034.2min.mp3", "74/1007274.2min.mp3")


def gtzan(root: Path) -> None:
    audio(root / "Data" / "genres_original", "blues/blues.00029.wav", "blues/blues.00000.wav", "hiphop/hiphop.00000.au")


def fma(root: Path) -> None:
    groups = ["", "set", "set", "track", "track", "track", "track", "track", "artist", "artist", "album", "album"]
    names = ["", "split", "subset", "title", "genre_top", "genres_all", "tags", "license", "name", "id", "title", "id"]
    (root / "fma_metadata").mkdir(parents=True)
    with (root / "fma_metadata" / "tracks.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([groups, names, ["track_id", *[""] * 11]])
        writer.writerow(
            [2, "training", "small", "Food", "Hip-Hop", "[21]", "['live', \"it's\"]", "BY-NC", "AWOL", 1, "A Way", 1]
        )
        writer.writerow([5, "validation", "small", "This", "", "[12, 21, 999]", "[]", "", "AWOL", 1, "", 1])
        writer.writerow([10, "test", "medium", "Freeway", "Pop", "[10]", "[]", "BY", "Kurt", 6, "Constant", 6])
    table(
        root / "fma_metadata" / "genres.csv",
        ["genre_id", "#tracks", "parent", "title", "top_level"],
        [21, 1, 0, "Hip-Hop", 21],
        [12, 1, 0, "Rock", 12],
        [10, 1, 0, "Pop", 10],
    )
    audio(root / "fma_medium", "000/000002.mp3", "000/000005.mp3", "000/000010.mp3")


def esc50(root: Path) -> None:
    table(
        root / "meta" / "esc50.csv",
        ["filename", "fold", "target", "category", "esc10", "src_file", "take"],
        ["1-100032-A-0.wav", 1, 0, "dog", True, 100032, "A"],
        ["1-100038-A-14.wav", 1, 14, "chirping_birds", False, 100038, "A"],
        ["5-9032-A-0.wav", 5, 0, "dog", True, 9032, "A"],
    )
    audio(root / "audio", "1-100032-A-0.wav", "1-100038-A-14.ogg", "5-9032-A-0.wav")


def audiocaps(root: Path) -> None:
    columns = ["audiocap_id", "youtube_id", "start_time", "caption"]
    table(root / "dataset" / "train.csv", columns, [91139, "r1nicOVtvkQ", 130, "A woman talks nearby as water pours"])
    table(
        root / "dataset" / "val.csv",
        columns,
        [97151, "vfY_TJq7n_U", 130, "Rustling occurs, ducks quack"],
        [97152, "vfY_TJq7n_U", 130, "Ducks quack and water splashes"],
    )
    table(root / "dataset" / "test.csv", columns, [103549, "7fmOlUlwoNg", 20, "Constant rattling noise"])
    audio(root / "wavs", "r1nicOVtvkQ_130.wav", "YvfY_TJq7n_U.flac", "103549.wav")


def clotho(root: Path) -> None:
    captions = [f"caption_{number}" for number in range(1, 6)]
    metadata = ["file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"]
    for part, name in (
        ("development", "Distorted AM Radio noise.wav"),
        ("validation", "é.wav"),
        ("evaluation", "a.wav"),
    ):
        sentences = [f"{part} {number}" for number in range(5)]
        table(root / f"clotho_captions_{part}.csv", ["file_name", *captions], [name, *sentences])
        row = [name, "noise;radio", "188733", "https://freesound.org/s/188733", "[0, 1]", "é", "http://cc/by"]
        table(root / f"clotho_metadata_{part}.csv", metadata, row, encoding="latin-1")
        audio(root / "clotho_audio_files" / part, name)


def nsynth(root: Path) -> None:
    for split, name, qualities in (
        ("train", "guitar_acoustic_001-082-050", ["bright", "fast_decay"]),
        ("valid", "bass_synthetic_068-049-025", []),
        ("test", "synth_lead_synthetic_001-060-100", ["dark"]),
    ):
        instrument, pitch, velocity = name.rsplit("-", 2)
        family, source, _ = instrument.rsplit("_", 2)
        note = {
            "note": 1, "note_str": name, "instrument": 2, "instrument_str": instrument, "pitch": int(pitch),
            "velocity": int(velocity), "sample_rate": 16000, "qualities": [0] * 10, "qualities_str": qualities,
            "instrument_family": 3, "instrument_family_str": family, "instrument_source": 0,
            "instrument_source_str": source,
        }  # fmt: skip
        audio(root / f"nsynth-{split}" / "audio", f"{name}.wav")
        (root / f"nsynth-{split}" / "examples.json").write_text(json.dumps({name: note}))


def openmic(root: Path) -> None:
    table(
        root / "openmic-2018-aggregated-labels.csv",
        ["sample_key", "instrument", "relevance", "num_responses"],
        ["000046_3840", "clarinet", 0.17, 3],
        ["000046_3840", "flute", 0.5, 3],
        ["000135_483840", "mallet_percussion", 0.99, 3],
        ["000178_3840", "banjo", 0.0, 3],
    )
    table(
        root / "openmic-2018-metadata.csv",
        [
            "sample_key",
            "start_time",
            "track_id",
            "artist_id",
            "artist_name",
            "track_title",
            "album_title",
            "license_title",
        ],
        ["000046_3840", 3.84, 46, 9, "Someone", "Yosemite", "An Album", "Attribution"],
        ["000135_483840", 483.84, 135, 9, "Someone", "Other", "", "Attribution"],
    )
    for split, names in (("train", ["000046_3840", "000178_3840"]), ("test", ["000135_483840"])):
        (root / "partitions").mkdir(exist_ok=True)
        (root / "partitions" / f"split01_{split}.csv").write_text("".join(f"{name}\n" for name in names))
    audio(root / "audio", "000/000046_3840.ogg", "000/000135_483840.ogg", "000/000178_3840.ogg")


DALI_LINES = [
    {"text": "never gonna", "time": [12.5, 14.0], "freq": [220.0, 330.0], "index": 0},
    {"text": "give", "time": [-0.25, 15.5], "freq": [220.0, 330.0], "index": 0},
]
DALI_WORDS = [
    {"text": "never", "time": [12.5, 13.0], "freq": [220.0, 220.0], "index": 0},
    {"text": "gonna", "time": [13.0, 14.0], "freq": [330.0, 330.0], "index": 0},
    {"text": "give", "time": [15.0, 15.5], "freq": [330.0, 330.0], "index": 1},
]


def dali_entry(name: str, *, vertical: bool = False, score: float = 0.9) -> dict[str, Any]:
    annot: dict[str, Any] = {"notes": [], "words": DALI_WORDS, "lines": DALI_LINES, "paragraphs": []}
    if vertical:
        words = [{**word, "text": [{"text": word["text"], "time": word["time"]}]} for word in DALI_WORDS]
        lines = [
            {**line, "text": [word for word in words if word["index"] == number]}
            for number, line in enumerate(DALI_LINES)
        ]
        annot = {"hierarchical": [{"text": lines, "time": [12.5, 15.5]}]}
    return {
        "info": {
            "id": name, "artist": "An Artist", "title": "A Song", "dataset_version": 1.0, "ground-truth": False,
            "scores": {"NCC": score, "manual": 0.0}, "audio": {"url": "NXG-ayocugI", "path": "None", "working": True},
            "metadata": {"album": "None", "release_date": "1987", "genres": ["Pop", "None"], "language": "english"},
        },
        "annotations": {
            "annot": annot,
            "type": "vertical" if vertical else "horizontal",
            "annot_param": {"fr": 43.06, "offset": 1.1},
        },
    }  # fmt: skip


def dali_object(entry: dict[str, Any], protocol: int = 2) -> bytes:
    """The pickle that DALI writes: an object of its class DALI.Annotations.Annotations, by protocol 2."""
    module = types.ModuleType("DALI.Annotations")
    module.Annotations = type("Annotations", (), {"__module__": "DALI.Annotations"})  # type: ignore[attr-defined]
    thing = module.Annotations()
    thing.__dict__.update(entry, errors=None)
    sys.modules |= {"DALI": types.ModuleType("DALI"), "DALI.Annotations": module}
    try:
        return pickle.dumps(thing, protocol=protocol)
    finally:
        del sys.modules["DALI"], sys.modules["DALI.Annotations"]


def dali(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    names = ["a" * 32, "b" * 32, "c" * 32]
    with gzip.open(root / f"{names[0]}.gz", "wb") as file:
        file.write(dali_object(dali_entry(names[0])))
    (root / f"{names[1]}.json").write_text(json.dumps(dali_entry(names[1], vertical=True)))
    (root / f"{names[2]}.json").write_text(json.dumps(dali_entry(names[2], score=0.4)))
    audio(root / "audio", *(f"{name}.mp3" for name in names))


def jamendolyrics(root: Path) -> None:
    columns = ["URL", "Filepath", "Artist", "Title", "Genre", "LicenseType", "Language"]
    table(
        root / "JamendoLyrics.csv",
        [*columns, "LyricOverlap", "Polyphonic", "NonLexical"],
        ["https://j/1", "HILA_-_Give.mp3", "HILA", "Give", "Pop", "BY-ND", "English", "false", "false", "false"],
        ["https://j/2", "1_Freak.mp3", "Freak", "1", "Rock", "CC  BY-NC", "German", "false", "true", "false"],
        ["https://j/3", "l'abandon.mp3", "FLO", "l'abandon", "Country", "CC BY", "French", "false", "false", "false"],
    )
    for name in ("HILA_-_Give", "1_Freak", "l'abandon"):
        (root / "lyrics").mkdir(exist_ok=True)
        (root / "lyrics" / f"{name}.words.txt").write_text("never\ngonna\ngive")
        times = ["12.5,13.0,nan", "13.0,14.0,14.25", "15.0,15.5,15.5"]
        folder = root / "annotations" / "words"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.csv").write_text("word_start,word_end,line_end\n" + "\n".join(times) + "\n")
        audio(root / "mp3", f"{name}.mp3")


COPIES: dict[str, Callable[[Path], None]] = {
    "MagnaTagATune": magnatagatune,
    "MTGJamendo": mtg_jamendo,
    "MusicCaps": musiccaps,
    "SongDescriber": song_describer,
    "GTZAN": gtzan,
    "FMA": fma,
    "ESC50": esc50,
    "AudioCaps": audiocaps,
    "Clotho": clotho,
    "NSynth": nsynth,
    "OpenMIC2018": openmic,
    "DALI": dali,
    "JamendoLyrics": jamendolyrics,
}
