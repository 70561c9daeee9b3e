"""Small smooth networks for the diffusion tests: no kinks, so that float64 means float64."""

import math

import torch
from torch import Tensor, nn

from dclip.diffusion.schedule import Schedule


class SmoothNet(nn.Module):
    """Two convolutions with tanh between, and a time embedding; random weights by ``seed``."""

    def __init__(self, seed: int = 0, channels: int = 8, strength: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def weight(*shape: int) -> nn.Parameter:
            fan_in = math.prod(shape[1:])
            draw = torch.randn(shape, generator=generator, dtype=torch.float64)
            return nn.Parameter(strength * draw / math.sqrt(fan_in))

        self.first = weight(channels, 3, 3, 3)
        self.time = weight(channels, 2)
        self.last = weight(3, channels, 3, 3)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        assert t.dtype == torch.int64 and t.shape == (x.shape[0],) and int(t.min()) >= 1
        u = t.to(x.dtype)[:, None] / 100
        bias = torch.cat([u.sin(), u.cos()], dim=1) @ self.time.T
        h = nn.functional.conv2d(x, self.first, padding=1) + bias[:, :, None, None]
        return nn.functional.conv2d(h.tanh(), self.last, padding=1)


class Oracle:
    """Knows the photo, and so predicts the very noise that leads from it to ``x``."""

    def __init__(self, schedule: Schedule, x0: Tensor) -> None:
        self.schedule, self.x0 = schedule, x0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        a, b = self.schedule.gather(t, x)
        return (x - a * self.x0) / b


class Gaussian:
    """The best network for pixels drawn from N(mean, std^2); linear in ``x``."""

    def __init__(self, schedule: Schedule, mean: float, std: float) -> None:
        self.schedule, self.mean, self.std = schedule, mean, std

    def slope(self, t: int) -> float:
        a, b = self.schedule.coefficients(t)
        return b / ((a * self.std) ** 2 + b**2)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        label = int(t[0])
        a, _ = self.schedule.coefficients(label)
        return self.slope(label) * (x - a * self.mean)


class Counting:
    """Counts the calls and keeps the labels that the wrapped network was asked at."""

    def __init__(self, model: object) -> None:
        self.model, self.labels = model, list[int]()

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        assert bool((t == t[0]).all())
        self.labels.append(int(t[0]))
        return self.model(x, t)  # type: ignore[operator]


def photos(n: int = 2, size: int = 8, seed: int = 0) -> Tensor:
    """Random float64 (n,3,size,size) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((n, 3, size, size), generator=generator, dtype=torch.float64) * 2 - 1


def normal(n: int = 2, size: int = 8, seed: int = 1) -> Tensor:
    """Standard normal float64 (n,3,size,size)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, 3, size, size), generator=generator, dtype=torch.float64)
