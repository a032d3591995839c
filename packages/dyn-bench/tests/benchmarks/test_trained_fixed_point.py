"""The training of a solver of fixed points on a small budget; the real one is `nox -s bench -- run trained-fixed-point`."""

import torch
from matplotlib.figure import Figure
from rich.progress import Progress

from dyn_bench.benchmarks.trained_fixed_point import (
    INPUTS,
    WIDTH,
    Guess,
    StartedAnderson,
    TrainedFixedPoint,
    network,
    solved,
)
from dyn_numerics import Anderson, NeuralAnderson

SMALL = TrainedFixedPoint(iterations=60, problems=128, held_out=32)


def test_training_gains_on_inputs_it_has_not_seen():
    with Progress(disable=True) as progress:
        outcome, again = SMALL.run(progress), SMALL.run(progress)
    found = {m.name: m.value for m in outcome.measurements}
    assert found["evaluations / Anderson's, to 1e-02"] < 0.95
    assert found["evaluations / the fixed-point iteration's, to 1e-04"] < 0.7
    assert outcome.records == again.records
    evaluations = outcome.records["evaluations"]["evaluations"]
    for counts in evaluations.values():
        assert counts == sorted(counts)
    assert evaluations["Anderson"][-1] < evaluations["fixed-point iteration"][-1]
    figure = outcome.pictures["evaluations"]
    assert isinstance(figure, Figure)
    assert figure.axes[0].has_data()


def test_all_methods_find_the_same_fixed_points():
    layer, x = network(), torch.randn(5, INPUTS, generator=torch.Generator().manual_seed(0))
    z, evaluations = solved(layer, x, "anderson", 1e-5)
    torch.testing.assert_close(layer(z, x), z, rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.linalg.matrix_norm(layer.weight, 2), torch.tensor(0.95))
    for method in ("broyden", "fixed_point", NeuralAnderson(initial=Guess())):
        torch.testing.assert_close(solved(layer, x, method, 1e-5)[0], z, rtol=0, atol=1e-3)
    learned = NeuralAnderson(initial=lambda x: z)
    assert solved(layer, x, StartedAnderson(learned), 1e-4)[1].tolist() == [1] * 5
    assert torch.equal(solved(layer, x, Anderson(), 1e-5)[1], evaluations)
    assert z.shape == (5, WIDTH)
