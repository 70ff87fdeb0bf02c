"""The linear probes: the published one (Adam), and one that is solved (logistic regression).

Both take embeddings ``[N, D]``, labels and folds, and give a :class:`Fit` per fold (and seed).
"""

from __future__ import annotations

from evar.probe_adam import adam_probe
from evar.probe_data import Fit, Fold
from evar.probe_logistic import logistic_probe

__all__ = ["Fit", "Fold", "adam_probe", "logistic_probe"]
