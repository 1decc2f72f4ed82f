"""Published lists of difficult photographs: the faces of a data set that are occluded, or turned away.

Wang et al. (Region Attention Networks, 2020) listed the occluded faces of RAF-DB, FER+ and AffectNet, and
those turned by more than 30 and 45 degrees; later papers report on these lists. A line names one photograph,
with or without its class's folder, ending or further columns: ``0/test_0004_aligned.jpg``,
``test_0003_aligned 3 4``, ``2/fer0032227.jpg``.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from ferlib.data.base import DataError, FaceDataset
from ferlib.data.images import SourceDataset


def face_names(faces: FaceDataset) -> list[str]:
    """The names of a data set's files, in its order, without reading them.

    Shape: N faces in, N strings out. Raises ``DataError`` where they have none (drawn faces). Chapter 7.
    """
    if isinstance(faces, SourceDataset):
        return faces.names
    inner = getattr(faces, "faces", None)
    if not isinstance(inner, FaceDataset):
        raise DataError(f"{type(faces).__name__}: its faces are not files, so no list can name them")
    names = face_names(inner)
    rows = getattr(faces, "rows", None)
    return names if rows is None else [names[row] for row in torch.as_tensor(rows).tolist()]


def listed_rows(faces: FaceDataset, path: str | Path) -> Tensor:
    """Which of a data set's faces a list names: their rows, ascending.

    Shape: N faces and a text file in, int64 (n,) out. Raises ``DataError`` for a file that cannot be read and
    a list that names none of the faces. Wang et al. 2020. Chapter 7.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable list of faces ({error})") from None
    wanted: set[str] = set()
    for line in lines:
        if fields := line.split():
            wanted.update(_stem(part) for part in PurePosixPath(fields[0].replace("\\", "/")).parts)
    names = [_stem(PurePosixPath(name).name) for name in face_names(faces)]
    rows = [i for i, name in enumerate(names) if name in wanted]
    if not rows:
        first = next((line for line in lines if line.strip()), "nothing")
        raise DataError(
            f"{path.name} names none of the {len(names)} faces: it begins with {first!r}, the faces with "
            f"{names[0]!r}; is it of another data set or split?"
        )
    return torch.tensor(rows)


def _stem(name: str) -> str:
    return PurePosixPath(name).stem
