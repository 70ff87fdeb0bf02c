"""LAION-CLAP through the package laion-clap and through transformers: the same vectors from the same file.

Runs where laion-clap is installed. What it imports but does not need here (torchvision) is replaced by stand-ins if it
is not there, and what it would fetch from the hub (RoBERTa and tokenizers) by small untrained ones.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
import torch
from small_bert import VOCABULARY, save_tokenizer

from model_adapters.laion_clap import LaionClap

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("laion_clap") is None, reason="laion-clap is not installed (its own extra)"
)
TEXTS = ["a dog barks", "rain on the roof can be heard", "speech"]


class Anything(ModuleType):
    """A module that has whatever is asked of it."""

    __path__ = ()

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (torch.nn.Module,), {})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = save_tokenizer(tmp_path_factory.mktemp("roberta"), ["<s>", *VOCABULARY])  # 1 pads, as in RoBERTa
    return str(folder)


@pytest.fixture(scope="module")
def _package(tokenizer):
    """Let the package be imported and built without a hub."""
    import transformers as hf

    kinds = [hf.BertTokenizer, hf.RobertaTokenizer, hf.BartTokenizer]
    roberta, _ = hf.RobertaModel, hf.ClapModel  # imported before torchvision seems to be there
    absent = importlib.util.find_spec("torchvision") is None
    with pytest.MonkeyPatch.context() as patch:
        for name in ("", ".transforms", ".datasets", ".ops", ".ops.misc"):
            if absent:
                patch.setitem(sys.modules, f"torchvision{name}", Anything(f"torchvision{name}"))
        words = hf.AutoTokenizer.from_pretrained(tokenizer)
        for kind in kinds:
            patch.setattr(kind, "from_pretrained", staticmethod(lambda *_, **__: words))
        config = hf.RobertaConfig(
            vocab_size=len(words), max_position_embeddings=514, type_vocab_size=1, num_hidden_layers=1,
            layer_norm_eps=1e-5, pad_token_id=1,
        )  # fmt: skip
        patch.setattr(roberta, "from_pretrained", staticmethod(lambda *_, **__: roberta(config)))
        yield


@pytest.fixture(scope="module")
def both(_package, tokenizer, tmp_path_factory):
    """Return the model through the package and, from the file it then saves, through both."""
    package = LaionClap(weights="random:3", backend="laion")
    state = package.package.module.model.state_dict()
    generator = torch.Generator().manual_seed(5)
    for name, value in state.items():  # batch norms and bias tables that have seen nothing would hide mistakes
        if name.endswith(("relative_position_bias_table", "running_mean", "norm1.bias")):
            value.normal_(generator=generator)
    path = tmp_path_factory.mktemp("laion") / "630k-test.pt"
    torch.save({"epoch": 1, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    return LaionClap(weights=str(path), backend="laion"), LaionClap(weights=str(path), tokenizer=tokenizer)


@pytest.mark.parametrize("seconds", [0.7, 3, 10, 13])
def test_audio_is_the_same_through_both(both, seconds):
    clips = torch.randn(2, int(48000 * seconds), generator=torch.Generator().manual_seed(1)) * 0.2
    lengths = torch.tensor([clips.shape[1]] * 2)
    with torch.no_grad():
        theirs, ours = (model.embed(clips, lengths) for model in both)
    assert theirs.shape == ours.shape == (2, 512)
    assert (theirs - ours).abs().max() < 1e-5
    assert (ours[0] - ours[1]).abs().max() > 1e-3  # not one vector for everything


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1]])
def test_text_is_the_same_through_both(both, texts):
    with torch.no_grad():
        theirs, ours = (model.embed_text(texts) for model in both)
    assert theirs.shape == (len(texts), 512)
    assert (theirs - ours).abs().max() < 1e-5


def test_the_file_has_one_checksum(both):
    assert both[0].weights_sha256 == both[1].weights_sha256 != ""
