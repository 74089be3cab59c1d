"""What discovery reads: inputs by name, tokens, memory that is written, masks, other devices."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pyro_bnn.errors import UserError
from pyro_bnn.graph import trace_graph
from pyro_bnn.symmetry import Quotient, activations, discover, null_control
from pyro_bnn.symmetry.computation import to_host
from pyro_bnn.trace import site_dataset


class Layers(nn.Module):
    """Two layers; what lies between them is given."""

    def __init__(self, between):
        super().__init__()
        self.between = between
        self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x, **named):
        return self.between(self, torch.tanh(self.a(x)), **named)


def spaces(group):
    return [(space.size, space.permutable) for space in group.permutable.values()]


def test_inputs_of_a_network_may_have_names():
    def masked(net, h, mask):
        return net.b(h * mask)

    net, x = Layers(masked), torch.zeros(5, 3)
    mask = torch.tensor([0, 0, 0, 1, 1, 2])
    group = discover(net, x, mask=mask)
    assert not group.permutable  # whole numbers are used as they are: the axis is pinned
    assert "not measured" in str(group)
    assert spaces(discover(net, x, mask=torch.tensor(2))) == [(6, True)]
    whole = torch.tensor(2)
    seen = activations(discover(net, x, mask=whole), net, x, mask=whole)
    assert list(seen.group.spaces) == ["h0"]
    with pytest.raises(UserError, match="Layers cannot be evaluated"):
        discover(net, x)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(9, 6), nn.Linear(6, 3)
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, index):
        return self.head(self.layer(self.table(index)).mean(1))


def test_tokens_that_are_all_alike_are_refused():
    """They would attend to each other evenly, and queries and keys seem to be free."""
    with pytest.raises(UserError, match=r"Tokens are all 0.*numbers that differ"):
        discover(Tokens(), torch.zeros(2, 5, dtype=torch.long))
    group = discover(Tokens(), torch.tensor([[0, 3, 5, 1, 1], [2, 6, 4, 8, 7]]))
    assert "layer.self_attn.in_proj_weight" not in {t.site for t in group.translations.values()}


def test_a_layer_written_into_memory_is_in_the_likelihood_and_named():
    def written(net, h):
        rows = torch.zeros(len(h), 6)
        rows[:, :2], rows[:, 2:] = h[:, :2], h[:, 2:]
        return net.b(rows)

    group = discover(Layers(written), torch.zeros(4, 3))
    assert not group.unused
    assert not group.rejected
    assert list(group.unruled) == ["aten.copy_"]


class Projected(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.LSTM(3, 6, proj_size=2, batch_first=True), nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


def test_recurrent_layers_with_projections_are_named():
    group = discover(Projected(), torch.zeros(3, 5, 3))
    assert list(group.unruled) == ["aten.lstm"]
    assert not group.rejected


def test_networks_that_cannot_be_copied_or_have_no_shapes_say_what_to_do():
    with pytest.warns(FutureWarning, match="weight_norm"):
        normed = nn.utils.weight_norm(nn.Linear(3, 4))
    with pytest.raises(UserError, match=r"Linear cannot be copied.*parametrizations"):
        discover(normed, torch.zeros(2, 3))
    with pytest.raises(UserError, match=r"LazyLinear has parameters without a shape"):
        discover(nn.LazyLinear(4), torch.zeros(2, 3))


def test_no_dimension_bears_the_name_of_a_site():
    def model(x):
        start = pyro.sample("h0", dist.Normal(torch.zeros(2, 6), 1.0).to_event(2))
        w = pyro.sample("w", dist.Normal(torch.zeros(3, 6), 1.0).to_event(2))
        v = pyro.sample("v", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(torch.tanh(x @ w + start.sum(0)) @ v, 1.0), obs=x[:, 0])

    group = discover(model, torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    draws = {site: torch.zeros(2, 4, *shape) for site, shape in group.shapes.items()}
    found = site_dataset(draws, group.dims)
    assert found["h0"].dims[-1] == found["v"].dims[-1] == "h1"


def test_a_computation_on_another_device_is_read_on_the_cpu():
    """Without a GPU: tensors that know their device and have no data."""
    with FakeTensorMode():
        x = torch.empty(4, 3, device="cuda")

        def function(w):
            return torch.relu(x @ w) + torch.ones(5, device=w.device) * w.new_ones(5)

        graph = trace_graph(function, torch.empty(3, 5, device="cuda"))
        weights = torch.empty(3, 5, dtype=torch.float64)
        with pytest.raises(RuntimeError, match="cuda"):
            graph(weights)
        found = to_host(graph)(weights)
        assert (found.device.type, found.dtype) == ("cpu", torch.float64)


def test_a_number_without_effect_is_one_to_which_anything_may_be_added():
    def model(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3, 4), 1.0).to_event(2))
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=torch.tanh(x @ w) + level), obs=y)

    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    group = discover(model, x, torch.tensor([0, 1, 2, 3, 0, 1]))
    assert {t.site for t in group.translations.values()} == {"level"}
    draws = {site: torch.ones(2, *shape) for site, shape in group.shapes.items()}
    canonical, element = Quotient(group).canonicalize(draws)
    assert torch.equal(canonical["level"], torch.zeros(2))
    assert torch.equal(element.inverse().apply(canonical)["level"], draws["level"])
    control = null_control(
        group,
        {s: torch.randn(6, *v.shape[1:]) for s, v in draws.items()},
        {s: torch.randn(6, *v.shape[1:]) for s, v in draws.items()},
    )
    assert -1 <= control.null.cosine <= 1
