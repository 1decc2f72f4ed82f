"""A small vision transformer over tokens that are already there: the head of POSTER V2, at any width.

Tokens come from three feature levels; a class token is put in front, two blocks mix them, and the class
token, re-weighted by a squeeze-and-excitation block, gives the logits. Chapter 5 builds it piece by piece.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.models.attention import ScaledDotProduct, merge_heads, split_heads


class SelfAttention(nn.Module):
    """Multi-head self-attention: every token asks every token.

    Shape: (B, N, dim) -> (B, N, dim); listeners of ``attention`` get (B, heads, N, N). With ``first_only``,
    the first token alone asks: (B, N, dim) -> (B, 1, dim), a row of the same. Chapter 5.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} cannot be cut into {heads} equal heads")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention = ScaledDotProduct()

    def forward(self, tokens: Tensor, first_only: bool = False) -> Tensor:
        if first_only:
            dim = tokens.shape[-1]
            weight, bias = self.qkv.weight, self.qkv.bias
            asking = F.linear(tokens[:, :1], weight[:dim], bias[:dim])
            parts = asking, *F.linear(tokens, weight[dim:], bias[dim:]).chunk(2, dim=-1)
        else:
            parts = self.qkv(tokens).chunk(3, dim=-1)
        query, key, value = (split_heads(t, self.heads) for t in parts)
        return self.proj(merge_heads(self.attention(query, key, value)))


class Mlp(nn.Module):
    """Two linear maps with a GELU between, alike for every token: (B, N, dim) -> (B, N, dim). Chapter 5."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(tokens)))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    Shape: (B, N, dim) -> (B, N, dim); with ``first_only`` the first token of that, (B, 1, dim).
    Source: Dosovitskiy et al. 2021, equations 2 and 3. Chapter 5.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, tokens: Tensor, first_only: bool = False) -> Tensor:
        mixed = self.attn(self.norm1(tokens), first_only)
        tokens = (tokens[:, :1] if first_only else tokens) + mixed
        return tokens + self.mlp(self.norm2(tokens))


class SqueezeExcite(nn.Module):
    """Multiply a vector by gates computed from itself: x * sigmoid(W2 relu(W1 x)).

    Shape: (B, dim) -> (B, dim). Source: POSTER V2 code; Hu et al. 2018 without the bottleneck. Chapter 5.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)

    def forward(self, vector: Tensor) -> Tensor:
        return vector * torch.sigmoid(self.linear2(torch.relu(self.linear1(vector))))


class TokenTransformer(nn.Module):
    """Class token, positions, transformer blocks, squeeze-and-excitation, logits.

    Shape: tokens (B, N, dim) -> logits (B, C). ``embed`` gives the class token (B, dim) after the blocks.

    Only the class token is read in the end. ``lean`` lets the last block compute no other (its keys and
    values excepted), which saves 10 of its 12 dim^2 multiply-adds per token and changes nothing: True, False,
    or None, which is True in training; evaluation then keeps all tokens for those who look inside. While
    somebody listens to the last block's attention, all tokens are computed.

    Parameters: N = ``tokens``, ``depth`` blocks of ``heads`` heads, MLP of ``mlp_ratio`` * dim hidden units.
    Raises: ``ValueError`` where the tokens have another shape.
    Source: POSTER V2 (arXiv 2301.12149), its ViT: dim 768, depth 2, heads 8, 147 tokens. Chapter 5.
    """

    def __init__(
        self, num_classes: int, *, dim: int = 768, tokens: int = 147, depth: int = 2, heads: int = 8,
        mlp_ratio: float = 4.0, dropout: float = 0.0, lean: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.lean = lean
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, tokens + 1, dim))
        self.blocks = nn.Sequential(*[Block(dim, heads, mlp_ratio) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.se_block = SqueezeExcite(dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dim, num_classes)

    def embed(self, tokens: Tensor) -> Tensor:
        expected = (self.pos_embed.shape[1] - 1, self.pos_embed.shape[2])
        if tuple(tokens.shape[1:]) != expected:
            raise ValueError(f"expected tokens (B, {expected[0]}, {expected[1]}), got {tuple(tokens.shape)}")
        sequence = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed
        for block in self.blocks[:-1]:
            sequence = block(sequence)
        lean = self.training if self.lean is None else self.lean
        last = self.blocks[-1]
        return self.norm(last(sequence, first_only=lean and not last.attn.attention.listeners)[:, 0])

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.dropout(self.se_block(self.embed(tokens))))
