"""The words for every tag, split by split.

A tag is worded differently in the captions of each split: no phrase of one split is a phrase of another, so a
model that finds a test caption has understood it rather than remembered it. :data:`UNSEEN_WORDS` are in no
caption at all: they are for zero-shot tagging.

How a phrase is used depends on its kind: instruments and accompaniments are nouns without an article, styles
stand before "music", moods, tempos, densities, registers and articulations are adjectives, modes follow "in", and
drums are a phrase of their own ("with drums").

The phrases were chosen so that all-MiniLM-L6-v2, asked which training phrase is nearest to a phrase of another
column, finds the right tag for nearly all.
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
_TABLE = """
piano: piano, acoustic piano, grand piano, piano keys, parlour piano | concert piano | upright piano | pianoforte
electric piano: electric piano, Rhodes piano, electric keyboard, stage piano, vintage electric piano | Rhodes keyboard | electronic piano, Fender Rhodes piano | electronic keyboard piano
harpsichord: harpsichord, baroque harpsichord, early-music harpsichord, harpsichord keyboard | plucked harpsichord | antique harpsichord, period harpsichord | baroque plucked keyboard
organ: organ, Hammond organ, electric organ, drawbar organ, soul organ | jazz organ | rock organ, tonewheel organ | Hammond B3
church organ: church organ, pipe organ, big organ of a church, grand pipe organ | cathedral organ | chapel organ, great pipe organ | hymn organ
accordion: accordion, squeezing accordion, folk accordion, accordion squeeze | piano accordion | button accordion, musette accordion | squeezebox
glockenspiel: glockenspiel, glockenspiel bells, chiming glockenspiel, orchestral bells | bright glockenspiel | tinkling glockenspiel, metal glockenspiel | tiny bells
vibraphone: vibraphone, vibes, shimmering vibes, vibraphone bars | mellow vibraphone | jazz vibraphone, vibraphone with mallets | vibraphonist
marimba: marimba, wooden marimba, marimba bars, xylophone-like marimba | mallet marimba | concert marimba, marimba with mallets | wooden mallet instrument
steel drums: steel drums, steelpan, steel pan, island steel drums | Trinidad steelpan | Caribbean steel drum, tuned steel drum | Caribbean steel band
acoustic guitar: acoustic guitar, unplugged guitar, wooden guitar, folk guitar, acoustic six-string guitar | nylon-string acoustic guitar | steel-string acoustic guitar, Spanish guitar | fingerstyle guitar
electric guitar: electric guitar, clean electric guitar, electric guitar with a clean tone, electric jazz guitar | clean-toned electric guitar | undistorted electric guitar, clean guitar | amplified guitar
distorted guitar: distorted guitar, overdriven guitar, fuzzy distorted guitar, crunchy overdriven guitar, fuzz guitar | heavily distorted guitar | guitar with distortion, overdrive guitar | distorted electric guitar
banjo: banjo, five-string banjo, twanging banjo, banjo picking | bluegrass banjo | picked banjo, country banjo | banjoist
sitar: sitar, Indian sitar, droning sitar, sitar from India | Hindustani sitar | raga sitar, twangy sitar | sitarist
harp: harp, concert harp, classical harp, harp strings | pedal harp | orchestral harp, plucked harp | harpist
pizzicato strings: pizzicato strings, plucked violins, plucked string section, pizzicato orchestra | string pizzicato | pizzicato violins, strings played pizzicato | finger-plucked violins
violin: violin, solo violin, sweet violin, violin line | bowed violin | single violin, fiddle | violinist
cello: cello, solo cello, warm cello, deep cello | bowed cello | single cello, lyrical cello | cellist
strings: strings, string section, string orchestra, bowed string section, sweeping strings | string ensemble | orchestral strings, bowed strings | symphonic strings
choir: choir, choral voices, vocal choir, voices of a choir, wordless choir | chorus of voices | choir vocals, singing choir | choral singing
trumpet: trumpet, solo trumpet, brassy trumpet, jazz trumpet | bright trumpet | single trumpet, trumpet player | trumpeter
trombone: trombone, slide trombone, bold trombone, low trombone | tenor trombone | single trombone, brassy trombone | trombone player
french horn: french horn, orchestral horn, round french horn, horn of the orchestra | mellow french horn | single french horn, noble french horn | orchestral french horns
brass section: brass section, brass ensemble, brass band, section of horns and brass, punchy brass | section of brass | group of brass, big-band brass | brass instruments
saxophone: saxophone, sax, smooth saxophone, breathy sax | alto saxophone | tenor saxophone, tenor sax | saxophonist
oboe: oboe, reedy oboe, plaintive oboe, double-reed oboe | orchestral oboe | nasal oboe, single oboe | solo oboe
bassoon: bassoon, deep bassoon, low bassoon, double-reed bassoon | orchestral bassoon | woody bassoon, single bassoon | bassoonist
clarinet: clarinet, woody clarinet, smooth clarinet, klezmer clarinet | B-flat clarinet | mellow clarinet, single clarinet | clarinetist
flute: flute, transverse flute, airy flute, breathy flute | concert flute | silver flute, orchestral flute | flute player
harmonica: harmonica, blues harmonica, country harmonica, bending harmonica | mouth harmonica | diatonic harmonica, wailing harmonica | blues harp
synth lead: synth lead, lead synthesizer, bright synth lead, electronic lead synth | synthesizer lead | analog synth lead, buzzing lead synth | retro synth lead
synth pad: synth pad, synthesizer pad, pad synthesizer, airy synth pad | warm synth pad | soft synth pad, lush synthesizer pad | swelling synth pads
upright bass: upright bass, double bass, walking upright bass, big wooden double bass | plucked double bass | jazz upright bass, orchestral double bass | acoustic double bass
electric bass: electric bass, bass guitar, electric bass line, fretted bass guitar | fingered bass guitar | electric bass guitar, picked bass guitar | Fender bass guitar
slap bass: slap bass, slapped bass guitar, slap bass groove, slapped electric bass | popping slap bass | funky slap bass, thumb-slapped bass | slapping bass
synth bass: synth bass, synthesizer bass, fat synth bass, bass synth | synthesized bass | analog synth bass, bass synthesizer | squelchy synth bass
tuba: tuba, brass tuba, low tuba, orchestral tuba | bass tuba | big tuba, oompah tuba | sousaphone

rock: rock, rock band, guitar-band rock, electric rock, driving rock | rock and roll | classic rock, hard-hitting rock | rock'n'roll
metal: metal, heavy metal, aggressive metal, metal band | thrash metal | hard heavy metal, speed metal | headbanging metal
jazz: jazz, swing jazz, small-group jazz, jazz ensemble, smooth jazz | swinging jazz | jazz combo, jazz club | jazzy
bossa nova: bossa nova, Brazilian bossa nova, bossa, lounge bossa nova | laid-back bossa nova | gentle bossa nova, bossa-nova | Ipanema-style
reggae: reggae, Jamaican reggae, offbeat reggae, island reggae | roots reggae | dub reggae, one-drop reggae | Bob Marley style reggae
disco: disco, dance-floor disco, disco groove, dance disco | seventies disco | disco dance, four-on-the-floor disco | funky seventies disco
techno: techno, electronic techno, driving techno, dance techno | club techno | techno rave, hard electronic techno | techno dance
hip hop: hip hop, rap beat, boom bap hip hop, hip hop beat, urban hip hop | hip-hop groove | hip-hop, instrumental rap | old-school rap
funk: funk, funky groove, syncopated funk, tight funk | seventies funk | funky, deep funk | funk band
waltz: waltz, three-four waltz, dancing waltz, waltz in three | Viennese waltz | waltz-time, ballroom waltz | slow-quick waltz dance
march: march, military march, marching tune, brisk march | marching-band march | parade march, marching band | military parade
ballad: ballad, pop ballad, slow ballad, tender ballad | love ballad | soft ballad, romantic ballad | ballad love song
folk: folk, acoustic folk, folk song, village folk, folk tune | rustic folk | traditional folk, country folk | folksy
latin: latin, salsa, Latin dance, latin salsa, Afro-Latin | Cuban salsa | Latin American dance, hot salsa | Latin mambo
ambient: ambient, atmospheric ambient, ambient soundscape, ambient drift, spacious ambient | ambient drone | atmospheric soundscape, ambient textures | ambient chill-out
classical: classical, classical chamber, classical music style, orchestral classical | baroque classical | chamber classical, concert-hall classical | Mozart-like

# tempo
slow: slow, slow-tempo, leisurely, unhurried, slowly paced | slow-going | slow-moving, very slow | sluggish
medium tempo: medium-tempo, mid-tempo, moderately paced, moderately fast, of middling tempo | moderate-tempo | midtempo, medium-paced | moderate
fast: fast, fast-tempo, quick, fast-paced, up-tempo | very fast | rapid, quick-tempo | speedy
# mode
major key: a major key, major, a key of major, the major scale | the major mode | major tonality, a major scale | major harmony
minor key: a minor key, minor, a key of minor, the minor scale | the minor mode | minor tonality, a minor scale | minor harmony
# drums
drums: with drums, with a drum beat, with percussion, with a beat on the drums, with drums and percussion | with drumming | with a drum kit, with drum sounds | with a drummer
no drums: without drums, with no drums, with no percussion, with no drumming, drumless | without drumming | without any drums, free of drums | percussion-free
# density
sparse: sparse, minimal, uncluttered, bare and sparse, with few notes | very sparse | sparsely arranged, minimalist | thinly scored
busy: busy, dense, note-filled, full of notes, thick and busy | very busy | densely arranged, very dense | crowded
# register of the lead
high register: high, high-pitched, in a high register, high-up | high-toned | high-register, very high | shrill
low register: low, low-pitched, in a low register, deep | low-toned | low-register, very low | deep and low
# articulation of the lead
staccato: staccato, short-note, short staccato, separated | crisp staccato | clipped staccato, sharply staccato | short and detached
legato: legato, smooth, connected legato, sustained legato | smooth legato | flowing legato, smoothly connected | smoothly flowing
# accompaniment
arpeggios: arpeggios, broken chords, broken-chord arpeggios, rolling arpeggios | flowing arpeggios | rippling arpeggios, arpeggiated broken chords | arpeggiated figures
sustained chords: sustained chords, long held chords, sustained long chords, slow held harmonies | held chords | long sustained chords, held-out chords | drawn-out chords
strummed chords: strummed chords, strumming, strummed rhythm, strumming chords | strummed guitar-like chords | strummed accompaniment, steady strumming | strums
rhythmic chords: rhythmic chords, chord stabs, rhythmic comping chords, stabbing chords | punchy chord stabs | rhythmically played chords, punchy rhythmic chords | choppy chords
# mood
happy: happy, cheerful, joyful, bright and happy, full of joy | glad and happy | merry, joyous | upbeat
energetic: energetic, driving, high-energy, full of energy, lively | highly energetic | very energetic, vigorous | powerful and energetic
tense: tense, agitated, nervous, full of tension, uneasy and tense | uneasy | restless, tension-filled | anxious
calm: calm, peaceful, relaxed, gentle and calm, restful | tranquil | serene, quietly calm | soothing
sad: sad, melancholic, sorrowful, full of sorrow, melancholy | deeply sad | mournful, sad and melancholy | gloomy
dark: dark, ominous, sinister, shadowy and dark, shadowy | darkly ominous | menacing, brooding and dark | spooky
dreamy: dreamy, floating, dreamlike, cloudlike, ethereal | softly dreamy | dreamily floating, hazily dreamy | otherworldly
"""  # noqa: E501  (a table of one line a tag)


def _read(table: str) -> dict[str, Wording]:
    words = {}
    for line in table.strip().splitlines():
        if line and not line.startswith("#"):
            tag, _, cells = line.partition(": ")
            words[tag] = Wording(*(tuple(cell.strip().split(", ")) for cell in cells.split("|")))
    return words


WORDS: Mapping[str, Wording] = _read(_TABLE)
"""The phrases for every tag."""

UNSEEN_WORDS: Mapping[str, str] = {word: tag for tag, wording in WORDS.items() for word in wording.unseen}
"""Phrases that no caption of any split uses, and the tags they mean."""
