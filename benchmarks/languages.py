"""What a text tower makes of tag names in other languages: does the foreign name find the English one?

    python benchmarks/languages.py                         # all-MiniLM-L6-v2, seconds
    python benchmarks/languages.py --model DIR_OR_HUB_ID   # another sentence-transformers model
    python benchmarks/languages.py --quick                 # the same: it is quick

The encoder that `make demo` and configs/base.yaml use was trained on English. 48 tags in German, French and Spanish are
each a query over the 48 English ones. Names that are spelt alike or nearly so (piano, guitare) are told apart from
those that are not (Geige, batterie), because only the latter need a language. The peer of each claim is chance.
"""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Callable, Sequence

import numpy as np
import torch

from xmodal.metrics import rank, summary
from xmodal.towers import SentenceTransformerTower

# English, German, French, Spanish.
NAMES = """
violin Geige violon violín; piano Klavier piano piano; guitar Gitarre guitare guitarra
drums Schlagzeug batterie batería; flute Flöte flûte flauta; trumpet Trompete trompette trompeta
cello Cello violoncelle violonchelo; organ Orgel orgue órgano; harp Harfe harpe arpa
saxophone Saxophon saxophone saxofón; clarinet Klarinette clarinette clarinete; oboe Oboe hautbois oboe
accordion Akkordeon accordéon acordeón; double-bass Kontrabass contrebasse contrabajo; choir Chor chœur coro
voice Stimme voix voz; bell Glocke cloche campana; horn Horn cor trompa
bagpipes Dudelsack cornemuse gaita; whistle Pfeife sifflet silbato; sad traurig triste triste
happy fröhlich joyeux alegre; calm ruhig calme tranquilo; angry wütend furieux enojado
slow langsam lent lento; fast schnell rapide rápido; loud laut fort fuerte
quiet leise silencieux silencioso; dark düster sombre oscuro; bright hell clair brillante
romantic romantisch romantique romántico; funny lustig drôle gracioso; dog Hund chien perro
rain Regen pluie lluvia; rooster Hahn coq gallo; fire Feuer feu fuego
sea-waves Meereswellen vagues olas; clock Uhr horloge reloj; helicopter Hubschrauber hélicoptère helicóptero
baby Baby bébé bebé; march Marsch marche marcha; waltz Walzer valse vals
lullaby Wiegenlied berceuse nana; folk Volksmusik folklorique folclore
film-music Filmmusik musique-de-film música-de-cine
classical klassisch classique clásico; dance Tanz danse danza; song Lied chanson canción
"""
LANGUAGES = ("German", "French", "Spanish")
ALIKE = 0.6  # share of matching letters from which two names are spelt nearly alike


def read_names() -> list[list[str]]:
    rows = [row.split() for line in NAMES.strip().splitlines() for row in line.split(";")]
    return [[name.replace("-", " ") for name in row] for row in rows]


def spelt_alike(english: str, foreign: str) -> bool:
    return difflib.SequenceMatcher(None, english.lower(), foreign.lower()).ratio() >= ALIKE


def judge(embed: Callable[[Sequence[str]], np.ndarray]) -> dict[str, dict[str, float]]:
    """R@1, R@5 and MRR of foreign names over English ones, by language and by spelling."""
    rows = read_names()
    english = torch.from_numpy(embed([row[0] for row in rows]))
    found: dict[str, dict[str, float]] = {}
    every, alike = [], []
    for column, language in enumerate(LANGUAGES, start=1):
        values = rank(torch.from_numpy(embed([row[column] for row in rows])) @ english.T, torch.eye(len(rows))).values(
            (1, 5)
        )
        every.append(values)
        alike += [spelt_alike(row[0], row[column]) for row in rows]
        found[language] = summary(values)
    joined = {name: torch.cat([values[name] for values in every]) for name in every[0]}
    mask = torch.tensor(alike)
    for name, chosen in (("spelt nearly alike", mask), ("spelt differently", ~mask)):
        found[name] = summary({key: values[chosen] for key, values in joined.items()})
        found[name]["names"] = int(chosen.sum())
    return found


def embedder(model: str) -> Callable[[Sequence[str]], np.ndarray]:
    tower = SentenceTransformerTower(model).eval()

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> np.ndarray:
        vectors = tower.encode(tower.tokenize(list(texts)))
        return torch.nn.functional.normalize(vectors, dim=1).numpy()

    return embed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="a sentence-transformers model")
    parser.add_argument("--quick", action="store_true", help="the same: it is quick")
    options = parser.parse_args()
    found = judge(embedder(options.model))
    tags = len(read_names())
    print(f"| foreign name finds the English one of {tags} | R@1 | R@5 | MRR |\n|---|---:|---:|---:|")
    for name, values in found.items():
        count = f", {values['names']:.0f} names" if "names" in values else ""
        print(f"| {name}{count} | {values['R@1']:.3f} | {values['R@5']:.3f} | {values['MRR']:.3f} |")
    print(f"| chance | {1 / tags:.3f} | {5 / tags:.3f} | |\n")
    for name in LANGUAGES:
        ratio = found[name]["R@5"] * tags / 5
        claim = {"claim": f"{name} tag names find English ones, R@5 against chance", "ours": found[name]["R@5"]}
        print(json.dumps(claim | {"peer": 5 / tags, "ratio": ratio, "goal": 2.0, "met": ratio >= 2.0}))


if __name__ == "__main__":
    main()
