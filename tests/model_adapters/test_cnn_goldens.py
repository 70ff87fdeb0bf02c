"""PANNs, MS-CLAP 2022, AudioCLIP, Wav2CLIP, VGGish: published names and shapes, recorded values."""

from __future__ import annotations

import itertools
import re

import torch
from adapter_goldens import agrees, clips, filled
from golden import golden, needs_shared
from torch import nn

from model_adapters.msclap_2022 import MsClap2022
from model_adapters.networks.cnn14 import Cnn14, Cnn14Size
from model_adapters.networks.cnn_frontends import StandardisedSpectrum, VggishPatches
from model_adapters.networks.esresnext import EsResNeXt
from model_adapters.networks.frontends import MSCLAP_2022, PANNS_16K, PANNS_32K
from model_adapters.networks.resnet import ResNet
from model_adapters.networks.vggish import Vggish
from model_adapters.networks.windowed import MsProjection

CONSTANTS = ("spectrogram_extractor.", "logmel_extractor.", "fbsp.", "window")
"""The recipe leaves front ends as they are."""


def with_recipe(network: nn.Module, prefix: str = "") -> nn.Module:
    """Give the network the recipe's weights; ``prefix`` precedes the official names."""
    state = {k: v for k, v in network.state_dict().items() if not k.startswith(CONSTANTS)}
    network.load_state_dict(filled(state, prefix), strict=False)
    return network.eval()


def published_shapes(name: str) -> dict[str, list[int]]:
    """Return the published tensors' shapes; ``{0-2,5}`` in a name stands for 0, 1, 2 and 5."""
    shapes = {}
    for line in golden("adapters", "keys", f"{name}.txt").read_text().splitlines():
        if found := re.match(r"(\S+) \[([\d, ]*)\]", line):
            parts = re.split(r"\{([\d,-]+)\}", found[1])
            choices = [[part] if n % 2 == 0 else numbers(part) for n, part in enumerate(parts)]
            for chosen in itertools.product(*choices):
                shapes["".join(chosen)] = [int(n) for n in found[2].split(",") if n.strip()]
    return shapes


def numbers(text: str) -> list[str]:
    ends = [part.partition("-") for part in text.split(",")]
    return [str(n) for first, _, last in ends for n in range(int(first), int(last or first) + 1)]


def shapes_of(network: nn.Module, prefix: str = "") -> dict[str, list[int]]:
    return {prefix + name: list(tensor.shape) for name, tensor in network.state_dict().items()}


def lengths_of(waveforms: torch.Tensor) -> torch.Tensor:
    return torch.full((len(waveforms),), waveforms.shape[1])


@needs_shared
@torch.no_grad()
def test_cnn14_gives_the_recorded_values():
    network = with_recipe(Cnn14(Cnn14Size(PANNS_16K)))
    assert shapes_of(network) == published_shapes("cnn14_16k")
    wave = clips(16000, 2.0)
    agrees("torchlibrosa.PANN16k.2s", network(wave).transpose(1, 2))
    for seconds in (2, 10):
        log_mel = network.log_mel(clips(16000, seconds))
        agrees(f"cnn14_16k.embedding.{seconds}s", network.encode(log_mel), atol=1e-4)
    front = Cnn14(Cnn14Size(PANNS_32K, 1))  # the larger rate: the same network behind another front end
    network.spec, names = front.spec, ("spectrogram_extractor", "logmel_extractor")
    for name in names:
        network.add_module(name, front.get_submodule(name))
    assert shapes_of(network) == published_shapes("cnn14_32k")
    wave = clips(32000, 2.0)
    agrees("torchlibrosa.HTSAT/PANN32k.2s", network(wave).transpose(1, 2))
    agrees("cnn14_32k.embedding.2s", network.encode(network.log_mel(wave)), atol=1e-4)


@needs_shared
@torch.no_grad()
def test_msclap_2022_gives_the_recorded_values():
    adapter = MsClap2022(weights="random", width=1)
    adapter.network, adapter.audio_proj = Cnn14(Cnn14Size(MSCLAP_2022)), MsProjection(2048, 1024)
    names = shapes_of(adapter.network, "base.") | shapes_of(adapter.audio_proj, "projection.")
    assert names == published_shapes("msclap_2022_audio")
    with_recipe(adapter.network, "audio_encoder.base.")
    with_recipe(adapter.audio_proj, "audio_encoder.projection.")
    adapter.eval()
    wave = clips(44100, 5.0)
    agrees("msclap2022.logmel.5s", adapter.network(wave).transpose(1, 2)[:, None])
    agrees("msclap2022.proj.5s", adapter.embed_audio(wave, lengths_of(wave)))


@needs_shared
@torch.no_grad()
def test_audioclip_gives_the_recorded_values():
    network = EsResNeXt(full_scale=32768.0)
    assert shapes_of(network) == published_shapes("audioclip_audio")
    with_recipe(network)
    wave = clips(44100, 2.0)
    agrees("audioclip.spec_db.2s", network.image(wave)[:, None])
    features = network.encode(wave)
    agrees("audioclip.red2048.2s", features)
    agrees("audioclip.emb1024.2s", network.fc(features))


@needs_shared
@torch.no_grad()
def test_wav2clip_gives_the_recorded_values():
    network = ResNet(1, "basic", (2, 2, 2, 2))
    names = shapes_of(network, "encoder.") | {"encoder.spectrogram.window": [512]}  # a constant that is not kept
    assert names == published_shapes("wav2clip_encoder")
    with_recipe(network, "encoder.")
    wave = clips(16000, 2.0)
    agrees("wav2clip.enc512.2s.batch2", network(StandardisedSpectrum("batch")(wave)))
    agrees("wav2clip.enc512.2s.single0", network(StandardisedSpectrum("clip")(wave)[:1]))
    agrees("wav2clip.enc512.10s.single0", network(StandardisedSpectrum("clip")(clips(16000, 10.0))[:1]))


@needs_shared
@torch.no_grad()
def test_vggish_gives_the_recorded_values():
    network = Vggish()
    assert shapes_of(network) == published_shapes("vggish")
    with_recipe(network)
    patches = VggishPatches()(clips(16000, 2.0))
    agrees("vggish.logmel_examples.2s", patches)
    agrees("vggish.emb128.2s", network(patches.flatten(0, 1)).unflatten(0, (2, 2)), atol=1e-4)
    patches = VggishPatches()(clips(16000, 10.0))
    agrees("vggish.logmel_examples.10s", patches)
    agrees("vggish.emb128.10s", network(patches.flatten(0, 1)).unflatten(0, (2, 10)), atol=1e-4)
