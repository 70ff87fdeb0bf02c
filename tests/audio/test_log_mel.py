"""The log-mel front end against librosa, the golden vectors, and its own promises."""

import librosa
import numpy as np
import pytest
import torch
from golden import arrays, needs_shared
from hypothesis import given, settings
from hypothesis import strategies as st

from evar.audio.log_mel import BYOL_A_16K, M2D_16K, M2D_32K, LogMel, mel_filterbank, slaney_hz_to_mel, slaney_mel_to_hz

SPECS = [M2D_16K, M2D_32K, BYOL_A_16K]


@pytest.mark.parametrize("spec", SPECS)
def test_filterbank_is_librosas(spec):
    theirs = librosa.filters.mel(
        sr=spec.sample_rate, n_fft=spec.n_fft, n_mels=spec.n_mels, fmin=spec.fmin, fmax=spec.fmax
    )
    np.testing.assert_allclose(mel_filterbank(spec), theirs, atol=4e-9)


def test_slaney_scale_turns_from_linear_to_logarithmic_at_1_khz():
    assert slaney_hz_to_mel(1000.0) == pytest.approx(15.0)
    assert slaney_hz_to_mel(6400.0) == pytest.approx(15.0 + 27.0)
    hz = np.array([50.0, 999.0, 1001.0, 7800.0])
    np.testing.assert_allclose(slaney_mel_to_hz(np.array([slaney_hz_to_mel(f) for f in hz])), hz)


@needs_shared
def test_filterbanks_match_golden():
    stored = arrays("mel_frontend.npz")
    np.testing.assert_allclose(mel_filterbank(M2D_16K), stored["mel_fb_16k"], atol=4e-9)
    np.testing.assert_allclose(mel_filterbank(M2D_32K), stored["mel_fb_32k"], atol=4e-9)
    np.testing.assert_allclose(mel_filterbank(BYOL_A_16K), arrays("byola_d512.npz")["mel_fb_64"], atol=4e-9)


@needs_shared
def test_log_mel_matches_golden():
    stored = arrays("mel_frontend.npz")
    ours = LogMel(M2D_32K)(torch.from_numpy(stored["wave_32k_1s"])[None])[0]
    np.testing.assert_allclose(ours, stored["lms_32k_1s"], atol=5e-4)
    waves, tiny = arrays("waveforms_16k.npz"), arrays("m2d_tiny_80x608_stack.npz")
    for name, wave in waves.items():
        ours = LogMel(M2D_16K)(torch.from_numpy(wave)[None])[0]
        np.testing.assert_allclose(ours, tiny[f"{name}.lms"], atol=5e-4)
    byol = LogMel(BYOL_A_16K)(torch.from_numpy(waves["w1s"])[None])[0]
    np.testing.assert_allclose(byol, arrays("byola_d512.npz")["w1s.lms"], atol=5e-4)


@needs_shared
def test_number_of_frames_matches_golden():
    for samples, frames in arrays("mel_frontend.npz")["frames_for_samples"]:
        assert LogMel(M2D_16K)(torch.zeros(1, int(samples))).shape == (1, 80, frames)


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(0, 3000), batch=st.integers(1, 3))
def test_every_length_gives_one_frame_per_hop_and_finite_values(samples, batch):
    for spec in SPECS:
        log_mel = LogMel(spec)(torch.randn(batch, samples))
        assert log_mel.shape == (batch, spec.n_mels, 1 + samples // spec.hop)
        assert torch.isfinite(log_mel).all()


def test_silence_is_the_logarithm_of_epsilon():
    assert torch.allclose(LogMel(M2D_16K)(torch.zeros(1, 16000)), torch.tensor(-15.942385))


def test_a_clip_is_the_same_alone_and_among_others_even_when_the_batch_is_cut_into_pieces(monkeypatch):
    waves = torch.randn(7, 8000)
    together = LogMel(BYOL_A_16K)(waves)
    monkeypatch.setattr("evar.audio.log_mel._CPU_PIECE", 150_000)
    in_pieces = LogMel(BYOL_A_16K)(waves)
    alone = torch.cat([LogMel(BYOL_A_16K)(wave[None]) for wave in waves])
    assert torch.allclose(together, in_pieces, atol=1e-5)
    assert torch.allclose(together, alone, atol=1e-5)


def test_float32_under_autocast():
    wave = torch.randn(1, 4000)
    plain = LogMel(M2D_16K)(wave)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = LogMel(M2D_16K)(wave)
    assert under.dtype == torch.float32
    assert torch.equal(plain, under)


def test_it_leaves_no_trace_in_a_state_dict():
    assert LogMel(M2D_16K).state_dict() == {}


def test_gradients_reach_the_waveform():
    wave = torch.randn(1, 2000, requires_grad=True)
    LogMel(M2D_16K)(wave).sum().backward()
    assert wave.grad is not None and torch.isfinite(wave.grad).all() and wave.grad.abs().sum() > 0
