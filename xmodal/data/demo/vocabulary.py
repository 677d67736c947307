"""The words for every tag, split by split.

A tag is worded differently in the captions of each split: no phrase of one split is a phrase of another, so a
model that finds a test caption has understood it rather than remembered it. :data:`UNSEEN_WORDS` are in no
caption at all: they are for zero-shot tagging.

How a phrase is used depends on its kind: instruments and accompaniments are nouns without an article, styles
stand before "music", moods, tempos, densities, registers and articulations are adjectives, modes follow "in", and
drums are a phrase of their own ("with drums").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Wording(NamedTuple):
    """The phrases for one tag, by split; ``unseen`` stand in no caption."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    unseen: tuple[str, ...]


# One tag a line: its phrases in train, in validation, in test, and in no caption.
_INSTRUMENTS = """
piano: piano, acoustic piano, grand piano | concert piano | upright piano | pianoforte
electric piano: electric piano, Rhodes piano | Wurlitzer | Fender Rhodes, electronic piano | e-piano
harpsichord: harpsichord, a baroque harpsichord | clavecin | cembalo harpsichord | cembalo
organ: organ, Hammond organ, drawbar organ | jazz organ | rock organ, tonewheel organ | Hammond B3
church organ: church organ, pipe organ | cathedral organ | chapel organ, great pipe organs | liturgical organ
accordion: accordion, a squeezing accordion | piano accordion | button accordion | squeezebox
glockenspiel: glockenspiel, glockenspiel bells | orchestra bells | tinkling glockenspiels | metallic chimes
vibraphone: vibraphone, vibes | vibraharp | jazz vibraphones | vibraphone mallets
marimba: marimba, wooden marimba | xylophone-like marimba | marimbas | wooden mallet percussion
kalimba: kalimba, thumb piano | mbira | African kalimbas | plucked metal tines
steel drums: steel drums, steelpan | steel pans | Caribbean steel drum | Trinidadian pan
acoustic guitar: acoustic guitar, unplugged guitar | nylon-string guitar | classical guitar, steel-string guitar | Spanish guitar
electric guitar: electric guitar, clean electric guitar | jazz guitar | clean-toned guitar, electric guitars | Telecaster
distorted guitar: distorted guitar, overdriven guitar, fuzzy electric guitar | heavy guitar | distortion guitar, crunchy guitar | screaming guitar
banjo: banjo, five-string banjo | bluegrass banjo | plucked banjos | banjo picking
sitar: sitar, Indian sitar | Hindustani sitar | raga sitars | Indian plucked lute
harp: harp, concert harp | pedal harp | orchestral harps | angelic harp strings
pizzicato strings: pizzicato strings, plucked violins | string pizzicato | plucked orchestral strings, strings played pizzicato | finger-plucked violin section
violin: violin, solo violin | bowed violin | fiddle, a single violin | violinist
cello: cello, solo cello | violoncello | bowed cello, a single cello | cellist
strings: strings, string section, string orchestra | string ensemble | orchestral strings, bowed strings | violins and cellos
choir: choir, choral voices, a vocal choir | chorus of voices | choir vocals, singing choir | singers
trumpet: trumpet, solo trumpet | brass trumpet | a trumpet player, trumpets | trumpeter
trombone: trombone, slide trombone | tenor trombone | a trombone player, trombones | trombonist
french horn: french horn, orchestral horn | hunting horn | french horns, mellow horn | hornist
brass section: brass section, brass ensemble | horn section | group of brass, brass instruments | trumpets and trombones
saxophone: saxophone, sax | alto sax | tenor saxophone, saxophones | saxophonist
oboe: oboe, reedy oboe | orchestral oboe | nasal oboe, oboes | oboist
bassoon: bassoon, deep bassoon | orchestral bassoon | woody bassoon, bassoons | bassoonist
clarinet: clarinet, woody clarinet | B-flat clarinet | mellow clarinet, clarinets | clarinetist
flute: flute, transverse flute | concert flute | silver flute, flutes | flautist
pan flute: pan flute, panpipes | Andean pan flute | pan pipes, Andean panpipe | zampona
harmonica: harmonica, blues harmonica | mouth organ | diatonic harmonica, harmonicas | blues harp
synth lead: synth lead, lead synthesizer | synthesizer solo | analog synth lead, buzzing synthesizer | square-wave synth
synth pad: synth pad, synthesizer pad | warm pads | ambient synth pads, soft synthesizer wash | electronic drone
upright bass: upright bass, double bass | acoustic bass | contrabass, plucked double basses | string bass
electric bass: electric bass, bass guitar | fingered bass | electric bass guitars, picked bass | Fender bass
slap bass: slap bass, slapped bass | popping slap bass | slap bass guitar, thumb-slapped bass | slapping and popping bass
synth bass: synth bass, synthesizer bass | electronic bass | analog bass synth, bass synthesizer | Moog bass
tuba: tuba, brass tuba | bass tuba | big tuba, tubas | sousaphone
"""

_STYLES = """
rock: rock, guitar-band rock | rock'n'roll | classic rock, rock band | rocking
metal: metal, heavy metal | thrash | thrash metal, hard metal | headbanging
jazz: jazz, swing | swinging jazz | jazz combo, bebop | jazzy
bossa nova: bossa nova, bossa | Brazilian bossa | Brazilian jazz, samba-like bossa nova | Ipanema-style
reggae: reggae, Jamaican reggae | roots reggae | dub reggae, one-drop reggae | Jamaican
disco: disco, dance-floor disco | seventies disco | disco dance, nu-disco | danceable seventies
techno: techno, electronic techno | club techno | rave, electronic club | four-on-the-floor electronic
hip hop: hip hop, boom bap | hip-hop beat | rap beat, hip-hop | rap instrumental
funk: funk, funky groove | seventies funk | funky, deep funk | syncopated groove
waltz: waltz, three-four waltz | Viennese waltz | waltz-time, ballroom waltz | triple-time dance
march: march, military march | marching band | parade march, marching | parade
ballad: ballad, pop ballad | love ballad | slow-song ballad, soft pop ballads | love song
folk: folk, acoustic folk | folk-song | traditional folk, country folk | campfire
latin: latin, salsa | Cuban salsa | Latin American dance, Afro-Cuban | mambo
ambient: ambient, atmospheric ambient | ambient drone | atmospheric soundscape, new-age ambient | new age
classical: classical, classical chamber | baroque-style classical | chamber, concert-hall classical | Mozart-like
"""

_OTHERS = """
# tempo
slow: slow, slow-tempo, leisurely | slow-paced | slow-moving, unhurried | sluggish
medium tempo: medium-tempo, mid-tempo, moderately paced | moderate-tempo | midtempo, medium-paced | walking-pace
fast: fast, fast-tempo, quick | rapid | fast-paced, speedy | brisk
# mode
major key: a major key, major | the major mode | major tonality, a major scale | bright major harmony
minor key: a minor key, minor | the minor mode | minor tonality, a minor scale | mournful minor harmony
# drums
drums: with drums, with a drum beat, with percussion | with a drum kit | with drumming, with a percussive beat | with a drummer
no drums: without drums, with no drums, with no percussion | with no drum kit | free of drums, without any drumming | percussion-free
# density
sparse: sparse, minimal | uncluttered | sparsely arranged, spacious | bare
busy: busy, dense | full of notes | densely arranged, note-filled | crowded
# register of the lead
high register: high, high-pitched | treble | high-register, upper-register | soaring
low register: low, low-pitched | deep-register | low-register, lower-register | rumbling
# articulation of the lead
staccato: staccato, short-note | clipped | detached, choppy | bouncing
legato: legato, smooth | flowing | connected, sustained-note | singing
# accompaniment
arpeggios: arpeggios, broken chords | arpeggiated chords | rippling arpeggios, arpeggio patterns | rolling figures
sustained chords: sustained chords, long held chords | held harmonies | long-held harmony, sustained harmonies | drawn-out chords
strummed chords: strummed chords, strumming | a strumming pattern | strummed accompaniment, rhythm strums | strums
rhythmic chords: rhythmic chords, chord stabs | chopped chords | rhythmically struck chords, punchy chords | comping
# mood
happy: happy, cheerful | joyful | merry, joyous | upbeat
energetic: energetic, driving | high-energy | full of energy, vigorous | pumped-up
tense: tense, agitated | nervous | restless, full of tension | anxious
calm: calm, peaceful | tranquil | relaxed, serene | soothing
sad: sad, melancholic | mournful | sorrowful, melancholy | gloomy
dark: dark, ominous | sinister | brooding, menacing | spooky
playful: playful, whimsical | mischievous | humorous, lighthearted | quirky
dreamy: dreamy, floating | dreamlike | hazy, ethereal | otherworldly
"""


def _read(table: str) -> dict[str, Wording]:
    words = {}
    for line in table.strip().splitlines():
        if line and not line.startswith("#"):
            tag, _, cells = line.partition(": ")
            words[tag] = Wording(*(tuple(cell.strip().split(", ")) for cell in cells.split("|")))
    return words


WORDS: Mapping[str, Wording] = _read(_INSTRUMENTS + _STYLES + _OTHERS)
"""The phrases for every tag."""

UNSEEN_WORDS: Mapping[str, str] = {word: tag for tag, wording in WORDS.items() for word in wording.unseen}
"""Phrases that no caption of any split uses, and the tags they mean."""
