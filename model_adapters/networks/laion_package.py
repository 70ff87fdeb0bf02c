"""LAION-CLAP through its authors' package, for those who insist: the same vectors as through transformers."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from torch import Tensor, nn

from evar.errors import UserError
from model_adapters.networks.checkpoints import load_exactly
from model_adapters.networks.htsat import mel_filters_of
from model_adapters.networks.laion_files import read_laion_state
from model_adapters.networks.options import seeded
from model_adapters.networks.text import require_real

_INSTALL = "pip install 'evar-harness[laion]' -c constraints-laion.txt, or leave out --backend=laion"


class LaionPackage(nn.Module):
    """``CLAP_Module`` of laion-clap, without fusion, with the weights of a LAION ``.pt`` or untrained.

    Its own loader would run what is pickled in the file; the tensors are read safely here instead.
    """

    def __init__(self, weights: str, seed: int | None) -> None:
        super().__init__()
        package = _package()
        try:
            module = seeded(lambda: package(enable_fusion=False, device="cpu"), seed or 0)
        except Exception as error:  # it fetches RoBERTa from the hub, which fails in many ways
            raise UserError(f"laion-clap cannot build its model ({type(error).__name__}): it needs the hub") from None
        self.weights_sha256 = f"random:{seed}"
        if seed is None:
            state, self.weights_sha256 = read_laion_state(weights)
            constants = {k: v for k, v in module.model.state_dict().items() if k.endswith("position_ids")}
            filters = mel_filters_of(state)
            if filters is None:
                raise UserError(f"'{weights}' is no file of laion-clap, which backend=laion needs")
            load_exactly(module.model, {**constants, **state}, what=f"in '{weights}'")
        self.module = module

    def facts(self) -> dict[str, str]:
        """Return the package's release, which brings tokenizer and text side."""
        try:
            return {"package": f"laion-clap {metadata.version('laion-clap')}"}
        except metadata.PackageNotFoundError:  # lies in the way without having been installed
            return {"package": "laion-clap"}

    def embed_audio(self, clips: Tensor) -> Tensor:
        """Return ``[B, 512]``, of length one, of clips ``[B, T]`` of at most 10 s at 48 kHz."""
        return self.module.get_audio_embedding_from_data(x=clips, use_tensor=True)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Return ``[C, 512]``, of length one; raise :class:`UserError` if the package's tokenizer is none."""
        require_real(self.module.tokenize, "laion-clap")
        # Its own call fails on a single sentence in some versions, so that there are always two.
        given = [*texts, "sound"] if len(texts) == 1 else list(texts)
        return self.module.get_text_embedding(given, use_tensor=True)[: len(texts)]


def _package() -> Any:
    try:
        return importlib.import_module("laion_clap").CLAP_Module
    except ImportError as error:
        raise UserError(f"backend=laion needs laion-clap, torchvision and torchaudio ({error}): {_INSTALL}") from None
    except Exception as error:  # importing it fetches three tokenizers from the hub
        raise UserError(f"laion-clap cannot be imported ({type(error).__name__}: {error}): {_INSTALL}") from None
