"""Copies of the same picture within a data set and across its splits, exact or nearly so.

Data sets collected by web search hold many pictures more than once: byte for byte, saved again as JPEG,
mirrored, cut a pixel or two to the side, darkened. A copy in the training set of a face that is evaluated
makes the accuracy too high, and the labels of two copies show how often annotators agree with others.

No library does this for small faces: perceptual hashes of 64 bits (as in `imagehash`) call any two frontal
faces alike. Here all pairs are compared by 48 cosine coefficients, the few that resemble each other by 256
coefficients at all small shifts, and what is left part by part: another expression of the same person differs
from a copy in one part of the picture only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.fft import dct

from ferlib.data.base import DataError, FaceDataset
from ferlib.data.transforms import LUMINANCE, resize

SIDE = 48  # pixels at which faces are compared
NEAR = 0.85  # similarity from which two faces count as copies
SHIFT = 3  # pixels by which one of two copies may be moved, up, down, left and right
_COARSE, _FINE = 7, 16  # cosine coefficients per axis: of the first comparison, and of the second
_CANDIDATE, _RESEMBLING = 0.74, 0.65  # cosines from which a pair is compared again
_FLAT = 1.0  # gray levels: a picture with less structure than this resembles nothing
_CELLS = 8_000_000  # coarse similarities held at once
#: Side of a part, its own shift, and the margin around the 3 x 3 parts, in pixels.
_PART, _PLAY, _EDGE = 13, 2, 4


class TwinPair(NamedTuple):
    """Two copies, each given as (number of the data set, index in it).

    ``kind`` is "exact" (the same pixels), "near" or "mirrored"; ``similarity`` is 1 for exact copies.
    """

    first: tuple[int, int]
    second: tuple[int, int]
    similarity: float
    kind: str


@dataclass(frozen=True)
class Twins:
    """What :func:`find_twins` found in one or several data sets.

    Attributes:
        groups: One int64 tensor per data set with the group of each face; copies share a group, also across
            data sets. Groups are numbered from 0 in the order of their first faces.
        pairs: The copies, in the order of their faces. Of n exact copies the n - 1 pairs with the first one
            are listed, and near copies are listed between those first ones.
    """

    groups: tuple[torch.Tensor, ...]
    pairs: tuple[TwinPair, ...]

    def has_twin(self, dataset: int, other: int | None = None) -> torch.Tensor:
        """Which faces of a data set have a copy in another data set, or among themselves.

        Args:
            dataset: Number of the data set, in the order given to :func:`find_twins`.
            other: Number of the data set in which the copies lie (default: the same data set).

        Returns:
            bool (N,), one for each face of ``dataset``.
        """
        own = self.groups[dataset]
        if other is None or other == dataset:
            return torch.bincount(own)[own] > 1
        return torch.isin(own, self.groups[other])

    def counts(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """How many faces of each data set have a copy in each, where there are any.

        Args:
            names: What the data sets are called, such as "train" and "valid".
        """
        return {
            one: found
            for i, one in enumerate(names)
            if (found := {two: n for j, two in enumerate(names) if (n := int(self.has_twin(i, j).sum()))})
        }


def told(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Counts of copies as lines: "valid: 52 with one in valid and 271 with one in train"."""
    return [
        f"{one}: {' and '.join(f'{n:,} with one in {two}' for two, n in found.items())}"
        for one, found in counts.items()
    ] or ["none"]


def find_twins(*datasets: FaceDataset, near: bool = True, threshold: float = NEAR) -> Twins:
    r"""Find the copies of pictures within and across data sets.

    Exact copies have the same decoded pixels. Near copies (mirrored, compressed again, moved by a pixel
    or two of 48, brighter or darker) have a similarity of at least ``threshold``:

    .. math:: s(x, y) = \min_{1 \le p \le 9}\ \max_{|e| \le 2}\ \cos\bigl(B(T_{d+e}\, x)_p,\ B(M^m y)_p\bigr)

    with B the difference of two Gaussians of 0.7 and 3 pixels, which brightness, shading and noise hardly
    change; p one of 3 x 3 parts of 13 x 13 pixels; M the mirror; and :math:`T_d` the shift by which the whole
    pictures agree best. In words: every part of one picture is found in the other, nearly at the same place.

    Two groups are joined, from the most similar pair on, where at least half of the pairs between them are
    copies. So a chain of similar faces does not become one group.

    28,000 faces take about 20 seconds on one core. Time grows with the square of their number, memory
    linearly.

    Args:
        datasets: One or more data sets, such as the splits of one; colors and sizes may differ.
        near: Search near copies, too.
        threshold: Similarity from which two faces count as copies, at least 0.5. The default was chosen on
            FER+ with 200 pairs that we labeled by eye (record ``twins_ferplus``).

    Returns:
        The groups and the pairs. The same faces in the same order give the same result.

    Raises:
        DataError: No data set was given, the threshold is out of range, or a face cannot be read.

    Chapter 1.
    """
    if not datasets or not 0.5 <= threshold <= 1:
        raise DataError(
            f"{len(datasets)} data sets and threshold={threshold}; expected at least one, and 0.5 to 1"
        )
    place = [(d, i) for d, dataset in enumerate(datasets) for i in range(len(dataset))]
    first: list[int] = []  # of each face, the first one with its pixels
    known: dict[bytes, int] = {}
    small = [torch.empty(0, SIDE, SIDE, dtype=torch.uint8)]
    for dataset, start in ((d, start) for d in datasets for start in range(0, len(d), 256)):
        images = dataset.batch(range(start, min(start + 256, len(dataset))))["image"]
        if near:
            small.append(_gray(images))
        shape = str(tuple(images.shape[1:])).encode()
        for image in images.contiguous().numpy():
            code = hashlib.blake2b(image, digest_size=16, key=shape).digest()
            first.append(known.setdefault(code, len(first)))
    originals = np.unique(np.array(first, dtype=np.int64))
    links = _near_pairs(torch.cat(small)[originals], threshold) if near and len(originals) > 1 else []
    found = [(first[i], i, 1.0, "exact") for i in range(len(place)) if first[i] != i]
    found += [(int(originals[a]), int(originals[b]), s, kind) for a, b, s, kind in links]
    group = np.array(first, dtype=np.int64)
    group[originals] = originals[_join(len(originals), links)]
    group = group[first]
    _, starts, numbers = np.unique(group, return_index=True, return_inverse=True)
    numbered = torch.from_numpy(starts.argsort().argsort()[numbers])
    pairs = (TwinPair(place[a], place[b], round(s, 4), kind) for a, b, s, kind in sorted(found))
    return Twins(numbered.split([len(d) for d in datasets]), tuple(pairs))


def _gray(images: torch.Tensor) -> torch.Tensor:
    """uint8 (n, C, H, W) -> uint8 (n, 48, 48)."""
    if images.shape[1] == 3:
        images = (
            torch.einsum("nchw,c->nhw", images.float(), torch.tensor(LUMINANCE))[:, None]
            .round()
            .to(torch.uint8)
        )
    return resize(images, SIDE)[:, 0]


def _cosines(side: int, count: int) -> torch.Tensor:
    """The first rows of the discrete cosine transform of ``side`` numbers: (count, side)."""
    return torch.from_numpy(dct(np.eye(side), axis=0, norm="ortho")[:count]).float()


def _frequencies(side: int, count: int) -> torch.Tensor:
    u = torch.arange(count) * math.pi / side  # radians per pixel
    return torch.hypot(u[:, None], u[None])


def _band(frequency: torch.Tensor) -> torch.Tensor:
    """What the difference of two Gaussians of 0.7 and 3 pixels keeps of a frequency in radians per pixel."""
    return torch.exp(-0.5 * (0.7 * frequency) ** 2) - torch.exp(-0.5 * (3 * frequency) ** 2)


def _unit(coefficients: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted coefficients (..., k, k) as vectors (..., k * k) of length 1.

    Even horizontal frequencies come first: a mirrored picture has the same, and the odd ones negated.
    """
    weighted = coefficients * weights
    weighted = torch.cat([weighted[..., 0::2].flatten(-2), weighted[..., 1::2].flatten(-2)], -1)
    length = weighted.norm(dim=-1, keepdim=True)
    return torch.where(length > _FLAT, weighted / length.clamp_min(_FLAT), 0.0)


def _near_pairs(faces: torch.Tensor, threshold: float) -> list[tuple[int, int, float, str]]:
    """Pairs (a < b) of uint8 faces (N, 48, 48) that resemble each other: a, b, similarity, kind."""
    total, places, window = len(faces), 2 * SHIFT + 1, SIDE - 2 * SHIFT
    rough = _cosines(SIDE, _COARSE)
    rough_weights = (_frequencies(SIDE, _COARSE) * SIDE / math.pi).sqrt()
    exact = _cosines(window, _FINE)
    moved = torch.zeros(places, _FINE, SIDE)
    for s in range(places):
        moved[s, :, s : s + window] = exact
    weights = _band(_frequencies(window, _FINE))
    coarse, fine = [], []
    for block in faces.split(1024):
        image = block.float()
        coarse.append(_unit(rough @ image @ rough.T, rough_weights))
        fine.append(_unit(moved[SHIFT] @ image @ moved[SHIFT].T, weights))
    even, odd = torch.cat(coarse).split([_COARSE * (_COARSE + 1) // 2, _COARSE * (_COARSE // 2)], 1)
    fine_even, fine_odd = torch.cat(fine).split(_FINE * _FINE // 2, 1)
    rows, stacked = max(16, min(512, _CELLS // total)), moved.flatten(0, 1)
    found: list[tuple[int, int, float, str]] = []
    for start in range(0, total, rows):
        similarity = (odd[start : start + rows] @ odd[start:].T).abs_()
        similarity.addmm_(even[start : start + rows], even[start:].T)
        row, column = torch.nonzero(similarity > _CANDIDATE, as_tuple=True)
        row, column = row[column > row], column[column > row]
        image = faces[start : start + rows].float()
        shifted = (stacked @ image @ stacked.T).reshape(-1, places, _FINE, places, _FINE).transpose(2, 3)
        shifted = _unit(shifted.flatten(1, 2), weights)
        others = (column + start).split(torch.bincount(row, minlength=len(image)).tolist())
        alike = []
        for r, other in enumerate(others):
            e = shifted[r, :, : fine_even.shape[1]] @ fine_even[other].T
            o = shifted[r, :, fine_even.shape[1] :] @ fine_odd[other].T
            best, shift = torch.cat([e + o, e - o]).max(0)  # first half as they are, second half mirrored
            keep = best > _RESEMBLING
            alike.append(torch.stack([torch.full_like(shift, start + r), other, shift], 1)[keep])
        for part in torch.cat(alike).split(1024):
            a, b, shift = part.unbind(1)
            mirrored = shift >= places**2
            same = _worst_part(faces[a], faces[b], mirrored, shift % places**2)
            found += [
                (int(a[k]), int(b[k]), float(same[k]), "mirrored" if mirrored[k] else "near")
                for k in torch.nonzero(same >= threshold)[:, 0].tolist()
            ]
    return found


def _worst_part(
    one: torch.Tensor, two: torch.Tensor, mirrored: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """The similarity (n,) of pairs of uint8 faces (n, 48, 48): of nine parts that which is found least."""
    both = torch.stack([one, torch.where(mirrored[:, None, None], two.flip(2), two)]).float()
    basis = _cosines(SIDE, SIDE)
    both = basis.T @ ((basis @ both @ basis.T) * _band(_frequencies(SIDE, SIDE))) @ basis
    side = 3 * _PART
    windows = both[0].unfold(1, side, 1).unfold(2, side, 1)
    fixed = both[1, :, _EDGE : _EDGE + side, _EDGE : _EDGE + side]

    def parts(product: torch.Tensor) -> torch.Tensor:
        return product.reshape(-1, 3, _PART, 3, _PART).sum((2, 4))

    energy = parts(fixed * fixed)
    floor = 0.02 * energy.mean((1, 2), keepdim=True) + 1e-3  # an empty part is like another empty part
    places, last = 2 * SHIFT + 1, windows.shape[1] - 1
    down, right = shift // places - SHIFT + _EDGE, shift % places - SHIFT + _EDGE
    best = torch.full_like(energy, -1)
    for y in range(-_PLAY, _PLAY + 1):
        for x in range(-_PLAY, _PLAY + 1):
            window = windows[torch.arange(len(one)), (down + y).clamp(0, last), (right + x).clamp(0, last)]
            product = parts(window * fixed) + floor
            torch.maximum(best, product / ((parts(window * window) * energy).sqrt() + floor), out=best)
    return best.flatten(1).amin(1)


def _join(count: int, links: list[tuple[int, int, float, str]]) -> np.ndarray:
    """The first member of the group of each of ``count`` faces."""
    linked = {link[:2] for link in links}
    members = {i: [i] for link in links for i in link[:2]}
    leader = np.arange(count)
    for a, b, *_ in sorted(links, key=lambda link: (-round(link[2], 4), link[:2])):
        one, two = sorted((int(leader[a]), int(leader[b])))
        if one == two:
            continue
        between = [(min(i, j), max(i, j)) in linked for i in members[one] for j in members[two]]
        if 2 * sum(between) >= len(between):
            members[one] += members.pop(two)
            leader[members[one]] = one
    return leader
