"""The three networks in torch, as they are trained; parameter names are those of the weight files.

`workloads.forward` computes the same functions in NumPy, `train.graphs` as ONNX, and `workloads.device` with these
modules on whatever torch can compute on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Pre-norm transformer block: rotary local attention, SiLU feed-forward, no biases but in the norms."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, past: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The next hidden states, and `past` (keys and values of earlier positions) grown by these."""
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, *rotary), rotate(k, *rotary)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.silu(self.up(self.norm2(x)))), torch.stack([k, v])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864) on the two halves of the last axis."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Gpt(nn.Module):
    """Byte-level decoder with tied embeddings."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        torch.randn(width, 8)  # unused; the published weights were initialised after this draw
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = 0.02 if "embed" in name else parameter.shape[1] ** -0.5
                if name.endswith(("out.weight", "down.weight")):
                    scale *= (2 * layers) ** -0.5
                nn.init.normal_(parameter, std=scale)

    def forward(self, tokens: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x, _ = block(x, (cos, sin), mask)
        return F.linear(self.norm(x), self.embed.weight)

    def read(
        self, tokens: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `workloads.forward.TextNetwork`: logits, hidden states, and `past` grown by these tokens."""
        x, present = self.embed(tokens), []
        for layer, block in enumerate(self.blocks):
            x, grown = block(x, (cos, sin), mask, past[2 * layer : 2 * layer + 2])
            present.append(grown)
        x = self.norm(x)
        return F.linear(x, self.embed.weight), x, torch.cat(present)


class ResBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice; the condition is added between."""

    def __init__(self, channels_in: int, channels_out: int, condition: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.cond = nn.Linear(condition, channels_out)
        self.norm2 = nn.GroupNorm(groups, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.cond(c)[:, :, None, None]
        y = self.conv2(F.silu(self.norm2(y)))
        out: Tensor = self.skip(x) + y
        return out


class UNet(nn.Module):
    """Three resolutions (16, 8, 4); predicts v (arXiv 2202.00512) from x f4[b, 1, 16, 16] and features f4[b, f]."""

    def __init__(self, features: int, condition: int, channels: tuple[int, int, int], groups: int) -> None:
        super().__init__()
        a, b, c = channels
        self.cond1 = nn.Linear(features, condition)
        self.cond2 = nn.Linear(condition, condition)
        self.head = nn.Conv2d(1, a, 3, padding=1)
        self.res1 = ResBlock(a, a, condition, groups)
        self.down1 = nn.Conv2d(a, b, 3, stride=2, padding=1)
        self.res2 = ResBlock(b, b, condition, groups)
        self.down2 = nn.Conv2d(b, c, 3, stride=2, padding=1)
        self.res3 = ResBlock(c, c, condition, groups)
        self.res4 = ResBlock(c, c, condition, groups)
        self.res5 = ResBlock(c + b, b, condition, groups)
        self.res6 = ResBlock(b + a, a, condition, groups)
        self.norm = nn.GroupNorm(groups, a)
        self.tail = nn.Conv2d(a, 1, 3, padding=1)
        nn.init.zeros_(self.tail.weight)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        c = F.silu(self.cond2(F.silu(self.cond1(features))))
        h1 = self.res1(self.head(x), c)
        h2 = self.res2(self.down1(h1), c)
        y = self.res4(self.res3(self.down2(h2), c), c)
        y = self.res5(torch.cat([F.interpolate(y, scale_factor=2.0), h2], dim=1), c)
        y = self.res6(torch.cat([F.interpolate(y, scale_factor=2.0), h1], dim=1), c)
        out: Tensor = self.tail(F.silu(self.norm(y)))
        return out


class Embedder(nn.Module):
    """Hashed n-gram counts f4[n, buckets] -> table -> residual feed-forward -> unit vectors f4[n, d]."""

    def __init__(self, buckets: int, width: int, hidden: int) -> None:
        super().__init__()
        self.table = nn.Linear(buckets, width, bias=False)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        nn.init.normal_(self.down.weight, std=0.01)

    def forward(self, counts: Tensor) -> Tensor:
        x = self.norm(self.table(counts))
        return F.normalize(x + self.down(F.silu(self.up(x))), dim=-1)
