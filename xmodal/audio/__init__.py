"""Files to mono samples at one rate, and samples to windows. Nothing here is random.

Conventions
-----------
* Samples are float32, mono, in [-1, 1]: the mean of the file's channels, resampled once by soxr HQ, then clipped.
  Lossy decoders overshoot full scale by a little and that is clipped; a peak above ``PEAK_LIMIT`` is damage or
  unscaled integers and is refused.
* Times are seconds, and sample counts are at the rate that the caller asked for: second ``t`` is sample
  ``round(t * sample_rate)``. A file of ``n`` frames at ``r`` Hz has ``n * sample_rate / r`` samples, rounded half up.
* :func:`load` and :func:`windows` read one and the same stream, so the windows of a file are exactly
  ``cut(load(path, sample_rate), sample_rate, policy)``, however long the file is.
* A part of a file equals that slice of the whole file to within 1e-5 (bit-exactly where nothing is resampled).
* The decoder is chosen by the file's content, never by its suffix.
* Bytes in memory, behind a URL or inside a tar shard (:class:`StoredAudio`) give what a file with these bytes gives.
* A file that cannot give honest samples raises :class:`~xmodal.errors.AudioError`; digital silence is honest. With
  :class:`IsolatedDecoder` that holds for files that hang or crash a decoder, too.
"""

from xmodal.audio.decode import PEAK_LIMIT
from xmodal.audio.files import (
    AUDIO_SUFFIXES,
    LOAD_LIMIT_SECONDS,
    AudioLimits,
    digest,
    find_audio,
    load,
    load_within,
    probe,
    windows,
)
from xmodal.audio.isolated import DecoderFailedError, IsolatedDecoder
from xmodal.audio.policy import Window, WindowPolicy, cut
from xmodal.audio.stored import AudioInfo, AudioLike, BytesAudio, RangeAudio, RemoteAudio, StoredAudio

__all__ = [
    "AUDIO_SUFFIXES",
    "LOAD_LIMIT_SECONDS",
    "PEAK_LIMIT",
    "AudioInfo",
    "AudioLike",
    "AudioLimits",
    "BytesAudio",
    "DecoderFailedError",
    "IsolatedDecoder",
    "RangeAudio",
    "RemoteAudio",
    "StoredAudio",
    "Window",
    "WindowPolicy",
    "cut",
    "digest",
    "find_audio",
    "load",
    "load_within",
    "probe",
    "windows",
]
