"""The pocket suite: made the same everywhere, complete or not at all, and hard enough to rank models."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from golden_free import fit_scores, level_only, log_mel, log_mel_stats, with_time
from numpy.typing import NDArray
