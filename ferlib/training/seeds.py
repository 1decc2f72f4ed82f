"""Random numbers as a function of where they are needed: run (seed), epoch, step.

A stream that is drawn from step after step has a state, and a run that was killed has to find it again. Here
no stream outlives a step: each begins with a number made from (seed, purpose, epoch, step), so there is no
state to keep and nothing that a callback, a worker process or a kill could disturb. Chapter 6.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch


def draw_seed(*words: int | str) -> int:
    r"""A seed from words and numbers: the first 63 bits of a hash of them.

    .. math:: \mathrm{seed} = \lfloor \mathrm{BLAKE2b}(\text{words}) / 2 \rfloor \in [0, 2^{63})

    Streams of neighbouring epochs and steps then have nothing in common, which ``seed + epoch`` would not
    promise. Shape: words in, one integer out. Chapter 6.
    """
    code = blake2b(repr(words).encode(), digest_size=8).digest()
    return int.from_bytes(code, "little") >> 1


def generator(*words: int | str) -> torch.Generator:
    """A generator on the CPU that begins with :func:`draw_seed`. Shape: words in, a generator out."""
    return torch.Generator().manual_seed(draw_seed(*words))


@contextmanager
def drawing(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, all global random numbers (torch, NumPy, Python) begin at ``seed``; afterwards they go on as if
    nothing had been drawn.

    ``device``: a GPU whose generator is meant, too. Shape: a number in. Chapter 6.
    """
    gpu = [torch.device(device)] if torch.device(device).type == "cuda" else []
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=gpu):
        torch.default_generator.manual_seed(seed)
        for one in gpu:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
