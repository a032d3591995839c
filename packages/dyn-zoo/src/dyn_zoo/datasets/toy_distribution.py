"""The interface of a two-dimensional toy data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class ToyDistribution(ABC):
    """A distribution on the plane that can be sampled, with labels, without limit.

    A subclass names its number of labels in `n_labels` and implements `_draw`; where its density is known it
    also implements `_log_density` and, where the value is known, overrides `entropy`. All coordinates are
    without units.

    Samples are independent draws, also of the label: classes come in random order and their shares fluctuate
    (the scripts of the literature often draw equal shares).

    Attributes:
        n_labels: number of distinct labels; labels run from 0 to `n_labels - 1` and are equally likely.

    Example:
        A data set of one's own:

        >>> import math
        >>> class Ramp(ToyDistribution):
        ...     n_labels = 1
        ...
        ...     @property
        ...     def entropy(self):
        ...         return 0.5 - math.log(2)
        ...
        ...     def _draw(self, n, generator):
        ...         x = torch.rand(n, 2, generator=generator, device="cpu", dtype=torch.float64)
        ...         x[:, 0] = x[:, 0].sqrt()  # density 2 x₁ on the unit square
        ...         return x, torch.zeros(n, device="cpu", dtype=torch.int64)
        >>> x = Ramp().sample(10_000, seed=0)
        >>> print(f"mean of x₁: {x[:, 0].mean():.2f}, entropy: {Ramp().entropy:.3f} nats")
        mean of x₁: 0.67, entropy: -0.193 nats
    """

    n_labels: ClassVar[int]

    def sample(
        self,
        n: int,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw points.

        Numbers are drawn in float64 by a CPU generator and only then cast and moved: one seed gives the same
        points on every device and, up to rounding, in every dtype. (Across torch versions and for different
        `n` it need not.) With a `seed` or a `generator` the global random state is neither read nor changed.

        Args:
            n: number of points, at least 1.
            seed: seed of a generator used for this call alone, an integer from 0 to 2⁶⁴ - 1. Not with
                `generator`.
            generator: a CPU generator, which moves on. With neither, torch's global CPU generator is used.
            dtype: floating dtype of the points; torch's default dtype if None.
            device: device of the points; torch's default device if None.

        Returns:
            The points, `[n, 2]`.

        Raises:
            TypeError: if an argument has the wrong type, or `dtype` is not a real floating dtype.
            ValueError: if `n` or `seed` is out of range, `generator` does not live on the CPU, or both `seed`
                and `generator` are given.
        """
        return self.sample_labelled(n, seed=seed, generator=generator, dtype=dtype, device=device)[0]

    def sample_labelled(
        self,
        n: int,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw points with the label of the part (arm, ring, square, ...) each was drawn from.

        The points are those that `sample` draws with the same arguments.

        Args:
            n: number of points, at least 1.
            seed: as in `sample`.
            generator: as in `sample`.
            dtype: floating dtype of the points; torch's default dtype if None.
            device: device of points and labels; torch's default device if None.

        Returns:
            The points, `[n, 2]`, and their labels, `[n]`, int64, from 0 to `n_labels - 1`.

        Raises:
            TypeError: as in `sample`.
            ValueError: as in `sample`.
        """
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"n: got {n!r} of type {type(n).__name__}, expected an int")
        if n < 1:
            raise ValueError(f"n: got {n}, expected at least 1")
        generator = _cpu_generator(seed, generator)
        if dtype is None:
            dtype = torch.get_default_dtype()
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"dtype: got {dtype!r}, expected a torch.dtype such as torch.float32")
        if not dtype.is_floating_point:
            raise TypeError(f"dtype: got {dtype}, expected a real floating dtype such as torch.float32")
        if device is None:
            device = torch.get_default_device()

        x, label = self._draw(n, generator)
        # Cast before moving: not every device has float64.
        return x.to(dtype).to(device), label.to(device)

    @property
    def entropy(self) -> float | None:
        """Differential entropy -∫ p log p in nats, or None where it is not known.

        The mean negative log-likelihood of any density on samples of this distribution is this value plus its
        Kullback-Leibler divergence, so this is the floor for a density model.
        """
        return None

    def log_prob(self, x: Tensor) -> Tensor:
        """Logarithm of the density in nats, where the density is known.

        Computed in the dtype of `x`, in float32 for the half-precision dtypes, on its device, and
        differentiable in `x`.

        Args:
            x: points, `[..., 2]`, real floating dtype.

        Returns:
            log p(x), `[...]`, in the dtype of `x`; -inf where the density is 0, NaN where a coordinate is
            NaN.

        Raises:
            NotImplementedError: if the density of this distribution is not known.
            TypeError: if `x` is not a tensor of a real floating dtype.
            ValueError: if the last dimension of `x` does not have size 2.
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"x: got {type(x).__name__}, expected a Tensor of shape [..., 2]")
        if not x.is_floating_point():
            raise TypeError(f"x: got dtype {x.dtype}, expected a real floating dtype such as torch.float32")
        if x.ndim == 0 or x.shape[-1] != 2:
            raise ValueError(f"x: got shape {list(x.shape)}, expected [..., 2]")
        points = x.reshape(-1, 2).to(torch.promote_types(x.dtype, torch.float32))  # [n, 2]
        return self._log_density(points).to(x.dtype).reshape(x.shape[:-1])

    @abstractmethod
    def _draw(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Draw `n` points `[n, 2]`, float64, and labels `[n]`, int64, both on the CPU.

        Draws name `device="cpu"` and `dtype=torch.float64` themselves, so that neither of torch's global
        defaults changes them. `generator` None stands for the global generator, as in torch.
        """

    def _log_density(self, x: Tensor) -> Tensor:
        """Return log p `[n]` at the points `[n, 2]`, which are float32 or float64."""
        raise NotImplementedError(f"{self!r} has no known density, so it has no log_prob")


def _cpu_generator(seed: int | None, generator: torch.Generator | None) -> torch.Generator | None:
    """The generator to draw with; None stands for the global one."""
    if seed is not None and generator is not None:
        raise ValueError("seed, generator: got both, expected at most one of them")
    if seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed: got {seed!r} of type {type(seed).__name__}, expected an int or None")
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed: got {seed}, expected an integer from 0 to 2**64 - 1")
        return torch.Generator(device="cpu").manual_seed(seed)
    if generator is not None:
        if not isinstance(generator, torch.Generator):
            raise TypeError(f"generator: got {type(generator).__name__}, expected a torch.Generator or None")
        if generator.device.type != "cpu":
            raise ValueError(
                f"generator: got one on device {generator.device}, expected a CPU generator "
                "(points are drawn on the CPU and then moved, so that devices agree)"
            )
    return generator
