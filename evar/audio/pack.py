"""The packed store: a data set's clips decoded and resampled once, so that training never waits for decoding.

``pack_clips`` writes one (in parallel, resumable after a kill), ``open_pack`` opens it, ``Pack.read`` gives batches.
Fine-tuning and pre-training share it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from evar.audio.decode import BadAudio
from evar.audio.loading import ClipItem, broken_files, workers_for
from evar.audio.pack_format import PackSpec, PackType
from evar.audio.pack_read import Pack, damaged_shard, open_pack, read_description
from evar.audio.pack_source import Encoder, Stored
from evar.audio.pack_write import SHARD_BYTES, PackWriter
from evar.errors import UserError
from evar.paths import cache_dir
from evar.progress import bar, say

__all__ = ["Pack", "PackSpec", "PackType", "open_pack", "pack_clips", "pack_folder"]


def pack_folder(spec: PackSpec, keys: Sequence[bytes], cache: Path | None = None) -> Path:
    """Return where the pack of these clips lies: ``<cache>/packs/<fingerprint of spec and keys>``."""
    return (cache or cache_dir()) / "packs" / spec.fingerprint(keys)


def pack_clips(
    items: Sequence[ClipItem],
    keys: Sequence[bytes],
    folder: Path,
    spec: PackSpec,
    *,
    workers: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    skip_broken: bool = False,
    remedy: str = "replace them, or leave them out with --incomplete",
) -> Pack:
    """Write what is missing of a pack and return it.

    The bytes on disk depend on items, keys and spec alone, not on the number of threads or on how often it was killed.

    Args:
        items: the clips; ``position`` is ignored, since a clip is stored from its front.
        keys: 16 bytes per clip that name its content; a key that occurs again is stored once.
        folder: of this pack alone (see :func:`pack_folder`).
        spec: what is stored.
        workers: decoding threads; None: one per core, at most eight. Memory holds two files per thread.
        shard_bytes: the size at which a new shard is begun.
        remedy: what to do about files that cannot be decoded, for the error's text.
        skip_broken: finish without the files that cannot be decoded (``Pack.left_out`` has their keys).

    Raises:
        UserError: files cannot be decoded (after all others have been stored), the disk is full, or the folder has
            another pack.
    """
    todo: dict[bytes, ClipItem] = {}
    for key, item in zip(keys, items, strict=True):
        todo.setdefault(key, item)
    if not todo:
        raise UserError(f"there are no clips to pack into {folder}")
    fingerprint = spec.fingerprint(list(todo))
    if (pack := _finished(folder, fingerprint)) is not None:
        return pack
    try:
        with _alone(folder):
            pack = _finished(folder, fingerprint)  # another process may have done it while this one waited
            if pack is None:
                with PackWriter(folder, spec, fingerprint, shard_bytes) as writer:
                    _write(writer, todo, workers, None if skip_broken else remedy)
                pack = open_pack(folder)
                _say_clipped(pack)
    except OSError as error:
        raise UserError(
            f"cannot write the pack at {folder} ({error.strerror or error}): what is complete stays; "
            "make room and run again, it goes on from there"
        ) from None
    return pack


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a pack; waits while another process writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process is packing the same clips ({folder.name[:8]}); waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _finished(folder: Path, fingerprint: str) -> Pack | None:
    """Return the pack if it is complete and whole; None if something is to be written.

    Raises :class:`UserError` if the folder has another pack, or an index that cannot be trusted.
    """
    description = read_description(folder)
    if description is None:
        return None
    if description["fingerprint"] != fingerprint:
        raise UserError(f"{folder} has a pack of other clips or settings: choose another folder, or delete it")
    if not description["complete"]:
        return None
    if damaged := damaged_shard(folder, description):
        say(f"{damaged}; decoding its clips again")
        return None
    return open_pack(folder)


def _write(writer: PackWriter, todo: dict[bytes, ClipItem], workers: int | None, remedy: str | None) -> None:
    there = {bytes(key) for key in writer.records["key"].tolist()}
    files: dict[Path, list[bytes]] = {}
    for key, item in todo.items():
        if key not in there:
            files.setdefault(item.path, []).append(key)
    broken: dict[Path, str] = {}
    with bar("packing", len(todo), initial=len(there)) as progress:
        groups = [[todo[key] for key in keys] for keys in files.values()]
        for (path, keys), clips in zip(files.items(), _encoded(groups, writer.spec, workers), strict=True):
            if isinstance(clips, str):
                broken[path] = clips
            else:
                for key, (clip, lost) in zip(keys, clips, strict=True):
                    writer.append(key, clip, lost)
            progress.update(len(keys))
    nothing = not there and len(broken) == len(files)
    if broken and (nothing or remedy is not None):
        total = len({item.path for item in todo.values()})
        raise broken_files(broken, total, remedy or "replace them: no other is left")  # the writer keeps the others
    if broken:
        say(f"{len(broken)} files cannot be decoded and are left out, the first: {min(broken)}")
    writer.finish([key for path in broken for key in files[path]])


def _encoded(groups: Sequence[Sequence[ClipItem]], spec: PackSpec, workers: int | None) -> Iterator[list[Stored] | str]:
    """Yield the clips of each file in order, or why it cannot be read; threads work a bounded number of files ahead."""
    encode, count = Encoder(spec), workers_for(workers)

    def one(items: Sequence[ClipItem]) -> list[Stored] | str:
        try:
            return encode(items)
        except BadAudio as error:
            return str(error)

    with ThreadPoolExecutor(count, thread_name_prefix="pack") as pool:
        waiting: deque[Future[list[Stored] | str]] = deque()
        try:
            for items in groups:
                waiting.append(pool.submit(one, items))
                if len(waiting) >= 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _say_clipped(pack: Pack) -> None:
    lost = int(pack.lost.sum())
    if lost:
        clips = int((pack.lost > 0).sum())
        say(f"{lost} samples in {clips} of {len(pack)} clips are beyond full scale: clipped, as in a 16-bit file")
