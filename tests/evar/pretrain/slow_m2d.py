"""M2D's step written the obvious way, clip by clip, as the paper tells it: the twin of the fast path."""

import torch
from torch.nn import functional as F


def slow_losses(model, log_mel, noise):
    """Return M2D's (norm_mse, standardised) loss of each clip, predicting for the whole grid and picking afterwards."""
    settings = model.settings
    return torch.stack([_clip(model, settings, x, n) for x, n in zip(log_mel, noise, strict=True)])


def _clip(model, settings, x, noise):
    rows, columns = settings.grid
    keep = int(rows * columns * (1 - settings.mask_ratio))
    ranked = sorted(range(rows * columns), key=lambda i: float(noise[i]))
    visible, hidden = ranked[:keep], ranked[keep:]
    tokens = model.patch_embed.proj(x[None])[0].flatten(1).T + model.pos_embed[0, 1:]
    cls = model.cls_token[0] + model.pos_embed[0, :1]

    latent = _through(model.blocks, model.norm, torch.cat([cls, tokens[visible]]))
    seen = model.decoder_embed(latent)
    grid = [model.mask_token[0, 0]] * (rows * columns)
    for place, token in zip(visible, seen[1:], strict=True):
        grid[place] = token
    whole = torch.cat([seen[:1], torch.stack(grid)]) + model.decoder_pos_embed[0]
    predicted = model.decoder_pred(_through(model.decoder_blocks, model.decoder_norm, whole))[1:]

    with torch.no_grad():
        target = _through(model.target_blocks, model.target_norm, torch.cat([cls, tokens[hidden]]))[1:]
    target = (target - target.mean(1, keepdim=True)) / (target.var(1, keepdim=True) + 1e-6).sqrt()
    differences = F.normalize(predicted[hidden], dim=1) - F.normalize(target, dim=1)
    return differences.square().sum(1).mean()


def _through(blocks, norm, tokens):
    for block in blocks:
        tokens = tokens + _attention(block.attn, block.norm1(tokens))
        tokens = tokens + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(tokens))))
    return norm(tokens)


def _attention(attention, tokens):
    q, k, v = attention.qkv(tokens).chunk(3, dim=1)
    heads = []
    for one_q, one_k, one_v in zip(*(x.chunk(attention.heads, dim=1) for x in (q, k, v)), strict=True):
        weights = (one_q @ one_k.T / one_q.shape[1] ** 0.5).softmax(1)
        heads.append(weights @ one_v)
    return attention.proj(torch.cat(heads, dim=1))


def slow_average(target, online, decay):
    """Move every tensor of ``target`` (a state dict) towards its twin, one number after the other."""
    return {name: decay * value + (1 - decay) * online[name] for name, value in target.items()}
