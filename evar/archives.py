"""Unpacking archives safely: nothing outside the folder, no links, no bombs; all or nothing."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from evar.errors import UserError
from evar.progress import track

MAX_BYTES = 2 << 40
MAX_RATIO = 200
"""An archive that grows more than this when unpacked (audio barely shrinks) is refused."""


class Member(NamedTuple):
    """A file of an archive: its path, its unpacked size, and whether it is a plain file or a folder."""

    name: str
    size: int
    plain: bool


def check_members(archive: Path, members: list[Member]) -> None:
    """Raise :class:`UserError` if a member would land outside the folder, is no plain file, or all are too large."""
    for member in members:
        path = PurePosixPath(member.name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
            raise UserError(f"{archive.name} is refused: its member '{member.name}' would land outside the folder")
        if not member.plain:
            raise UserError(f"{archive.name} is refused: its member '{member.name}' is a link or a special file")
    total = sum(member.size for member in members)
    if total > min(MAX_BYTES, MAX_RATIO * max(archive.stat().st_size, 1 << 20)):
        raise UserError(f"{archive.name} is refused: it would unpack to {total / 1e9:.1f} GB")


def unpack(archive: Path, target: Path) -> None:
    """Unpack a .zip, .tar or .tar.gz into the folder ``target``, which is made only when everything is unpacked.

    If ``target`` exists already, the members are added to it.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, part)
        elif tarfile.is_tarfile(archive):
            _unpack_tar(archive, part)
        else:
            raise UserError(f"{archive} is neither a zip nor a tar archive")
        if target.exists():
            for item in _files(part):
                place = target / item.relative_to(part)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(item, place)
        else:
            os.replace(part, target)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        raise UserError(f"{archive.name} cannot be unpacked: {error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _unpack_zip(archive: Path, part: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        # The upper half of external_attr holds the Unix mode; 0o120000 marks a symbolic link.
        check_members(archive, [Member(i.filename, i.file_size, (i.external_attr >> 28) != 0xA) for i in infos])
        if any(i.flag_bits & 0x1 for i in infos):
            raise UserError(f"{archive.name} is encrypted; unpack it by hand")
        for info in track(infos, f"unpacking {archive.name}", len(infos), "file"):
            opened.extract(info, part)


def _unpack_tar(archive: Path, part: Path) -> None:
    with tarfile.open(archive) as opened:
        infos = opened.getmembers()
        # A tar ends before its file does; only at the very end is the checksum of the compression compared.
        while opened.fileobj is not None and opened.fileobj.read(1 << 20):
            pass
        check_members(archive, [Member(i.name, i.size, i.isfile() or i.isdir()) for i in infos])
        for info in track(infos, f"unpacking {archive.name}", len(infos), "file"):
            opened.extract(info, part, filter="data")
