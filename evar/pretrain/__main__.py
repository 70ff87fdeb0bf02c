"""Pre-train a network as the papers do: ``python -m evar.pretrain --preset=m2d_clap_2024 --corpus=DIR --captions=DIR``.

torchrun --nproc_per_node=8 -m evar.pretrain --preset=... shares every batch among eight GPUs; more machines as
torchrun does.
"""

from __future__ import annotations

from pathlib import Path

from evar import ranks
from evar.cli import main
from evar.command import at_least_one, pick_device
from evar.errors import UserError
from evar.extract import Precision
from evar.pretrain.options import HELP, given_settings, setting_options
from evar.pretrain.presets import settings_for
from evar.pretrain.run import Plan, pretrain
from evar.pretrain.side_eval import SideEvaluation
from evar.progress import say
from evar.training import Machine
from model_adapters.networks.m2d_files import parse_norm_stats


def pretrain_command(
    *,
    preset: str,
    corpus: Path,
    out: Path | None = None,
    captions: Path | None = None,
    noise: Path | None = None,
    features: Path | None = None,
    lms: Path | None = None,
    init: str = "",
    norm_stats: str = "",
    accumulate: int = 1,
    recompute: bool = False,
    compile: bool = False,
    precision: Precision = "fp32",
    device: str = "auto",
    workers: int | None = None,
    checkpoint_every: int = 0,
    save_every: int = 0,
    eval_every: int = 0,
    eval_tasks: tuple[str, ...] = (),
    root: Path | None = None,
    **settings: str,
) -> None:
    """Pre-train an audio or audio-language network from a packed corpus.

    Leaves a checkpoint in published form, OUT/<name>/checkpoint-<epoch>.pth, which the adapters m2d, m2d_clap and
    msm_mae load. A stopped run goes on from its last checkpoint when the same command is given again.

    Args:
        preset: m2d_base, m2d_clap_2024, m2d_clap_2025_stage1, m2d_clap_2025_stage2, m2d_clap_2025_stage21, m2d_as,
            m2d_x, m2d_s, msm_mae; mam_clap, supmam (constants are ours: the paper gives none); pocket (small)
        corpus: made by python -m evar.pretrain.corpus; or the reference's files_*.csv, with --lms
        out: folder of the run (default pretrained/PRESET)
        captions: made by python -m evar.pretrain.captions
        noise: corpus of background noise
        features: made by python -m evar.pretrain.features (m2d_s, m2d_x, mam_clap, supmam)
        lms: folder of the reference's files (.npy; .npz of M2D-S) that the CSV names
        init: checkpoint to begin with: published, or your own
        norm_stats: MEAN,STD of the log-mel (default the corpus's; with a frozen encoder, its own)
        accumulate: parts of a batch that pass one after the other; the contrastive loss is within each
        recompute: keep no activations inside blocks but compute them again, to save memory
        compile: compile the blocks (GPU)
        precision: fp32, or bf16 (autocast)
        device: auto, cpu, cuda or cuda:N
        workers: reading threads (default one per core, at most 8)
        checkpoint_every: steps between checkpoints to go on from; 0: after every epoch only
        save_every: epochs between published checkpoints; 0: at the end only
        eval_every: epochs between evaluations on the side; 0 for none
        eval_tasks: tasks of these evaluations (linear evaluation, zero-shot where it can)
        root: folder of these tasks' data sets
    """
    at_least_one(accumulate=accumulate)
    if checkpoint_every < 0 or save_every < 0 or eval_every < 0:
        raise UserError("--checkpoint_every, --save_every and --eval_every must be 0 or more")
    if bool(eval_every) != bool(eval_tasks):
        raise UserError("evaluation on the side needs both --eval_every=EPOCHS and --eval_tasks=TASK[,TASK]")
    chosen = settings_for(preset, given_settings(settings))
    side = SideEvaluation(eval_tasks, eval_every, root) if eval_every else None
    where = ranks.start(pick_device(device))
    if side is not None and ranks.is_main():
        side.check()
    machine = Machine(where, precision, workers, accumulate, checkpoint_every, compile, recompute)
    plan = Plan(
        preset, chosen, corpus, out or Path("pretrained") / preset, captions, noise, lms, init,
        parse_norm_stats(norm_stats) if norm_stats else None, machine, save_every, eval_every,
        None if side is None else side.run, features,
    )  # fmt: skip
    if chosen.our_constants and ranks.is_main():
        say(f"{preset}: constants are ours, no paper gives them")
    path = pretrain(plan)
    if ranks.is_main():
        print(path)
    ranks.stop()


if __name__ == "__main__":
    main(pretrain_command, extra=setting_options, extra_help=HELP)
