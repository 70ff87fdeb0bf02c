"""The published probe written the obvious way: the slow twin that ``evar.probes`` must equal."""

from __future__ import annotations

import copy

import torch
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

from evar.probe_adam import draws_of
from evar.probes import Fold


def slow_probe(
    features,
    labels,
    fold: Fold,
    seed,
    *,
    n_classes,
    multi_label=False,
    lr,
    max_epochs=200,
    patience=20,
    batch_size=200,
    fold_number=0,
    parts=None,
):
    """Return (score, scores, epochs, best epoch) of one head; ``parts`` are the kept and held out of fold.train."""
    draws = draws_of(seed, fold_number)
    scaler = StandardScaler().fit(features[fold.train])
    if fold.valid is None:
        train_rows, valid_rows = (fold.train[part] for part in parts)
    else:
        train_rows, valid_rows = fold.train, fold.valid
    x_train, x_valid, x_test = (
        torch.from_numpy(scaler.transform(features[rows])) for rows in (train_rows, valid_rows, fold.test)
    )
    targets = torch.from_numpy(labels).float() if multi_label else functional.one_hot(torch.from_numpy(labels)).float()

    model = nn.Linear(features.shape[1], n_classes)
    nn.init.kaiming_uniform_(model.weight, a=5**0.5, generator=draws)
    nn.init.uniform_(model.bias, -(features.shape[1] ** -0.5), features.shape[1] ** -0.5, generator=draws)
    optimiser = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=1e-8)

    def score(x, rows):
        with torch.no_grad():
            outputs = model(x).sigmoid() if multi_label else model(x).softmax(1)
        truth = targets[rows].numpy()
        if multi_label:
            return average_precision_score(truth, outputs.numpy()), outputs.numpy()
        return float((outputs.argmax(1).numpy() == truth.argmax(1)).mean()), outputs.numpy()

    best, best_epoch, kept_weights = -1.0, 0, None
    for epoch in range(1, max_epochs + 1):
        for batch in torch.randperm(len(train_rows), generator=draws).split(batch_size):
            outputs, truth = model(x_train[batch]), targets[train_rows[batch]]
            if multi_label:
                loss = functional.binary_cross_entropy(outputs.sigmoid(), truth)
            else:
                loss = -(truth * outputs.log_softmax(1)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        value, _ = score(x_valid, valid_rows)
        if value >= best:
            best, best_epoch, kept_weights = value, epoch, copy.deepcopy(model.state_dict())
        if epoch - best_epoch >= patience:
            break
    model.load_state_dict(kept_weights)
    return *score(x_test, fold.test), epoch, best_epoch
