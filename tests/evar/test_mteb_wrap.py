"""Our adapters as mteb's encoders: real evaluations by mteb itself, offline, on small tasks made here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile
import torch
from golden import needs_shared, shared
from helpers import RATE, CountingAdapter, counting_model, noise, sine
from torch import Tensor

from evar.audio.decode import decode
from evar.errors import UserError
from evar.mteb_wrap import as_mteb_encoder, samples_of
from model_adapters.base import ModelInfo
from model_adapters.registry import Model, load_model

mteb = pytest.importorskip("mteb", reason="needs the extra mteb")
datasets = pytest.importorskip("datasets", reason="needs the extra mteb")
from mteb.abstasks.classification import AbsTaskClassification  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification  # noqa: E402
from mteb.models import EncoderProtocol  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
WORDS = {"low": 300.0, "high": 2000.0}


def about(name: str, kind: str, modalities: list[str]) -> TaskMetadata:
    facts: dict[str, Any] = {"path": "none/none", "revision": "none"}
    return TaskMetadata(
        name=name, description="Made here", type=kind, modalities=modalities, category="a2c", dataset=facts,
        eval_splits=["test"], eval_langs=["zxx-Zxxx"], main_score="accuracy", domains=[], license="cc0-1.0",
        reference="https://example.org", date=("2026-01-01", "2026-01-01"), task_subtypes=[], dialect=[],
        annotations_creators="derived", sample_creation="created", bibtex_citation="",
    )  # fmt: skip


def split(rows: Sequence[tuple[np.ndarray, int, int]]) -> Any:
    """Return a data set of ``(samples, Hz, label)`` as mteb sees decoded audio."""
    audio = [{"array": samples, "sampling_rate": rate} for samples, rate, _ in rows]
    return datasets.Dataset.from_dict({"audio": audio, "label": [label for *_, label in rows]})


class TinyClassification(AbsTaskClassification):
    """Few clips, given by the test."""

    metadata = about("TinyAudioClassification", "AudioClassification", ["audio"])
    input_column_name = "audio"
    n_experiments = 2

    def __init__(self, train: Any, test: Any) -> None:
        super().__init__()
        self.dataset = datasets.DatasetDict({"train": train, "test": test})
        self.data_loaded = True


class TinyZeroShot(AbsTaskZeroShotClassification):
    """Clips against the two words."""

    metadata = about("TinyAudioZeroshot", "AudioZeroshotClassification", ["audio", "text"])
    input_column_name = "audio"

    def __init__(self, test: Any, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = list(labels)
        self.dataset = datasets.DatasetDict({"test": test})
        self.data_loaded = True

    def get_candidate_labels(self) -> list[str]:
        return [f"the sound of {label}" for label in self.labels]


class Hears(CountingAdapter):
    """Tells low from high tones by the wave's crossings of zero, and reads these words."""

    info: ClassVar[ModelInfo] = ModelInfo("Hears", "audio-language", "", "MIT")
    joint_dim = 2

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        assert bool((lengths == waveforms.shape[1]).all())
        hertz = (waveforms.sign().diff() != 0).sum(1) * RATE / 2 / lengths
        return torch.nn.functional.one_hot((hertz > 800).long(), 2).float()

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[2.0 * (word in text) for word in WORDS] for text in texts])


def evaluate(model: Any, task: Any) -> dict[str, Any]:
    """Return the scores of mteb's own evaluation."""
    (result,) = mteb.evaluate(model, [task], cache=None, co2_tracker=False, show_progress_bar=False).task_results
    return result.scores["test"][0]


def tones(count: int, seed: int = 0) -> Any:
    """Return tones of two classes at several rates and lengths."""
    rng = np.random.default_rng(seed)
    rates = (8000, 16000, 11025)
    rows = [(n, rates[n % 3], list(WORDS.values())[n % 2] * rng.uniform(0.8, 1.2)) for n in range(count)]
    return split([(sine(hertz, 0.2 + 0.1 * (n % 4), rate), rate, n % 2) for n, rate, hertz in rows])


@pytest.mark.parametrize("spec", ["log_mel_stats", "m2d"])
def test_mteb_evaluates_our_adapters_on_generated_audio(spec):
    options = {"depth": "1", "embed_dim": "64", "norm_stats": "-7.0,4.0"} if spec == "m2d" else {}
    model = load_model(spec, "random:3" if spec == "m2d" else None, options)
    encoder = as_mteb_encoder(model)
    assert isinstance(encoder, EncoderProtocol)
    assert encoder.mteb_model_meta.name == f"evar-harness/{spec}"
    assert encoder.mteb_model_meta.embed_dim == model.adapter.embedding_dim
    scores = evaluate(encoder, TinyClassification(tones(24), tones(12, seed=1)))
    assert scores["accuracy"] == scores["main_score"] >= (0.9 if spec == "log_mel_stats" else 0.6)


def test_mteb_classifies_zero_shot_in_the_joint_space():
    scores = evaluate(as_mteb_encoder(Hears()), TinyZeroShot(tones(12), WORDS))
    assert scores["accuracy"] == 1.0
    backwards = TinyZeroShot(tones(12), list(WORDS)[::-1])
    assert evaluate(as_mteb_encoder(Hears()), backwards)["accuracy"] == 0.0


@needs_shared
def test_mteb_evaluates_an_adapter_on_spoken_digits():
    def clips(numbers: range) -> Any:
        rows = []
        for digit in range(10):
            for number in numbers:
                (path,) = (shared() / "data" / "fsdd" / "recordings").glob(f"{digit}_theo_{number}.*")
                samples, rate = soundfile.read(path, dtype="float32")
                rows.append((samples, rate, digit))
        return split(rows)

    encoder = as_mteb_encoder(load_model("log_mel_stats"))
    assert evaluate(encoder, TinyClassification(clips(range(8)), clips(range(8, 12))))["accuracy"] > 0.6


def batches(*sizes: int) -> list[dict[str, list[dict[str, Any]]]]:
    """Return batches as mteb's DataLoader gives them, of noises of several lengths."""
    found, seed = [], 0
    for size in sizes:
        items = []
        for _ in range(size):
            items.append({"array": noise(seed, 0.5 + 0.25 * (seed % 2)), "sampling_rate": RATE})
            seed += 1
        found.append({"audio": items})
    return found


def test_a_clips_embedding_does_not_depend_on_its_batch_and_the_order_is_kept():
    task = SimpleNamespace(modalities=["audio"])
    encoder = as_mteb_encoder(counting_model())
    all_at_once = encoder.encode(batches(5), task_metadata=task)
    in_pieces = encoder.encode(batches(2, 3), task_metadata=task)
    np.testing.assert_array_equal(all_at_once, in_pieces)
    assert all_at_once.shape == (5, 4) and all_at_once.dtype == np.float32
    alone = CountingAdapter().embed(torch.from_numpy(noise(3, 0.75))[None], torch.tensor([6000]))
    np.testing.assert_allclose(all_at_once[3], alone[0].numpy(), rtol=1e-6)


def test_the_space_follows_the_task_or_the_users_wish():
    audio, both = SimpleNamespace(modalities=["audio"]), SimpleNamespace(modalities=["audio", "text"])
    widths = {
        space: [
            as_mteb_encoder(Hears(), space=space).encode(batches(2), task_metadata=t).shape[1] for t in (audio, both)
        ]
        for space in ("auto", "clip", "joint")
    }
    assert widths == {"auto": [4, 2], "clip": [4, 4], "joint": [2, 2]}
    assert as_mteb_encoder(Hears(), space="joint").mteb_model_meta.experiment_name == "space_joint"


def test_similarities_are_cosines():
    encoder = as_mteb_encoder(counting_model())
    a, b = np.array([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[6.0, 8.0], [0.0, -2.0]])
    torch.testing.assert_close(encoder.similarity(a, b), torch.tensor([[1.0, -0.8], [0.6, 0.0]]))
    torch.testing.assert_close(encoder.similarity_pairwise(a, b), torch.tensor([1.0, 0.0]))


def test_audio_is_resampled_and_mixed_down_as_everywhere_here(tmp_path: Path):
    stereo = np.stack([noise(0, rate=44100), noise(1, rate=44100)])
    soundfile.write(tmp_path / "x.wav", stereo.T, 44100, subtype="FLOAT")
    found = samples_of({"array": stereo, "sampling_rate": 44100}, RATE)
    np.testing.assert_allclose(found, decode(tmp_path / "x.wav", RATE), atol=1e-6)
    assert samples_of({"array": [], "sampling_rate": RATE}, RATE).shape == (1,)
    assert samples_of({"array": [0.5, 0.25], "sampling_rate": RATE}, RATE).tolist() == [0.5, 0.25]


def test_mistakes_are_one_line():
    prepared = CountingAdapter()
    prepared.needs_prepare = True
    with pytest.raises(UserError, match="takes statistics from a task's training clips"):
        as_mteb_encoder(Model("counting", prepared, CountingAdapter.info))
    with pytest.raises(UserError, match="no joint space with text"):
        as_mteb_encoder(counting_model(), space="joint")
    encoder = as_mteb_encoder(replace(counting_model(), weights_sha256="f" * 64), name="mine")
    assert (encoder.mteb_model_meta.name, encoder.mteb_model_meta.revision) == ("evar-harness/mine", "f" * 12)
    with pytest.raises(UserError, match="mine has no text side"):
        encoder.encode([{"text": ["a dog"]}], task_metadata=SimpleNamespace(modalities=["text"]))
    with pytest.raises(UserError, match="this one has: image"):
        encoder.encode([{"image": [None]}], task_metadata=SimpleNamespace(modalities=["image"]))
