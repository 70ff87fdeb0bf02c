"""Pre-training of M2D and M2D-CLAP done the reference way, as its description reads: the twin to measure against.

Attention written out, float32; patches shuffled, put back among mask tokens for the predictor and shuffled again, all
of its outputs projected; a moving average and an optimiser that go tensor by tensor; the contrastive loss from the
whole matrix; the host asks for the loss at every step. Names of parameters are those of the product's, so that both
start from the same weights; random numbers come from outside and cost it nothing.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from plain_finetune import PlainBlock
from torch import Tensor, nn
from torch.nn import functional as F

from evar.pretrain.settings import PretrainSettings

FILES = 100


class PlainM2D(nn.Module):
    """Both networks, the predictor and, with a ``text_dim``, 2024's two projectors."""

    def __init__(self, s: PretrainSettings, text_dim: int) -> None:
        super().__init__()
        dim, inner, heads = s.dim, s.decoder_dim, s.heads or s.dim // 64
        patches = s.grid[0] * s.grid[1]
        self.keep, self.settings = int(patches * (1 - s.mask_ratio)), s
        self.register_buffer("norm_stats", torch.zeros(2))
        self.cls_token, self.mask_token = nn.Parameter(torch.zeros(1, 1, dim)), nn.Parameter(torch.zeros(1, 1, inner))
        self.pos_embed = nn.Parameter(torch.zeros(1, patches + 1, dim), requires_grad=False)
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, patches + 1, inner), requires_grad=False)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, dim, s.patch_size, s.patch_size)})
        self.blocks = nn.ModuleList(PlainBlock(dim, heads) for _ in range(s.depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.target_blocks = nn.ModuleList(PlainBlock(dim, heads) for _ in range(s.depth)).requires_grad_(False)
        self.target_norm = nn.LayerNorm(dim, eps=1e-6).requires_grad_(False)
        self.decoder_embed, self.decoder_pred = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.decoder_blocks = nn.ModuleList(PlainBlock(inner, s.decoder_heads) for _ in range(s.decoder_depth))
        self.decoder_norm = nn.LayerNorm(inner, eps=1e-6)
        if text_dim:
            self.audio_proj = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
            self.text_proj = nn.Identity() if text_dim == dim else nn.Linear(text_dim, dim)
            self.logit_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, noise: Tensor, text: Tensor | None) -> Tensor:
        """Return the loss of ``[B, 1, 80, frames]`` with the noise ``[B, N]`` and the captions' vectors ``[B, E]``."""
        z = self.patch_embed["proj"](x).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        shuffle = torch.argsort(noise, dim=1)
        restore = torch.argsort(shuffle, dim=1)
        latent = self.encoded(self.blocks, self.norm, take(z, shuffle[:, : self.keep]))
        predicted = take(self.predicted(latent, restore), shuffle)[:, self.keep :]
        with torch.no_grad():
            target = self.encoded(self.target_blocks, self.target_norm, take(z, shuffle[:, self.keep :]))[:, 1:].float()
            mean, var = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
            target = (target - mean) / (var + 1e-6) ** 0.5
        cosines = (F.normalize(predicted.float(), dim=-1) * F.normalize(target, dim=-1)).sum(-1)
        m2d = (2 - 2 * cosines).mean()
        if text is None:
            return m2d
        return self.settings.w_m2d * m2d + self.settings.w_other * self.contrastive(latent[:, 1:], text)

    def encoded(self, blocks: nn.ModuleList, norm: nn.LayerNorm, tokens: Tensor) -> Tensor:
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        x = torch.cat([first, tokens], dim=1)
        for block in blocks:
            x = block(x)
        return norm(x)

    def predicted(self, latent: Tensor, restore: Tensor) -> Tensor:
        """Return the predictions of all patches ``[B, N, D]`` in the grid's order."""
        x = self.decoder_embed(latent)
        hidden = self.mask_token.to(x.dtype).repeat(len(x), restore.shape[1] - self.keep, 1)
        grid = take(torch.cat([x[:, 1:], hidden], dim=1), restore)
        x = torch.cat([x[:, :1], grid], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]

    def contrastive(self, visible: Tensor, text: Tensor) -> Tensor:
        a = F.normalize(self.audio_proj(visible.mean(1)).float(), dim=-1)
        t = F.normalize(self.text_proj(text).float(), dim=-1)
        with torch.autocast(a.device.type, enabled=False):
            logits = self.logit_scale.exp() * a @ t.T
        own = torch.arange(len(a), device=a.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def take(tokens: Tensor, which: Tensor) -> Tensor:
    return torch.gather(tokens, 1, which.unsqueeze(-1).repeat(1, 1, tokens.shape[-1]))


def plain_adamw(model: PlainM2D) -> torch.optim.AdamW:
    """Return an optimiser that goes tensor by tensor; vectors and scalars do not decay."""
    s, trained = model.settings, [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": s.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=s.lr, betas=(0.9, 0.95), foreach=False, fused=False)


def plain_step(
    model: PlainM2D,
    optimiser: torch.optim.Optimizer,
    log_mel: Tensor,
    text: Tensor | None,
    noise: Tensor,
    decay: float,
    precision: str,
) -> float:
    """Take one step on a batch in ordinary CPU memory and return the loss; ``decay`` is the moving average's."""
    device = model.cls_token.device
    log_mel, noise = log_mel.to(device), noise.to(device)
    text = None if text is None else text.to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext():
        loss = model(log_mel, noise, text)
    optimiser.zero_grad()
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    torch.nn.utils.clip_grad_norm_(trained, model.settings.clip_norm, foreach=False)
    optimiser.step()
    if text is not None:
        model.logit_scale.data.clamp_(0, 4.6052)
    for follower, leader in ((model.target_blocks, model.blocks), (model.target_norm, model.norm)):
        for old, new in zip(follower.parameters(), leader.parameters(), strict=True):
            old.data = decay * old.data + (1 - decay) * new.data
    return loss.item()


class PlainClips(torch.utils.data.Dataset):
    """A float32 log-mel file per clip, read whole for one crop of it, and one of the clip's caption vectors."""

    def __init__(self, folder: Path, clips: int, frames: int, stats: tuple[float, float], vectors: Tensor) -> None:
        self.folder, self.clips, self.frames, self.stats, self.vectors = folder, clips, frames, stats, vectors
        folder.mkdir()
        for n in range(FILES):  # clip n is file n % FILES: all of them stay in the page cache, which is kind to it
            whole = np.random.default_rng(n).standard_normal((1, 80, 1001), np.float32)
            np.save(folder / f"{n}.npy", whole)

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        whole = torch.from_numpy(np.load(self.folder / f"{number % FILES}.npy"))
        start = int(np.random.randint(whole.shape[-1] - self.frames))
        crop = (whole[..., start : start + self.frames] - self.stats[0]) / self.stats[1]
        return crop, self.vectors[number, np.random.randint(self.vectors.shape[1])]
