"""``mteb:NAME``: a model behind mteb's protocol as an adapter, with models put into mteb's list by the test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from helpers import RATE, noise
from torch import nn

from evar.cli import run
from evar.command import options_of_models
from evar.errors import UserError
from evar.lineareval import lineareval
from evar.models import describe
from evar.zeroshot import zeroshot
from model_adapters.base import AudioLanguage
from model_adapters.mteb import MtebModel
from model_adapters.registry import load_model

mteb = pytest.importorskip("mteb", reason="needs the extra mteb")
from mteb.models import ModelMeta  # noqa: E402
from mteb.models.model_implementations import MODEL_REGISTRY  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
BANDS = 16


class Listens:
    """Behaves as mteb's own models do: asks the loader's data set for its columns, and takes batches from it."""

    sampling_rate = RATE

    def __init__(self, model_name: str, revision: str | None = None, device: str | None = None, **kwargs: Any) -> None:
        self.name, self.revision, self.device = model_name, revision, device
        self.model = nn.Sequential(nn.Linear(BANDS, BANDS), nn.Dropout(0.5))
        nn.init.eye_(self.model[0].weight)
        self.batches: list[list[int]] = []

    def encode(
        self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, prompt_type: Any = None, **kwargs: Any
    ) -> np.ndarray:
        assert task_metadata.modalities == ["audio"] and kwargs["show_progress_bar"] is False
        column = "text" if "text" in inputs.dataset.features else "audio"
        found = []
        for batch in inputs:
            function = self.read if column == "text" else self.hear
            found.append(self.model(function(batch[column])).detach().numpy())
        return np.concatenate(found)

    def hear(self, items: Sequence[dict[str, Any]]) -> torch.Tensor:
        self.rates = {item["sampling_rate"] for item in items}
        self.batches.append([len(item["array"]) for item in items])
        clips = np.stack([np.pad(item["array"], (0, 512)) for item in items])  # needs one length, as many do
        spectrum = np.abs(np.fft.rfft(clips, axis=1)) + 1e-3
        bands = [np.log(piece.mean(axis=1)) for piece in np.array_split(spectrum, BANDS, axis=1)]
        return torch.from_numpy(np.stack(bands, axis=1)).float()

    def read(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([[float(sum(map(ord, text)) % (n + 2)) for n in range(BANDS)] for text in texts])


class Frames(Listens):
    """Gives a vector per time step, which no protocol here takes."""

    def encode(self, inputs: Any, **kwargs: Any) -> np.ndarray:
        return super().encode(inputs, **kwargs)[:, None]


class Lacks(Listens):
    """Finds out that a package is missing when it is to hear something."""

    def encode(self, inputs: Any, **kwargs: Any) -> np.ndarray:
        raise ImportError("No module named 'rare'")


class CannotLoad(Listens):
    """Has no weights at hand."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise OSError("we cannot reach the hub\nand more")


def entry(name: str, loader: Any, modalities: Sequence[str] = ("audio",), **facts: Any) -> ModelMeta:
    required = dict.fromkeys(n for n, field in ModelMeta.model_fields.items() if field.is_required())
    given = {"loader": loader, "name": name, "revision": "r1", "framework": ["PyTorch"], "modalities": list(modalities)}
    return ModelMeta(**{**required, **given, **facts})


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    """Put models into mteb's list, which need no torchaudio as mteb's own do."""
    monkeypatch.setattr(ModelMeta, "_check_requirements", lambda self: None)
    trained = {"training_datasets": {"ESC50", "STS12"}}
    for meta in (
        entry("tiny/listens", Listens, **trained),
        entry("tiny/listens-and-reads", Listens, ("audio", "text")),
        entry("tiny/reads", Listens, ("text",)),
        entry("tiny/frames", Frames),
        entry("tiny/service", Listens, framework=["API"]),
        entry("tiny/lacks", Lacks),
        entry("tiny/cannot-load", CannotLoad),
    ):
        monkeypatch.setitem(MODEL_REGISTRY, meta.name, meta)


def test_a_model_of_mteb_is_an_adapter():
    model = load_model("mteb:tiny/listens")
    adapter: Any = model.adapter
    assert (adapter.sample_rate, adapter.embedding_dim, adapter.joint_dim) == (RATE, BANDS, 0)
    assert not isinstance(adapter, AudioLanguage) and not adapter.needs_prepare
    assert model.weights_sha256 == "mteb:tiny/listens@r1"
    assert adapter.state() == {"mteb": mteb.__version__, "model": "tiny/listens", "revision": "r1", "rate": RATE}
    assert adapter.trained_on == ("esc50",)
    assert len(list(adapter.parameters())) == 2 and not adapter.model.model.training  # no dropout


def test_each_clip_is_heard_in_its_own_length_and_apart_from_others():
    adapter: Any = load_model("mteb:tiny/listens").adapter
    clips = torch.from_numpy(np.stack([noise(seed, 0.5) for seed in range(4)]))
    lengths = torch.tensor([4000, 1000, 4000, 1000])
    adapter.model.batches.clear()
    found = adapter.embed(clips, lengths)
    assert adapter.model.rates == {RATE}
    assert adapter.model.batches == [[1000, 1000], [4000, 4000]]
    assert found.shape == (4, BANDS) and found.dtype == torch.float32
    for n in range(4):
        torch.testing.assert_close(adapter.embed(clips[n : n + 1, : lengths[n]], lengths[n : n + 1])[0], found[n])


def test_revision_and_rate_are_the_users_to_choose():
    adapter: Any = load_model("mteb:tiny/listens", options={"revision": "r2", "sample_rate": "16000"}).adapter
    assert adapter.weights_sha256 == "mteb:tiny/listens@r2" and adapter.model.revision == "r2"
    assert adapter.sample_rate == 16000 and adapter.model.rates == {16000}


def command(function, tmp_path, pocket_data, monkeypatch, model, *words) -> dict[str, Any]:
    """Run a protocol's command on a pocket task and return its result."""
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path))
    monkeypatch.setenv("EVAR_DATA", str(pocket_data))
    given = [model, "pocket_events", f"--results={tmp_path / 'runs'}", "--device=cpu", "--workers=1", *words]
    assert run(function, given, options_of_models) == 0
    (path,) = (tmp_path / "runs").glob("*.json")
    return json.loads(path.read_text())


def test_linear_evaluation_end_to_end(tmp_path, pocket_data, monkeypatch):
    words = ("--seeds=1", "--probe=logistic")
    monkeypatch.setattr(Listens, "sampling_rate", 16000)
    result = command(lineareval, tmp_path, pocket_data, monkeypatch, "mteb:tiny/listens", *words)
    assert result["model"] == "mteb:tiny/listens" and result["weights"]["sha256"] == "mteb:tiny/listens@r1"
    assert result["mean"] > 1.5 / len(result["per_class"])  # well above chance


def test_one_that_reads_has_a_joint_space_and_classifies_zero_shot(tmp_path, pocket_data, monkeypatch):
    monkeypatch.setattr(Listens, "sampling_rate", 16000)
    adapter: Any = load_model("mteb:tiny/listens-and-reads").adapter
    assert isinstance(adapter, AudioLanguage) and adapter.joint_dim == BANDS
    assert adapter.embed_text(["a dog", "a cat"]).shape == (2, BANDS)
    assert (
        command(zeroshot, tmp_path, pocket_data, monkeypatch, "mteb:tiny/listens-and-reads")["protocol"] == "zeroshot"
    )


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("mteb", "needs a model's name: mteb:ORG/NAME. python -m evar.models mteb lists the [0-9]+ audio models"),
        (
            "mteb:tiny/listen",
            "knows no audio model 'tiny/listen'. Did you mean 'tiny/listens'. python -m evar.models mteb",
        ),
        ("mteb:nothing-like-it", "knows no audio model 'nothing-like-it'. python -m evar.models mteb lists"),
        ("mteb:tiny/reads", "does not turn audio into one vector .its modalities: text"),
        ("mteb:tiny/service", "is a service to which your audio would be sent"),
        ("mteb:tiny/frames", r"gives \(1, 1, 16\) for 1 clips, not a vector each"),
        ("mteb:tiny/lacks", "lacks a package: No module named 'rare' .pip install 'evar-harness.mteb.'"),
        ("mteb:tiny/cannot-load", "mteb cannot load tiny/cannot-load: we cannot reach the hub$"),
    ],
)
def test_mistakes_are_one_line(spec, says):
    with pytest.raises(UserError, match=says) as caught:
        load_model(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(find_spec("torchaudio") is not None, reason="nothing is missing: torchaudio is there")
def test_what_mtebs_own_models_need_is_said(monkeypatch):
    monkeypatch.undo()
    with pytest.raises(
        UserError, match=r"cannot load openai/whisper-tiny: .*torchaudio.*pip install 'evar-harness\[mteb\]'"
    ):
        load_model("mteb:openai/whisper-tiny")


def test_the_models_that_mteb_lists_itself_are_known():
    names = MtebModel.known_names()
    assert {"laion/clap-htsat-fused", "facebook/wav2vec2-base", "openai/whisper-tiny"} <= set(names)
    assert "mteb/baseline-random-colbert" not in names  # several vectors per clip
    assert len(names) > 50 and names == sorted(names)
    assert f"  knows      {', '.join(names)}" in describe("mteb")
