"""A model that ``python -m evar.finetune`` made: its encoder's embeddings, and the classes it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from evar.errors import UserError
from evar.finetune_model import FineTuned, features, two_stage
from evar.finetuned_files import WEIGHTS, load_into, read_facts
from model_adapters.base import Adapter, ModelInfo, identity_of, licence_of, parse_random
from model_adapters.networks.checkpoints import sha256_of


class FineTunedAdapter(Adapter):
    """``weights``: the folder ``model`` that fine-tuning left beside its result (``…/seed43-split/model``)."""

    info: ClassVar[ModelInfo] = ModelInfo(
        title="a model fine-tuned here",
        kind="audio",
        paper="as the model it began with",
        code_licence="MIT",
    )

    def __init__(self, *, weights: str) -> None:
        super().__init__()
        from model_adapters.registry import load_model  # here, because the registry imports adapters

        folder = Path(weights).expanduser()
        if not (folder / WEIGHTS).is_file():
            raise UserError(f"--weights={weights}: not the folder of a fine-tuned model (there is no {WEIGHTS} in it)")
        self.facts: dict[str, Any] = read_facts(folder)
        base = load_model(self.facts["model"], self.facts["weights"], self.facts["options"])
        self.network = FineTuned(base.adapter, len(self.facts["labels"]))
        load_into(self.network, folder)
        self.network.head.requires_grad_(False)  # fine-tuned again it gets another head
        self.weights_sha256 = sha256_of(folder / WEIGHTS)
        self.hear_as(base.adapter)
        self.trained_on = (*(getattr(base.adapter, "trained_on", None) or base.info.trained_on), self.facts["task"])
        begun_untrained = parse_random((self.facts.get("began_as") or {}).get("weights") or "") is not None
        self.weights_licence = "" if begun_untrained else licence_of(base.adapter)
        self.begun_with = {"model": base.name, "options": dict(base.options), "source": base.source_sha256}
        self.class_names = tuple(self.facts["labels"])
        self.unit_seconds = float(self.facts["unit_seconds"])
        if two_stage(base.adapter):  # then it can be fine-tuned again in the same way
            self.log_mel, self.encode = base.adapter.log_mel, base.adapter.encode
        self.eval()

    @property
    def encoder(self) -> Any:
        """What the encoder calls its encoder (None if nothing): fine-tuning asks it how it standardises."""
        return getattr(self.network.adapter, "encoder", None)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the encoder's embeddings ``[B, D]``."""
        return self.network.adapter.embed(waveforms, lengths)

    def tag_probabilities(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, C]``: softmax over the classes, or for a multi-label task their sigmoids."""
        with torch.no_grad():
            logits = self.network(features(self.network.adapter, waveforms, lengths), lengths)
        return logits.float().sigmoid() if self.facts["multi_label"] else logits.float().softmax(dim=1)

    def made_of(self) -> dict[str, Any]:
        """Return the encoder it is rebuilt as, with its options: ``weights_sha256`` is of the tensors alone."""
        return {"encoder": self.begun_with | identity_of(self.network.adapter)}

    def state(self) -> dict[str, Any]:
        """Return what it was trained on, and the encoder's own state."""
        return {"fine_tuned_on": self.facts["task"], "encoder": self.network.adapter.state()}


ADAPTER = FineTunedAdapter
