"""Through MP3 and back with libsndfile (LAME, mpg123), in memory, at a given bit rate, without the codec's delay."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from evar.errors import UserError

MPEG1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
MPEG2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
MPEG25 = (8, 16, 24, 32, 40, 48, 56, 64)
LAYER3 = {
    **dict.fromkeys((8000, 11025, 12000), MPEG25),
    **dict.fromkeys((16000, 22050, 24000), MPEG2),
    **dict.fromkeys((32000, 44100, 48000), MPEG1),
}
"""Bit rates (kbit/s) of layer III by sampling rate (Hz): ISO 11172-3, ISO 13818-3, and MPEG-2.5 as LAME writes it."""
BITRATES = tuple(sorted({*MPEG1, *MPEG2}))
DELAY = 576 + 529
"""Samples by which decoded audio lags (LAME's delay and the decoder's) where a frame is too small for the tag that
states it. With the tag mpg123 takes the delay away, and exactly as many samples come back as were written."""


def check_mp3(word: str, kilobits: float) -> None:
    """Raise :class:`UserError` if MP3 has no such bit rate, or this machine's libsndfile cannot write MP3."""
    if kilobits not in BITRATES:
        raise UserError(f"--corrupt={word}: the bit rates of MP3 are {', '.join(map(str, BITRATES))} kbit/s")
    if "MP3" not in soundfile.available_formats() or not hasattr(soundfile.SoundFile, "bitrate_mode"):
        raise UserError(
            f"--corrupt={word}: soundfile {soundfile.__version__} with libsndfile {soundfile.__libsndfile_version__} "
            "cannot write MP3 at a given bit rate: pip install -U 'soundfile>=0.13', or leave mp3 out"
        )


def coding_rate(sample_rate: int, kilobits: int) -> int:
    """Return the sampling rate (Hz) to encode at: the nearest to the clip's that MP3 has with this bit rate."""
    fitting = [rate for rate, bitrates in LAYER3.items() if kilobits in bitrates]
    return min(fitting, key=lambda rate: (abs(math.log(rate / sample_rate)), -rate))


def compression_level(rate: int, kilobits: int) -> float:
    """Return what libsndfile calls the level: 0 to below 1, from the highest to the lowest bit rate of the rate."""
    lowest, highest = LAYER3[rate][0], LAYER3[rate][-1]
    # libsndfile cuts off the fraction of the bit rate and refuses 1: half a kbit/s more stays clear of both.
    return max(0.0, 1 - (kilobits - lowest + 0.5) / (highest - lowest))


def encode(samples: NDArray[Any], rate: int, kilobits: int) -> bytes:
    """Return an MP3 file, mono, of samples at a rate that :data:`LAYER3` has with this bit rate."""
    file = io.BytesIO()
    level = compression_level(rate, kilobits)
    how = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": level}
    soundfile.write(file, samples.astype(np.float32), rate, **how)
    return file.getvalue()


def through_mp3(samples: NDArray[np.float64], sample_rate: int, kilobits: int) -> NDArray[np.float64]:
    """Return samples ``[T]`` after MP3, in their place and as many (or fewer by rounding of a resampling)."""
    rate = coding_rate(sample_rate, kilobits)
    given = samples if rate == sample_rate else soxr.resample(samples, sample_rate, rate)
    if not len(given):
        return samples
    found, _ = soundfile.read(io.BytesIO(encode(given, rate, kilobits)), dtype="float64")
    if len(found) != len(given):
        found = found[DELAY : DELAY + len(given)]
    return found if rate == sample_rate else soxr.resample(found, rate, sample_rate)
