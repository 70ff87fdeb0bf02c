"""Reading training checkpoints that hold more than weights, without running or building anything of it.

Lightning's files keep the training script's settings as pickled objects beside the tensors, others numpy's scalars or
arrays (PANNs' the order of the clips). Here only tensors and plain containers are built; whatever else a file names is
neither imported nor called. Both forms of torch's files are read: the zip archive (since 1.6), and the older stream.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from torch import Tensor

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Inert(dict):
    """Takes the place of an object of any other class; holds nothing."""

    stands_for: ClassVar[str] = "of an unknown class"
    """The class in whose place it stands, as the file names it."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """Make a stand-in, whatever the arguments."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        """Drop the object's state."""

    def append(self, _: Any) -> None:
        """Drop an element."""

    def extend(self, _: Any) -> None:
        """Drop elements."""

    def add(self, _: Any) -> None:
        """Drop an element."""


def _tensor(flat: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return flat.as_strided(size, stride, offset)  # torch itself refuses what would lie outside


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): torch.Size,
}


_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
"""The first object in a file of the older form."""


class _Reader(pickle.Unpickler):
    """Looks up what is in ``_ALLOWED`` and nothing else.

    storage: gives the flat tensor behind a key, from its type and number of values.
    """

    def __init__(self, file: IO[bytes], storage: Callable[[str, torch.dtype, int], Tensor]) -> None:
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (known := _ALLOWED.get((module, name))) is not None:
            return known
        return type("Inert", (Inert,), {"stands_for": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, numel, *view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"a stored {kind} of an unknown type")
        flat = self._storage(key, dtype, numel)
        if not view or view[0] is None:
            return flat
        _, begin, size = view[0]
        return flat[begin : begin + size]


def read_weights_only(file: Path) -> Any:
    """Return what a torch file holds, with :class:`Inert` for foreign objects.

    Raises :class:`pickle.UnpicklingError` for a file that is no torch file, or holds what cannot be left out.
    """
    try:
        return _read_archive(file) if zipfile.is_zipfile(file) else _read_stream(file)
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle can end in an error of any kind
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None


def _read_archive(file: Path) -> Any:
    with zipfile.ZipFile(file) as archive:
        pickled = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if pickled is None:
            raise pickle.UnpicklingError("no data.pkl in the archive")
        folder = pickled.rpartition("/")[0]
        read: dict[str, Tensor] = {}

        def storage(key: str, dtype: torch.dtype, _: int) -> Tensor:
            if key not in read:
                raw = bytearray(archive.read(f"{folder}/data/{key}"))
                read[key] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
            return read[key]

        with archive.open(pickled) as stream:
            return _Reader(stream, storage).load()


def _read_stream(file: Path) -> Any:
    """Read the older form: magic number, version, machine, the objects, the keys of storages, then their values."""
    stored: dict[str, Tensor] = {}

    def storage(key: str, dtype: torch.dtype, numel: int) -> Tensor:
        return stored.setdefault(key, torch.empty(numel, dtype=dtype))

    with file.open("rb") as stream:
        if _Reader(stream, storage).load() != _STREAM_MAGIC:
            raise pickle.UnpicklingError("no torch file")
        _, _, content, keys = (_Reader(stream, storage).load() for _ in range(4))
        for key in keys:
            flat = stored[key]
            numel = int.from_bytes(stream.read(8), "little")
            raw = bytearray(stream.read(numel * flat.element_size()))
            if len(raw):
                flat.copy_(torch.frombuffer(raw, dtype=flat.dtype))  # shorter than it should be: an error
    return content
