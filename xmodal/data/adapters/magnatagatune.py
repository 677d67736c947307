"""MagnaTagATune: 29-second clips with tags from a game (Law et al., ISMIR 2009)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from xmodal.data.adapters.base import Adapter, Part, given
from xmodal.data.tracks import Track

_URL = "https://mirg.city.ac.uk/datasets/magnatagatune"

# fmt: off
TOP_50 = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient",
    "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals", "no vocals",
    "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man",
    "classic", "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello",
    "no voice", "weird", "country", "metal", "female voice", "choral",
)
# fmt: on
"""The 50 most frequent tags, which most papers judge by, the most frequent first."""

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "beat": ("beats",),
    "chant": ("chanting",),
    "choir": ("choral",),
    "classical": ("clasical", "classic"),
    "drums": ("drum",),
    "electronic": ("electro", "electronica", "electric"),
    "fast": ("fast beat", "quick"),
    "female voice": (
        "female", "female singer", "female singing", "female vocal", "female vocals", "woman", "woman singing", "women",
    ),
    "flute": ("flutes",),
    "guitar": ("guitars",),
    "hard rock": ("hard",),
    "harpsichord": ("harpsicord",),
    "metal": ("heavy", "heavy metal"),
    "horn": ("horns",),
    "indian": ("india",),
    "jazz": ("jazzy",),
    "male voice": ("male", "male singer", "male vocal", "male vocals", "man", "man singing", "men"),
    "no drums": ("no beat",),
    "no vocals": ("no singer", "no singing", "no vocal", "no voice", "no voices", "instrumental"),
    "opera": ("operatic",),
    "orchestra": ("orchestral",),
    "quiet": ("silence",),
    "singing": ("singer",),
    "space": ("spacey",),
    "strings": ("string",),
    "synth": ("synthesizer",),
    "violin": ("violins",),
    "vocals": ("vocal", "voice", "voices"),
    "weird": ("strange",),
}  # fmt: skip
"""Tags that mean the same, by the name that stays.

After K. Choi's list (github.com/keunwoochoi/magnatagatune-list), with "female vocal" added to its female voices."""

_EMPTY = (
    "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
    "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_xiveme_ordre_couperin-88-117.mp3",
)
_NAME_OF = {other: name for name, others in SYNONYMS.items() for other in others}


class MagnaTagATune(Adapter):
    """MagnaTagATune with the split by folders that most papers use: 0-b train, c validation, d-f test.

    Wants ``annotations_final.csv`` and ``clip_info_final.csv`` (tabs in spite of the name) and the 16 folders of
    ``mp3.zip``, in the root or in a folder such as ``mp3``.

    Args:
        root: The folder of the copy.
        tags: "all" 188, or the 50 most frequent ones.
        merge_synonyms: Write tags that mean the same as one (:data:`SYNONYMS`); "top50" are then the names that the
            50 become.
    """

    name = "MagnaTagATune"
    homepage = "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset"
    audio_url = f"{_URL}/mp3.zip.001 (and .002, .003: join them with cat, then unzip)"
    licence = "CC BY-NC-SA (Magnatune); research"
    parts = (
        Part("annotations_final.csv", f"{_URL}/annotations_final.csv"),
        Part("clip_info_final.csv", f"{_URL}/clip_info_final.csv"),
    )
    expected = {"": 25_863}
    broken = dict.fromkeys(_EMPTY, "is empty in the published archive")

    def __init__(self, root: str, tags: Literal["all", "top50"] = "all", merge_synonyms: bool = False) -> None:
        super().__init__(root)
        if tags not in ("all", "top50"):
            raise ValueError(f"tags must be 'all' or 'top50', got {tags!r}")
        self.tags = tags
        self.merge_synonyms = merge_synonyms

    def tracks(self) -> Iterator[Track]:
        """One track for each row of ``annotations_final.csv``."""
        info_list, tag_list = self.place("clip_info_final.csv"), self.place("annotations_final.csv")
        infos = {row["clip_id"]: row for row in self.rows(info_list, ["clip_id", "title"], delimiter="\t")}
        folder = self.place("0").parent
        for row in self.rows(tag_list, ["clip_id", "mp3_path"], delimiter="\t"):
            named = [tag for tag, value in row.items() if value == "1" and tag not in ("clip_id", "mp3_path")]
            info = infos.get(row["clip_id"], {})
            kept = self._kept(named)
            yield Track(
                id=row["clip_id"],
                path=folder / row["mp3_path"],
                tags={"tag": kept} if kept else {},
                split=_split(row["mp3_path"]),
                group=info.get("original_url") or None,
                licence=self.licence,
                source=self.homepage,
                **given(**{name: info.get(name) for name in ("title", "artist", "album")}),
            )

    def _kept(self, named: list[str]) -> tuple[str, ...]:
        if self.tags == "top50":
            named = [tag for tag in named if tag in TOP_50]
        if self.merge_synonyms:
            named = [_NAME_OF.get(tag, tag) for tag in named]
        return tuple(dict.fromkeys(named))


def _split(path: str) -> str:
    folder = path.split("/")[0].lower()
    return "train" if folder in "0123456789ab" else "validation" if folder == "c" else "test"
