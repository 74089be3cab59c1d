"""MC dropout: masks on the weights are masks on the units, by a loop written out."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_bnn import LogDensity, UserError
from pyro_bnn.infer.guides import Dropout, Ensemble, Training
from pyro_bnn.infer.predict import predict
from pyro_bnn.nn import Horseshoe, categorical, lift

TRAINING = Training(epochs=5, batch_size=8, learning_rate=0.05)


def test_predictions_are_those_of_a_loop_with_the_same_masks(net):
    guide = Dropout(net.density, TRAINING, rate=0.4).fit(seed=0)
    drawn = guide.sample_posterior(50, torch.Generator().manual_seed(1))
    point = {n: v[0] for n, v in net.density.unflatten(guide.state["position"]).items()}
    values = {name: value[0] for name, value in drawn.items()}
    found = predict(net.density, values, net.x, net.y).mean
    kept = []
    for draw in range(50):
        factors = values["2.weight"][draw] / point["2.weight"]
        assert (factors == factors[:1]).all() or torch.allclose(factors, factors[:1].expand(2, 4))
        mask = (factors[0] != 0).double()
        kept.append(mask)
        hidden = torch.relu(net.x @ point["0.weight"].T + point["0.bias"])
        thinned = hidden * mask / (1 - 0.4)  # what nn.Dropout does to its input
        logits = thinned @ point["2.weight"].T + point["2.bias"]
        torch.testing.assert_close(found[draw], logits.softmax(1))
    # 200 Bernoulli variables: 5 standard errors.
    share = float(torch.stack(kept).mean())
    assert abs(share - 0.6) < 5 * (0.6 * 0.4 / 200) ** 0.5
    for name in ("0.weight", "0.bias", "2.bias"):
        assert torch.equal(values[name], point[name].expand(50, *point[name].shape))


def test_the_gradient_reaches_only_what_was_kept(net):
    guide = Dropout(net.density, TRAINING, rate={"2.*": 0.5})
    position = torch.ones(1, net.density.dim).double()
    parameters = guide.start(position, net.density)
    seen = []
    for seed in range(8):
        source = torch.Generator().manual_seed(seed)
        _, gradient = guide.gradient(parameters, net.density, None, [source])
        slope = net.density.unflatten(gradient["position"])["2.weight"][0]
        zero = (slope == 0).all(0)
        assert torch.equal(zero, (slope == 0).any(0))
        seen.append(zero)
    assert 0 < torch.stack(seen).double().mean() < 1


def test_the_first_weight_reads_data_and_keeps_them(net):
    unit, keep = Dropout(net.density, rate=0.25)._units(net.density)
    sites = net.density.sites
    first, last = (sites[name] for name in ("0.weight", "2.weight"))
    assert (keep[first.start : first.stop] == 1).all()
    assert (keep[last.start : last.stop] == 0.75).all()
    assert unit[last.start : last.stop].reshape(2, 4).tolist() == [[1, 2, 3, 4]] * 2


def test_the_scales_of_a_prior_are_no_weights(net):
    bnn = lift(net.net, prior=Horseshoe())
    density = LogDensity(lambda x, y=None: categorical(bnn(x), y), net.x, net.y)
    unit, _ = Dropout(density, rate=0.25)._units(density)
    sites = density.sites.items()
    masked = [name for name, site in sites if bool(unit[site.start : site.stop].any())]
    assert masked == ["2.weight"]


def by_hand(x, y=None):
    w1 = pyro.sample("w1", dist.Normal(torch.zeros(3, 5), 1.0).to_event(2))
    w2 = pyro.sample("w2", dist.Normal(torch.zeros(5, 2), 1.0).to_event(2))
    scale = pyro.sample("scale", dist.HalfNormal(torch.ones(2, 2)).to_event(2))
    with pyro.plate("data", len(x)):
        logits = torch.relu(x @ w1) @ w2 * scale.mean()
        return pyro.sample("y", dist.Categorical(logits=logits), obs=y)


def test_a_network_written_by_hand_names_its_axis(net):
    density = LogDensity(by_hand, net.x.float(), net.y)
    unit, _ = Dropout(density, rate={"w2": 0.5}, axis=0)._units(density)
    site = density.sites["w2"]
    assert unit[site.start : site.stop].reshape(5, 2)[:, 0].tolist() == [1, 2, 3, 4, 5]
    with pytest.raises(UserError, match="site 'scale' is constrained"):
        Dropout(density, TRAINING, rate={"scale": 0.5}).fit()
    with pytest.raises(UserError, match=r"pattern 'w3' fits no weight; they are w1, w2, scale"):
        Dropout(density, TRAINING, rate={"w3": 0.5}).fit()
    with pytest.raises(UserError, match=r"rate is 1\.0"):
        Dropout(density, rate=1.0)


def test_members_are_those_trained_alone(net):
    ensemble = Ensemble(Dropout(net.density, TRAINING, rate=0.3), size=3).fit(seed=4)
    alone = Dropout(net.density, TRAINING, rate=0.3).fit(seed=ensemble.seeds[1])
    torch.testing.assert_close(ensemble.state["position"][1], alone.state["position"][0])
