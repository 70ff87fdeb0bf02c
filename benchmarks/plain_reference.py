"""Linear evaluation of BYOL-A done the reference way, as a careful user would write it: the twin to measure against.

Statistics of the log-mel in a pass of its own; every training and test clip embedded again for each fold, in batches of
256 through worker processes; a mel spectrogram by convolution kernels; one probe at a time through a DataLoader, with
autograd and torch.optim. Same clips, same weights, same protocol, same number of threads as the harness.

    python benchmarks/plain_reference.py --data=DIR --weights=byol_a.pth --workers=2 --out=result.json
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import torch
from measure import measured
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

RATE, SECONDS = 16000, 5.0


class Clips(Dataset):
    def __init__(self, files: list[Path], labels: np.ndarray) -> None:
        self.files, self.labels = files, labels
        self.unit = int(RATE * SECONDS)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        samples, rate = librosa.load(self.files[number], sr=None, mono=True)
        if rate != RATE:
            samples = librosa.resample(samples, orig_sr=rate, target_sr=RATE)
        samples = samples[: self.unit]
        samples = np.pad(samples, (0, self.unit - len(samples)))
        return torch.from_numpy(samples), int(self.labels[number])


class ConvolutionMel(nn.Module):
    """Log-mel through a strided convolution with cosine and sine kernels."""

    def __init__(
        self, n_fft: int = 1024, hop: int = 160, n_mels: int = 64, fmin: float = 60, fmax: float = 7800
    ) -> None:
        super().__init__()
        time = np.arange(n_fft)
        angles = 2 * np.pi * np.outer(np.arange(n_fft // 2 + 1), time) / n_fft
        window = 0.5 - 0.5 * np.cos(2 * np.pi * time / n_fft)
        self.register_buffer("cosine", torch.tensor((np.cos(angles) * window)[:, None], dtype=torch.float32))
        self.register_buffer("sine", torch.tensor((np.sin(angles) * window)[:, None], dtype=torch.float32))
        mel = librosa.filters.mel(sr=RATE, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
        self.register_buffer("mel", torch.from_numpy(mel))
        self.hop, self.pad = hop, n_fft // 2

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(waves[:, None], (self.pad, self.pad), mode="reflect")
        real = nn.functional.conv1d(padded, self.cosine, stride=self.hop)
        imaginary = nn.functional.conv1d(padded, self.sine, stride=self.hop)
        power = torch.sqrt(real**2 + imaginary**2) ** 2
        return (self.mel @ power + torch.finfo(torch.float32).eps).log()


class AudioNTT(nn.Module):
    """The network of BYOL-A (AudioNTT2020), layer by layer."""

    def __init__(self, d: int = 512, n_mels: int = 64) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for channels in (1, 64, 64):
            blocks += [nn.Conv2d(channels, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2, 2)]
        self.features = nn.Sequential(*blocks)
        hidden = d
        self.fc = nn.Sequential(
            nn.Linear(64 * (n_mels // 8), hidden), nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, d), nn.ReLU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x[:, None]).permute(0, 3, 2, 1)
        x = self.fc(x.reshape(x.shape[0], x.shape[1], -1))
        return x.amax(dim=1) + x.mean(dim=1)


def statistics(mel: nn.Module, loader: DataLoader) -> tuple[float, float]:
    """Running mean over mini-batches of mean and deviation; the first batch initialises and is then lost."""
    means, deviations = [], []
    for waves, _ in loader:
        log_mel = mel(waves)
        means.append(log_mel.mean().item())
        deviations.append(log_mel.std().item())
    return float(np.mean(means[1:])), float(np.mean(deviations[1:]))


@torch.no_grad()
def embed(
    mel: nn.Module, net: nn.Module, stats: tuple[float, float], loader: DataLoader
) -> tuple[np.ndarray, np.ndarray]:
    vectors, labels = [], []
    for waves, label in loader:
        vectors.append(net((mel(waves) - stats[0]) / stats[1]).numpy())
        labels.append(label.numpy())
    return np.concatenate(vectors), np.concatenate(labels)


def probe(train: tuple, test: tuple, seed: int, classes: int, lr: float) -> float:
    """One linear probe: Adam, at most 200 epochs, patience 20, a random tenth for validation."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    scaler = StandardScaler().fit(train[0])
    x, y = scaler.transform(train[0]), np.eye(classes, dtype=np.float32)[train[1]]
    for _ in range(100):
        x_fit, x_valid, y_fit, y_valid = train_test_split(x, y, test_size=0.1)
        if (y_valid.sum(0) > 0).all():
            break
    model = nn.Linear(x.shape[1], classes)
    optimiser = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=1e-8)
    batch = min(200, len(x_fit))
    loader = DataLoader(TensorDataset(torch.from_numpy(x_fit), torch.from_numpy(y_fit)), batch, shuffle=True)
    x_valid, best, best_epoch, best_state = torch.from_numpy(x_valid), -1.0, 0, {}
    for epoch in range(200):
        for features, targets in loader:
            loss = -(targets * model(features).log_softmax(-1)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            hits = (model(x_valid).argmax(-1).numpy() == y_valid.argmax(-1)).mean()
        if hits >= best:
            best, best_epoch, best_state = hits, epoch, copy.deepcopy(model.state_dict())
        elif epoch - best_epoch >= 20:
            break
    model.load_state_dict(best_state)
    with torch.no_grad():
        return float((model(torch.from_numpy(scaler.transform(test[0]))).argmax(-1).numpy() == test[1]).mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--embed_only", action="store_true", help="stop after one fold's embeddings (to tune workers)")
    given = parser.parse_args()
    table = pd.read_csv(given.data / "meta" / "esc50.csv")
    files = []
    for name in table.filename:
        stem = given.data / "audio" / Path(name).stem
        files.append(next(p for p in (stem.with_suffix(s) for s in (".wav", ".flac", ".ogg")) if p.exists()))
    names = sorted(table.category.unique())
    labels = np.array([names.index(c) for c in table.category])
    folds = table.fold.to_numpy()
    mel, net = ConvolutionMel(), AudioNTT()
    net.load_state_dict(torch.load(given.weights, weights_only=True))
    net.eval()

    def loader(rows: np.ndarray, size: int, shuffle: bool) -> DataLoader:
        return DataLoader(
            Clips([files[r] for r in rows], labels[rows]), size, shuffle=shuffle, num_workers=given.workers
        )

    torch.manual_seed(42)
    with measured() as cost_statistics, torch.no_grad():
        stats = statistics(mel, loader(np.flatnonzero(folds != 1), 64, True))
    parts = []
    with measured() as cost_embedding:
        for fold in [1] if given.embed_only else range(1, 6):
            train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            parts.append(
                (embed(mel, net, stats, loader(train, 256, False)), embed(mel, net, stats, loader(test, 256, False)))
            )
    scores: list[float] = []
    with measured() as cost_probe:
        for seed in () if given.embed_only else (42, 43, 44):
            scores.append(float(np.mean([probe(train, test, seed, len(names), given.lr) for train, test in parts])))
    given.out.write_text(
        json.dumps(
            {
                "scores": scores,
                "statistics": stats,
                "cpu": {"statistics": cost_statistics.cpu, "embedding": cost_embedding.cpu, "probe": cost_probe.cpu},
                "wall": {
                    "statistics": cost_statistics.wall,
                    "embedding": cost_embedding.wall,
                    "probe": cost_probe.wall,
                },
            }
        )
    )


if __name__ == "__main__":
    main()
