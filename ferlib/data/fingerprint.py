"""A short code for the content of a data set, so that two results can be known to be of the same faces."""

from __future__ import annotations

import hashlib

import torch

from ferlib.data.base import FaceDataset


def fingerprint(data: FaceDataset, sample: int | None = None) -> str:
    """SHA-256 of all class names, labels and pixels, in their order, cut to 16 digits.

    One changed label, one changed pixel, another order or another size of picture gives another code. Files
    that are decoded one by one are all read for it; ``sample`` takes that many evenly spaced images only (of
    data sets too large to be read twice), and then a change in the others is not seen. Drawn faces may differ
    between processors by the rounding of a pixel, and then their code does, though they are the same people.

    Shape: N faces in, 16 hexadecimal digits out. Raises ``DataError`` where an image cannot be read, and
    ``ValueError`` for a sample below 1. Chapter 7.
    """
    if sample is not None and sample < 1:
        raise ValueError(f"sample is {sample}: expected at least one image, or None for all")
    count = len(data) if sample is None else min(sample, len(data))
    code = hashlib.sha256("\n".join(data.classes).encode())
    code.update(torch.as_tensor(data.labels).cpu().numpy().astype("<i8").tobytes())
    rows = [i * len(data) // count for i in range(count)]
    for start in range(0, count, 256):
        images = data.batch(rows[start : start + 256])["image"].contiguous()
        code.update(f"{tuple(images.shape[1:])}".encode())
        code.update(images.numpy())
    return code.hexdigest()[:16]
