"""Two-dimensional toy data for density estimation and classification.

Every data set is a distribution that can be sampled without limit, in torch alone and reproducibly, and that
knows its own density and its differential entropy: the smallest mean negative log-likelihood a density model
can reach on it.
"""

from dyn_zoo.datasets.checkerboard import Checkerboard
from dyn_zoo.datasets.eight_gaussians import EightGaussians
from dyn_zoo.datasets.moons import Moons
from dyn_zoo.datasets.pinwheel import Pinwheel
from dyn_zoo.datasets.rings import Rings
from dyn_zoo.datasets.toy_distribution import ToyDistribution
from dyn_zoo.datasets.two_spirals import TwoSpirals

__all__ = [
    "Checkerboard",
    "EightGaussians",
    "Moons",
    "Pinwheel",
    "Rings",
    "ToyDistribution",
    "TwoSpirals",
]
