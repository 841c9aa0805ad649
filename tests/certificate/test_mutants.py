"""Every mutant of a certified model is found by repeating the certificate, and what is the same function passes.

The oracle is that of ``tests/mutations``: original and mutant with the same weights in float64. ``pytest tests/certificate/test_mutants.py --thorough``
is the whole campaign.
"""

from __future__ import annotations

import pytest
import torch

from tests.conftest import Figure
from tests.mutations.mutants import mutants
from tests.mutations.test_mutations import PAIRS, same_function
from tests.networks.network import Network
from xbackend_fl.adapter import adapter_of
from xbackend_fl.certificate import Model, certify, lines
from xbackend_fl.mapping.probe.draw import draw_inputs, draw_weights

SHORT = "LSTM classifier"
"""What every run of the suite takes."""


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(pair.values[0], id=pair.id, marks=() if pair.id == SHORT else pytest.mark.slow)
        for pair in PAIRS
    ],
)
def test_every_mutant_is_found(network: Network, figure: Figure, *, thorough: bool) -> None:
    example, model, other = network.example(), network.torch(), network.tensorflow()
    specs = [",".join(map(str, array.shape)) for array in example]
    statement = certify([Model("tensorflow:a", adapter_of(other), other)], example, specs)
    own = adapter_of(model).load_model(model, example).description
    drawn = own.binding.restore(draw_weights(own.schema, 0))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in drawn:
                tensor.copy_(torch.from_numpy(drawn[name]))
    arrays = draw_inputs(own.schema, [array.shape for array in example], 0)
    asked = list(mutants(model, None if thorough else 2))
    expected = {}
    for mutant in asked:
        stricter = "padding_idx" in mutant.what or "no bias" in mutant.what
        expected[mutant.what] = None if stricter else same_function(model, mutant, model.state_dict(), arrays)
    models = [Model(mutant.what, adapter_of(mutant.model), mutant.model) for mutant in asked]
    found = {line.name.removeprefix("model "): line.passed for line in lines(statement, example, models)}
    wrong = {what for what, same in expected.items() if same is not None and found[what] != same}
    assert not wrong
    figure(f"{network.name}: mutants found, of", f"{[*found.values()].count(False)}, {len(asked)}")
