"""Every adapter of the registry, found by itself, untrained and small: the contract, and linear evaluation."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import torch
from golden import shared

from evar.cli import run
from evar.command import options_of_models
from evar.convert import hints_of, keyword_parameters
from evar.errors import UserError
from evar.lineareval import lineareval
from model_adapters.registry import Model, adapter_class, load_model, model_info, model_names

NEEDS_MORE = {
    "mteb": "a model that the package mteb knows (tests/model_adapters/test_mteb_adapter.py)",
    "finetuned": "the folder of a fine-tuned model (tests/model_adapters/test_finetuned.py)",
}
SMALL = {"depth": "1", "embed_dim": "64", "hidden_size": "64", "width": "16"}
NARROWER = {"embed_dim": "16"}
"""For HTS-AT's kin, whose last stage is eight times as wide as the first."""
SMALLEST = ("tiny", "nano", "small", "base")
SPEAKERS = (("jackson", 10), ("theo", 11), ("nicolas", 12), ("george", 13), ("yweweler", 5), ("lucas", 0))
"""Speaker and number of the six recordings of each digit: four to train on, one to validate, one to test."""
ARGUMENTS = {"hf": "hf:hubert"}
"""What stands after the colon of a model that is nothing without it."""
NAMES = [ARGUMENTS.get(name, name) for name in model_names() if name not in NEEDS_MORE]


def reduced(name: str) -> dict[str, str]:
    """Return options that make a model small where its class allows it, and that fix what it would take from a task."""
    cls = adapter_class(name)[0]
    parameters, hints = keyword_parameters(cls), hints_of(cls)
    small = SMALL | (NARROWER if getattr(parameters.get("embed_dim"), "default", None) == 96 else {})
    options = {option: text for option, text in small.items() if option in parameters}
    if sizes := [size for size in SMALLEST if size in get_args(hints.get("size"))]:
        options["size"] = sizes[0]
    if "norm_stats" in parameters and "prepare" in vars(cls):
        options["norm_stats"] = "-7.0,4.0"
    return options


def untrained(name: str) -> str | None:
    """Return ``random:3`` for a model that has weights of its own (or its base model's)."""
    return "random:3" if "weights" in keyword_parameters(adapter_class(name)[0]) and name != "caption_map" else None


@cache
def built(name: str) -> Model:
    """Return a small untrained model; skip where an extra package that it needs is not installed."""
    try:
        return load_model(name, untrained(name), reduced(name))
    except UserError as error:
        if "install" in str(error):
            pytest.skip(str(error))
        raise


def embed(name: str, waveforms: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of whole clips ``[B, T]``."""
    with torch.inference_mode():
        return built(name).adapter.embed(waveforms, torch.full((len(waveforms),), waveforms.shape[1]))


def noise(name: str, clips: int, seconds: float) -> torch.Tensor:
    """Return clips of soft noise at the model's rate."""
    samples = round(built(name).adapter.sample_rate * seconds)
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks as small as these lose more by a second thread than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_depend_on_the_clip_alone(name):
    model = built(name)
    if model.adapter.needs_prepare:
        pytest.skip("takes something from a task first")
    clips = noise(name, 3, 0.8)
    found = embed(name, clips)
    assert found.shape == (3, model.adapter.embedding_dim)
    assert torch.isfinite(found).all()
    assert torch.equal(embed(name, clips), found)
    alone = embed(name, clips[1:2])
    torch.testing.assert_close(alone, found[1:2], atol=1e-4, rtol=1e-4)
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("name", NAMES)
def test_silence_a_tenth_of_a_second_and_a_minute(name):
    if built(name).adapter.needs_prepare:
        pytest.skip("takes something from a task first")
    for clips in (torch.zeros_like(noise(name, 1, 0.5)), noise(name, 1, 0.1), noise(name, 1, 60.0)):
        assert torch.isfinite(embed(name, clips)).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_facts_are_stated(name):
    info, adapter = model_info(name), built(name).adapter
    assert info.title and info.code_licence and adapter.long_audio and adapter.short_audio
    assert 0 < info.probe_lr < 1 and info.trained_on == tuple(dict.fromkeys(info.trained_on))
    if info.weights is not None:
        assert info.weights.source.startswith("http") and info.weights.licence
    if info.kind == "audio-language":
        assert adapter.joint_dim > 0 and hasattr(adapter, "embed_audio") and hasattr(adapter, "embed_text")


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """Return a folder with sixty recordings of FSDD."""
    data = None if shared() is None else shared() / "data" / "fsdd" / "recordings"
    if data is None or not data.is_dir():
        pytest.skip("no real audio: set EVAR_SHARED to the folder that holds data/fsdd")
    folder = tmp_path_factory.mktemp("fsdd")
    (folder / "recordings").mkdir()
    for digit in range(10):
        for speaker, number in SPEAKERS:
            (source,) = data.glob(f"{digit}_{speaker}_{number}.*")
            (folder / "recordings" / source.name).symlink_to(source)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_linear_evaluation_end_to_end(name, digits, tmp_path, monkeypatch, capsys):
    if name == "caption_map":
        pytest.skip("needs a caption for each clip (tests/model_adapters/test_caption_map.py)")
    built(name)  # skips where a package is missing
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path))
    options = {name: text for name, text in reduced(name).items() if name != "norm_stats"}
    given = [f"--weights={untrained(name)}"] if untrained(name) else []
    given += [f"--{option}={text}" for option, text in options.items()]
    words = [name, "fsdd", f"--data={digits}", f"--results={tmp_path}", "--incomplete", "--seeds=1", "--max_epochs=2"]
    code = run(lineareval, [*words, "--workers=1", "--device=cpu", *given], options_of_models)
    assert code == 0, capsys.readouterr().err
    (result,) = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert (result["data"]["clips"], result["model"]) == (60, name)
    assert {"incomplete"} <= set(result["flags"])
    assert result["input"]["long_audio"] == built(name).adapter.long_audio
    assert result["input"]["sample_rate"] == built(name).adapter.sample_rate
