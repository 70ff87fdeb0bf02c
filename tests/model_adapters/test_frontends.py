"""Front ends: recorded values of the official code, batches, lengths, silence."""

from dataclasses import replace

import pytest
import torch
from adapter_goldens import agrees, clips
from golden import needs_shared
from hypothesis import given, settings
from hypothesis import strategies as st

from model_adapters.networks import frontends, frontends_kaldi
from model_adapters.networks.frontends import Spectrogram
from model_adapters.networks.frontends_kaldi import KaldiFbank
from model_adapters.networks.mel_filters import mel_filters

SPECS = [s for s in vars(frontends).values() if isinstance(s, frontends.SpectrogramSpec)]
KALDI = [s for s in vars(frontends_kaldi).values() if isinstance(s, frontends_kaldi.KaldiSpec)]


@needs_shared
@pytest.mark.parametrize(
    ("name", "spec", "rate", "seconds"),
    [
        ("torchlibrosa.HTSAT/PANN32k.2s", frontends.PANNS_32K, 32000, 2),
        ("torchlibrosa.PANN16k.2s", frontends.PANNS_16K, 16000, 2),
        ("htsat.logmel.10s", frontends.PANNS_32K, 32000, 10),
        ("msclap2022.logmel.5s", frontends.MSCLAP_2022, 44100, 5),
        ("msclap2023.logmel.7s", frontends.PANNS_32K, 44100, 7),
        ("laionclap.hf_logmel.10s", frontends.LAION_CLAP, 48000, 10),
        ("atst_clip.spec.2s", frontends.ATST, 16000, 2),
        ("atst_clip.spec.10s", frontends.ATST, 16000, 10),
        ("ced_base.mel.10s", frontends.CED, 16000, 10),
        ("passt.mel.2s", frontends.PASST, 32000, 2),
        ("passt.mel.10s", frontends.PASST, 32000, 10),
    ],
)
def test_recorded_spectrograms(name, spec, rate, seconds):
    x = Spectrogram(spec)(clips(rate, seconds))
    if not name.startswith(("atst", "ced", "passt")):
        x = x.transpose(1, 2)  # these were recorded as [B, frames, bands]
    agrees(name, x[:, None] if name.startswith(("atst", "htsat", "msclap", "laion")) else x, atol=1e-4)


@needs_shared
def test_recorded_vggish_patches():
    x = Spectrogram(frontends.VGGISH)(clips(16000, 2)).transpose(1, 2)
    agrees("vggish.logmel_examples.2s", x[:, :192].reshape(2, 2, 1, 96, 64), atol=1e-4)


@needs_shared
@pytest.mark.parametrize("seconds", [1, 2, 10])
def test_recorded_beats_features(seconds):
    agrees(f"beats.fbank.{seconds}s", KaldiFbank(frontends_kaldi.BEATS)(clips(16000, seconds)), atol=1e-4)


@needs_shared
def test_recorded_ast_features_before_normalisation():
    raw = replace(frontends_kaldi.AST, mean=0.0, std=1.0, remove_clip_mean=True)
    agrees("kaldi.ast_raw.2s", KaldiFbank(raw)(clips(16000, 2)), atol=3e-4)


@pytest.mark.parametrize("spec", [*SPECS, *KALDI])
def test_a_clip_in_a_batch_equals_the_clip_alone(spec, monkeypatch):
    module = (KaldiFbank if spec in KALDI else Spectrogram)(spec)
    x = torch.randn(3, 8000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [0.01], [0.0]])
    together = module(x)
    assert together.isfinite().all()
    alone = torch.cat([module(clip[None]) for clip in x])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    for name in ("frontends", "frontends_kaldi"):
        monkeypatch.setattr(f"model_adapters.networks.{name}._CPU_PIECE", 1)
    torch.testing.assert_close(module(x), together, atol=1e-4, rtol=0)


@settings(max_examples=20, deadline=None)
@given(samples=st.integers(1, 3000), spec=st.sampled_from([*SPECS, *KALDI]))
def test_any_length_gives_its_number_of_frames(samples, spec):
    module = (KaldiFbank if spec in KALDI else Spectrogram)(spec)
    found = module(torch.randn(1, samples))
    assert found.isfinite().all()
    assert found.shape[1 if spec in KALDI else 2] == module.frames(samples) >= 1


def test_a_checkpoints_own_filters_take_the_place_of_the_specifications():
    own = torch.ones(513, 64)
    same = Spectrogram(frontends.PANNS_32K, filters=own)(torch.randn(1, 32000))
    torch.testing.assert_close(same[:, 0], same[:, 63])


@pytest.mark.parametrize("scale", ["htk", "kaldi", "slaney"])
def test_filters_are_triangles_in_order(scale):
    bank = mel_filters(scale, 16000, 1024, 64, 60.0, 7800.0)
    assert bank.shape == (513, 64)
    assert (bank >= 0).all()
    assert (bank.sum(0) > 0).all()
    assert (bank.argmax(0).diff() >= 0).all()
    if scale != "slaney":
        assert bank.max() <= 1


def test_float32_under_autocast():
    module, x = Spectrogram(frontends.CED), torch.randn(1, 16000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = module(x)
    assert torch.equal(coarse, module(x))
