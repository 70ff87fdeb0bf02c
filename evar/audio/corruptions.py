"""Corruptions of a clip: noise, reverberation, clipping, MP3, low-pass and the like, each a function of the clip alone.

``Corruption.apply`` takes the samples that a model would hear, at the model's rate, and gives as many float32 samples.
What is random (noise, the room) is seeded by the clip's content, so that batches, workers and order cannot matter, and
it does not depend on the severity: 10 dB and 0 dB are the same noise at two levels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from evar.audio.decode import RESAMPLER
from evar.audio.mp3 import BITRATES, check_mp3, through_mp3
from evar.errors import UserError, did_you_mean

VERSION = 1
"""Raised when the same name gives other samples: stored embeddings of corrupted clips are then not used."""
ORDER = 8
"""Of the Butterworth filters, which run forwards and backwards: no delay, -6 dB at the corner."""
TELEPHONE_RATE, TELEPHONE_BAND = 8000, (300.0, 3400.0)

Samples = NDArray[np.float64]
Draws = np.random.RandomState  # the legacy stream: NumPy promises that it will never give other numbers


def white_noise(samples: Samples, rate: int, decibels: float, draws: Draws) -> Samples:
    """Add Gaussian white noise, exactly ``decibels`` below the clip's power; silence stays silent."""
    return _at_snr(samples, draws.standard_normal(len(samples)), decibels)


def pink_noise(samples: Samples, rate: int, decibels: float, draws: Draws) -> Samples:
    """Add noise with a power spectrum that falls as 1 / frequency, ``decibels`` below the clip's power."""
    spectrum = np.fft.rfft(draws.standard_normal(len(samples)))
    spectrum[0] = 0.0
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    return _at_snr(samples, np.fft.irfft(spectrum, len(samples)), decibels)


def _at_snr(samples: Samples, noise: Samples, decibels: float) -> Samples:
    power = np.mean(noise**2)
    return samples + noise * np.sqrt(np.mean(samples**2) / power) * 10 ** (-decibels / 20) if power else samples


def reverberation(samples: Samples, rate: int, seconds: float, draws: Draws) -> Samples:
    """Convolve with a synthetic room: the direct sound, and a tail of the same energy that is noise decaying by 60 dB
    in ``seconds`` (RT60). The direct sound keeps its place, the clip its level.
    """
    from scipy import signal  # here: every command that embeds would wait for it

    length = max(2, int(seconds * rate))
    tail = draws.standard_normal(length) * 10 ** (-3 * np.arange(length) / (seconds * rate))
    tail[0] = 0.0
    tail /= np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    wet = signal.fftconvolve(samples, tail)[: len(samples)]
    power = np.mean(wet**2)
    return wet * np.sqrt(np.mean(samples**2) / power) if power else wet


def clipping(samples: Samples, rate: int, percent: float, draws: Draws) -> Samples:
    """Clip hard at the level that ``percent`` of the samples exceed."""
    level = np.quantile(np.abs(samples), 1 - percent / 100)
    return np.clip(samples, -level, level) if level > 0 else samples


def mp3(samples: Samples, rate: int, kilobits: float, draws: Draws) -> Samples:
    """Encode as MP3 at a constant bit rate (kbit/s) and decode again, without the codec's delay."""
    return through_mp3(samples, rate, int(kilobits))


def lowpass(samples: Samples, rate: int, hertz: float, draws: Draws) -> Samples:
    """Filter out what lies above ``hertz``; a corner at or above half the rate changes nothing."""
    return samples if hertz >= rate / 2 else _filtered(samples, rate, hertz, "lowpass")


def _filtered(samples: Samples, rate: int, corner: Any, kind: Literal["lowpass", "bandpass"]) -> Samples:
    from scipy import signal

    sections = signal.butter(ORDER, corner, kind, fs=rate, output="sos")
    return signal.sosfiltfilt(sections, samples, padlen=min(3 * (2 * len(sections) + 1), len(samples) - 1))


def gain(samples: Samples, rate: int, decibels: float, draws: Draws) -> Samples:
    """Change the level; nothing is clipped."""
    return samples * 10 ** (decibels / 20)


def resampling(samples: Samples, rate: int, hertz: float, draws: Draws) -> Samples:
    """Resample to ``hertz`` and back; a rate that is not below the model's changes nothing."""
    return samples if hertz >= rate else soxr.resample(soxr.resample(samples, rate, hertz), hertz, rate)


def telephone(samples: Samples, rate: int, _: float, draws: Draws) -> Samples:
    """Send it through a telephone: 300 to 3,400 Hz at 8 kHz, 8 bits by the μ-law (ITU-T G.711)."""
    line = soxr.resample(samples, rate, TELEPHONE_RATE) if rate != TELEPHONE_RATE else samples
    line = np.clip(_filtered(line, TELEPHONE_RATE, TELEPHONE_BAND, "bandpass"), -1, 1) if len(line) else line
    steps = np.round(127 * np.log1p(255 * np.abs(line)) / np.log(256)) / 127
    line = np.sign(line) * np.expm1(steps * np.log(256)) / 255
    return soxr.resample(line, TELEPHONE_RATE, rate) if rate != TELEPHONE_RATE else line


class Kind(NamedTuple):
    """A kind of corruption: its function, and how its severity is written."""

    change: Callable[[Samples, int, float, Draws], Samples]
    usual: float
    """The severity where none is given."""
    unit: str
    """As it stands in the name; one of ``units``."""
    units: Mapping[str, float]
    """What may follow the number (in lower case), and by what it multiplies it."""
    lowest: float
    highest: float
    facts: Mapping[str, str] = {}
    """What else decides the samples."""


_DB: Mapping[str, float] = {"db": 1.0, "": 1.0}
_HERTZ = {"k": 1000.0, "khz": 1000.0, "hz": 1.0, "": 1.0}
_KBPS = {"k": 1.0, "kbps": 1.0, "kbit/s": 1.0, "": 1.0}
_LIBRARY = {"encoder": f"libsndfile {soundfile.__libsndfile_version__}", "resampler": RESAMPLER}
KINDS: dict[str, Kind] = {
    "noise": Kind(white_noise, 10, "dB", _DB, -60, 120),
    "pink": Kind(pink_noise, 10, "dB", _DB, -60, 120),
    "reverb": Kind(reverberation, 0.5, "s", {"s": 1.0, "ms": 0.001, "": 1.0}, 0.01, 20),
    "clip": Kind(clipping, 10, "%", {"%": 1.0, "": 1.0}, 0.01, 99),
    "mp3": Kind(mp3, 32, "k", _KBPS, BITRATES[0], BITRATES[-1], _LIBRARY),
    "lowpass": Kind(lowpass, 4000, "k", _HERTZ, 20, 96000),
    "gain": Kind(gain, -20, "dB", _DB, -120, 60),
    "resample": Kind(resampling, 8000, "k", _HERTZ, 1000, 96000, {"resampler": RESAMPLER}),
    "telephone": Kind(telephone, 0, "", {}, 0, 0, {"resampler": RESAMPLER}),
}
EXAMPLES = "noise:10dB, pink:10dB, reverb:0.5s, clip:10%, mp3:32k, lowpass:4k, gain:-20dB, resample:8k, telephone"


@dataclass(frozen=True)
class Corruption:
    """One corruption at one severity; made by :func:`parse_corruption`."""

    kind: str
    severity: float

    @property
    def name(self) -> str:
        """The name with its severity, whatever way it was written: ``noise:10dB``."""
        of = KINDS[self.kind]
        return f"{self.kind}:{self.severity / of.units[of.unit.lower()]:g}{of.unit}" if of.units else self.kind

    def facts(self) -> dict[str, Any]:
        """Return what determines the corrupted samples, for the key of their embeddings."""
        return {"name": self.name, "version": VERSION, **KINDS[self.kind].facts}

    def apply(self, waveform: NDArray[np.float32], sample_rate: int, content: bytes) -> NDArray[np.float32]:
        """Return the corrupted clip: ``waveform [T]`` at ``sample_rate`` (Hz) in, ``[T]`` float32 out.

        ``content`` stands for the clip (a checksum) and seeds what is random.
        """
        if not len(waveform):
            return waveform.copy()
        changed = KINDS[self.kind].change(
            waveform.astype(np.float64), sample_rate, self.severity, draws_of(content, self.kind)
        )
        out = np.zeros(len(waveform), dtype=np.float32)
        out[: len(changed)] = changed[: len(out)]
        return out


def draws_of(content: bytes, kind: str) -> Draws:
    """Return the random numbers of a clip under one kind of corruption."""
    seed = hashlib.blake2b(content, digest_size=16, key=kind.encode()).digest()
    return Draws(np.frombuffer(seed, dtype="<u4").astype(np.uint32))


def parse_corruption(word: str) -> Corruption:
    """Return the corruption that ``word`` names (``noise:10dB``, ``reverb``); :class:`UserError` if it is none."""
    name, colon, text = word.strip().partition(":")
    kind = name.lower()
    if kind not in KINDS:
        raise UserError(
            f"--corrupt={word}: there is no corruption '{name}'.{did_you_mean(name, KINDS)} "
            f"Write, for example, {EXAMPLES}"
        )
    of = KINDS[kind]
    if not colon:
        severity = of.usual
    else:
        match = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+))\s*(\D*)", text.strip())
        if match is None or match[2].lower() not in of.units:
            units = " or ".join(unit for unit in of.units if unit)
            said = f"expected a number ({units})" if of.units else "it has no severity"
            raise UserError(f"--corrupt={word}: {said}; write, for example, {EXAMPLES}")
        severity = float(f"{float(match[1]) * of.units[match[2].lower()]:g}")  # what the name can tell apart
        if not of.lowest <= severity <= of.highest:
            ends = " to ".join(Corruption(kind, end).name.partition(":")[2] for end in (of.lowest, of.highest))
            raise UserError(f"--corrupt={word}: must lie within {ends}")
    if kind == "mp3":
        check_mp3(word, severity)
    return Corruption(kind, severity)


def parse_corruptions(words: Sequence[str]) -> tuple[Corruption, ...]:
    """Return the corruptions that ``--corrupt`` names, each once, in its order."""
    return tuple(dict.fromkeys(parse_corruption(word) for word in words))
