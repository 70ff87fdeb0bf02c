"""Make a corpus for pre-training: audio from folders, tables, AudioSet and tasks, decoded once into one packed store.

python -m evar.pretrain.corpus OUT --audio=FOLDER|TABLE.csv|task:NAME[,...]
python -m evar.pretrain.corpus OUT --list
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from evar.audio.log_mel import M2D_16K, M2D_32K, MelSpec
from evar.audio.pack import PackSpec, PackType
from evar.cli import main
from evar.errors import UserError
from evar.pretrain.corpus_build import Recipe, build_corpus
from evar.pretrain.corpus_files import PACK, Corpus, LabelSets, open_corpus, read_about
from evar.pretrain.corpus_sources import Places

__all__ = ["Corpus", "LabelSets", "corpus", "describe", "open_corpus"]

Store = Literal["audio", "log_mel"]


def corpus(
    out: Path,
    *,
    audio: tuple[str, ...] = (),
    root: Path | None = None,
    task_root: Path | None = None,
    store: Store = "audio",
    dtype: PackType | None = None,
    sample_rate: int = 16000,
    max_seconds: float = 30.0,
    exclude: tuple[Path, ...] = (),
    skip_broken: bool = False,
    incomplete: bool = False,
    licence: str = "",
    workers: int | None = None,
    list: bool = False,
) -> None:
    """Pack audio into a corpus that python -m evar.pretrain reads; run again, it goes on where it was stopped.

    Sources: a folder (searched to any depth); a CSV with a column file, and label (joined by ;), weight and split (only
    'train' is taken) if it has them; one of AudioSet's segment tables with a folder of clips (ID.wav, YID.wav,
    ID_START.wav); or the training part of a task (task:as20k; task:esc50@5, all folds but the fifth).

    Args:
        out: folder of the corpus
        audio: folders, tables and tasks, comma-separated; together they are one corpus
        root: folder that the tables' files are in (default each table's own)
        task_root: folder with one folder per task (default $EVAR_DATA, else the cache)
        store: audio, from which log-mels are made while training; or log_mel, ready-made
        dtype: int16 or float16 for audio (default int16); float16 or float32 for log_mel (default float16)
        sample_rate: Hz; of log_mel 16000 or 32000
        max_seconds: longer clips are cut to this; 0 keeps them whole
        exclude: lists of file stems or ids to leave out, one per line
        skip_broken: leave out files that cannot be decoded, instead of stopping
        incomplete: accept incomplete copies of tasks
        licence: a note on what the audio may be used for, kept with the corpus
        workers: decoding threads (default one per core, at most eight)
        list: only describe the corpus that is there
    """
    if list:
        if audio:
            raise UserError("--list only describes what is there: leave out --audio")
        print("\n".join(describe(out)))
        return
    if not audio:
        raise UserError("--audio=... is needed: folders, tables or tasks, comma-separated")
    if max_seconds < 0:
        raise UserError(f"--max_seconds={max_seconds:g}: a length in seconds, or 0 for whole clips")
    mel = None if store == "audio" else _mel(sample_rate)
    spec = PackSpec(sample_rate, dtype or ("int16" if mel is None else "float16"), max_seconds or None, mel)
    places = Places(root, task_root, incomplete)
    build_corpus(out, Recipe(audio, spec, places, exclude, skip_broken, licence, workers))
    print("\n".join(describe(out)))


def _mel(sample_rate: int) -> MelSpec:
    for mel in (M2D_16K, M2D_32K):
        if mel.sample_rate == sample_rate:
            return mel
    raise UserError(f"--sample_rate={sample_rate}: log-mels are made at 16000 or 32000 Hz")


def describe(folder: Path) -> list[str]:
    """Return what there is to say about a corpus, line by line; :class:`UserError` if there is none."""
    about, stored = read_about(folder), read_about(folder)["stored"]
    size = sum(path.stat().st_size for path in (folder / PACK).glob("shard-*.bin"))
    length = f"up to {stored['seconds']:g} s each" if stored["seconds"] else "whole clips"
    lines = [
        f"{folder}: {about['clips']:,} clips, {about['hours']:,.1f} hours, {size / 1e9:.2f} GB",
        f"  stored: {stored['kind'].replace('_', '-')}, {stored['dtype']}, {stored['sample_rate']} Hz, {length}",
    ]
    for source in about["sources"]:
        extra = [source["note"]] if source["note"] else []
        extra += [f"{source['missing']:,} listed clips are not there"] if source["missing"] else []
        said = "".join(f"; {x}" for x in extra)
        lines.append(f"  {source['name']}: {source['clips']:,} clips, {source['hours']:,.1f} hours{said}")
    if about["excluded"] or about["exclusion_lists"]:
        lines.append(f"  excluded: {about['excluded']:,} clips ({', '.join(about['exclusion_lists'])})")
    if about["broken"]:
        lines.append(f"  broken and left out: {len(about['broken']):,}, the first: {about['broken'][0]}")
    if about["classes"]:
        lines.append(f"  classes: {len(about['classes']):,}")
    if about["licence"]:
        lines.append(f"  licence: {about['licence']}")
    lines.append(f"  fingerprint: {about['fingerprint']}")
    return lines


if __name__ == "__main__":
    main(corpus)
