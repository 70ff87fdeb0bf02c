"""VGGish (Hershey et al., ICASSP 2017): Google's VGG over patches of 0.96 s, in the PyTorch port's form."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar

from torch import Tensor

from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo, Skeleton, Weights, parse_random
from model_adapters.networks.checkpoints import find_checkpoint, load_exactly, read_checkpoint, unfilled
from model_adapters.networks.cnn_frontends import VggishPatches
from model_adapters.networks.conv_common import in_pieces, untrained
from model_adapters.networks.options import at_least
from model_adapters.networks.vggish import Vggish

_PATCH_SECONDS = 0.96


class VggishAdapter(Adapter):
    """VGGish: log-mel patches of 0.96 s, one embedding per patch, their maximum plus mean.

    No PCA and no quantisation follow. What is left of a clip after its last whole patch is not heard.

    Parameters
    ----------
    weights: path of the PyTorch port's file (``features.*``, ``embeddings.*``), or ``random[:SEED]``.
    features: ``128``: the network's output; ``4096``: that of its first dense layer (the papers' VGGish-4K).
    width: channels of the first convolution of an untrained network; 64 is the published one.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="VGGish",
        kind="audio",
        paper="Hershey et al., CNN Architectures for Large-Scale Audio Classification, ICASSP 2017",
        code_licence="MIT (this implementation)",
        weights=Weights(
            source="https://github.com/harritaylor/torchvggish/releases",
            licence="Apache-2.0",
            url="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
            file_name="vggish-10086976.pth",
        ),
        probe_lr=3e-4,
        paper_rows=("VGGish", "VGGish-4K"),
    )
    probe_lrs = MappingProxyType({"esc50": 3e-3, "vc1": 5e-4})
    for_untrained = ("width",)
    sample_rate = 16000
    long_audio = "whole patches of 0.96 s, up to the end"
    short_audio = "zeros at the end, up to the task's window (at least one patch, 0.96 s)"

    def __init__(self, *, weights: str, features: int = 128, width: int = 64) -> None:
        super().__init__()
        seed = parse_random(weights)
        if seed is None:
            state, self.weights_sha256 = read_checkpoint(weights)
            self.network = unfilled(lambda: Vggish(len(state.get("features.0.weight", ())) or 64))
            # The port keeps its PCA's tables in the same file.
            load_exactly(self.network, state, ignore=("pproc.",), what=f"in '{find_checkpoint(weights).name}'")
        else:
            at_least(1, width=width)
            self.network = untrained(lambda: Vggish(width), seed)
            self.weights_sha256 = f"random:{seed}"
        layers = {128: 3, 4096: 1}
        if features not in layers:
            raise UserError(f"--features must be 128 or 4096, not {features}")
        self.features, self._dense = features, layers[features]
        self.embedding_dim = 128 if features == 128 else self.network.hidden
        self.front_end = VggishPatches()
        self.eval()

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, T', D], 0.96)``: an embedding per patch."""
        patches = self.front_end(waveforms)
        numbers = 64 * patches[0, 0].numel()
        found = in_pieces(lambda piece: self.network(piece, self._dense), patches.flatten(0, 1), numbers)
        return found.unflatten(0, patches.shape[:2]), _PATCH_SECONDS

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, D]``: over patches, the maximum plus the mean."""
        frames, _ = self.embed_frames(waveforms, lengths)
        return frames.amax(1) + frames.mean(1)

    def skeleton(self) -> Skeleton | None:
        """Return an untrained network of this size."""
        width = self.network.features[0].out_channels
        return Skeleton("vggish", {"width": str(width), "features": str(self.features)})


ADAPTER = VggishAdapter
