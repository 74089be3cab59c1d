"""Lifting a module: pure, complete, and the same under Pyro's own inference."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pyro.infer
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from torch import nn

from pyro_bnn import LogDensity, UserError, lift
from pyro_bnn.infer import HMC, MCMC
from pyro_bnn.nn import Laplace, Normal, StudentT, categorical, gaussian


@pytest.fixture(autouse=True)
def _seeded():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


def small_net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def small_data():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    return x, x[:, 0] - 0.5 * x[:, 1]


class Buffered(nn.Module):
    """A layer that counts how often it ran."""

    def __init__(self, updating):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.updating = updating
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.updating:
            self.calls += 1
        return self.layer(x) + self.calls


def snapshot(net, x):
    with torch.no_grad():
        return (
            {name: value.clone() for name, value in net.state_dict().items()},
            net(x).clone(),
            {name: parameter.requires_grad for name, parameter in net.named_parameters()},
            {name: id(parameter) for name, parameter in net.named_parameters()},
        )


def assert_same(before, after):
    state, output, flags, identities = before
    assert state.keys() == after[0].keys()
    assert all(torch.equal(state[name], after[0][name]) for name in state)
    assert torch.equal(output, after[1])
    assert (flags, identities) == after[2:]


def test_lift_and_inference_leave_the_module_alone():
    net, (x, y) = small_net(), small_data()
    before = snapshot(net, x)
    bnn = lift(net, prior=Normal())

    def model(x, y=None):
        return gaussian(bnn(x), y, noise=0.5)

    poutine.trace(model).get_trace(x, y)
    mcmc = MCMC(HMC(model, num_steps=3), 5, warmup_steps=5, num_chains=2, disable_progbar=True)
    mcmc.run(x, y)
    guide = AutoNormal(model)
    pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO()).step(x, y)
    assert_same(before, snapshot(net, x))
    assert all(parameter.grad is None for parameter in net.parameters())
    # Nothing was registered with Pyro: the parameters are samples, not parameters to learn.
    assert not [n for n in pyro.get_param_store() if not n.startswith("AutoNormal")]


def test_sites_bear_the_dotted_names_and_shapes_of_the_parameters():
    net, (x, _) = small_net(), small_data()
    trace = poutine.trace(lift(net, prior=Normal())).get_trace(x)
    found = {name: trace.nodes[name]["value"].shape for name in trace.stochastic_nodes}
    assert found == {name: parameter.shape for name, parameter in net.named_parameters()}
    trace = poutine.trace(lift(net, prior=Normal(), prefix="head.")).get_trace(x)
    assert trace.stochastic_nodes[0] == "head.0.weight"


def test_the_output_is_that_of_the_network_with_the_sampled_weights():
    net, (x, _) = small_net(), small_data()
    trace = poutine.trace(lift(net, prior=Normal())).get_trace(x)
    own = small_net()
    own.load_state_dict({name: trace.nodes[name]["value"] for name in trace.stochastic_nodes})
    torch.testing.assert_close(trace.nodes["_RETURN"]["value"], own(x))


def prior_scales(net, **keywords):
    example = torch.zeros(1, 6, 9, 9) if isinstance(net[0], nn.Conv2d) else torch.zeros(1, 3)
    trace = poutine.trace(lift(net, **keywords)).get_trace(example)
    return {n: float(trace.nodes[n]["fn"].base_dist.scale.max()) for n in trace.stochastic_nodes}


def test_fan_in_scale_of_weights_and_of_the_biases_beside_them():
    scales = prior_scales(small_net(), prior=Normal(scale="fan_in", gain=2.0))
    assert scales == pytest.approx(
        {
            "0.weight": 2 / 3**0.5,
            "0.bias": 2 / 3**0.5,
            "2.weight": 2 / 4**0.5,
            "2.bias": 2 / 4**0.5,
        }
    )
    convolution = nn.Sequential(nn.Conv2d(6, 4, 3, groups=2), nn.GroupNorm(2, 4))
    scales = prior_scales(convolution, prior=Normal(scale="fan_in"))
    # Three input channels a group, nine pixels each; a norm's weight meets one input.
    assert scales["0.weight"] == scales["0.bias"] == pytest.approx(27**-0.5)
    assert scales["1.weight"] == scales["1.bias"] == 1.0


def test_a_bias_has_the_inputs_of_the_weight_of_its_name():
    found = lift(nn.MultiheadAttention(8, 2), prior=Normal(scale="fan_in")).fan_in
    assert found == dict.fromkeys(
        ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"), 8
    )


def test_first_pattern_that_fits_counts():
    prior = {"0.*": Laplace(3.0), "*.bias": Normal(0.5), "*": StudentT(2.0)}
    scales = prior_scales(small_net(), prior=prior)
    assert scales == {"0.weight": 3.0, "0.bias": 3.0, "2.weight": 2.0, "2.bias": 0.5}


def test_parameters_without_a_prior_are_all_named():
    with pytest.raises(UserError, match=r"no prior for parameter '0\.bias', '2\.bias'"):
        lift(small_net(), prior={"*.weight": Normal()})


def test_frozen_parameters_keep_their_value():
    net, (x, _) = small_net(), small_data()
    bnn = lift(net, prior={"2.*": Normal()}, freeze=["0.*"])
    trace = poutine.trace(bnn).get_trace(x)
    assert trace.stochastic_nodes == ["2.weight", "2.bias"]
    hidden = torch.tanh(net[0](x))
    expected = hidden @ trace.nodes["2.weight"]["value"].mT + trace.nodes["2.bias"]["value"]
    torch.testing.assert_close(trace.nodes["_RETURN"]["value"], expected)
    assert not LogDensity(lambda x: bnn(x), x).value_and_grad(torch.zeros(1, 5))[1].requires_grad


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"prior": {"*": Normal(), "3.*": Normal()}}, r"pattern '3\.\*' fits no parameter"),
        ({"prior": Normal(), "freeze": ["bias"]}, "pattern 'bias' fits no parameter"),
        ({"prior": {}, "freeze": ["*"]}, "no parameter left"),
        ({"prior": {}}, "no prior for parameter '0.weight'"),
    ],
)
def test_patterns_and_freezes_that_lead_nowhere(keywords, sentence):
    with pytest.raises(UserError, match=sentence):
        lift(small_net(), **keywords)


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (nn.Dropout(0.3), r"layer '1' \(Dropout\).*\.eval\(\)"),
        (nn.AlphaDropout(0.3), r"layer '1' \(AlphaDropout\).*\.eval\(\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_in_training_mode_are_refused_and_in_evaluation_mode_lifted(layer, sentence):
    net = nn.Sequential(nn.Linear(3, 4), layer, nn.Linear(4, 1))
    x, y = small_data()
    with pytest.raises(UserError, match=sentence):
        lift(net, prior=Normal())
    bnn = lift(net.eval(), prior=Normal())
    before = snapshot(net, x)
    density = LogDensity(lambda x, y: gaussian(bnn(x), y), x, y)
    assert bool(density.potential(torch.zeros(2, density.dim)).isfinite().all())
    assert_same(before, snapshot(net, x))
    # Switched on after lifting, it is refused when it runs.
    net.train()
    with pytest.raises(UserError, match="random numbers"):
        LogDensity(lambda x, y: gaussian(bnn(x), y), x, y)


def test_batch_norm_in_training_mode_declares_its_statistics():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    x, y = small_data()
    bnn = lift(net, prior=Normal(), prefix="net.")
    trace = pyro.poutine.trace(lambda: gaussian(bnn(x), y)).get_trace()
    values = {name: trace.nodes[f"net.{name}"]["value"] for name, _ in net.named_parameters()}
    # As torch keeps them after one batch, without an average over earlier ones.
    own = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=1.0), nn.Linear(4, 1))
    own.load_state_dict({**own.state_dict(), **values})
    output = own(x)
    for name in ("1.running_mean", "1.running_var"):
        torch.testing.assert_close(trace.nodes[f"net.{name}"]["value"], own.state_dict()[name])
    torch.testing.assert_close(trace.nodes["y"]["fn"].mean, output.squeeze(-1))
    assert not trace.nodes["net.1.running_mean"]["cond_indep_stack"]
    assert isinstance(net[1], nn.BatchNorm1d)
    assert net[1].num_batches_tracked == 0


def test_norms_of_no_statistics_or_of_their_own_are_refused():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False))
    for mode in (True, False):
        with pytest.raises(UserError, match=r"layer '1' \(BatchNorm1d\) keeps no.*nn\.GroupNorm"):
            lift(net.train(mode), prior=Normal())
    net = nn.Sequential(nn.Conv1d(3, 4, 1), nn.InstanceNorm1d(4, track_running_stats=True))
    with pytest.raises(UserError, match=r"layer '1' \(InstanceNorm1d\) is in training mode"):
        lift(net, prior=Normal())


def test_batch_norm_that_is_switched_to_training_after_lifting_is_refused_when_it_runs():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).eval()
    x, y = small_data()
    bnn = lift(net, prior=Normal())
    net.train()
    with pytest.raises(UserError, match=r"buffer '1\..*' changes"):
        LogDensity(lambda x, y: gaussian(bnn(x), y), x, y)


def test_dropout_that_drops_nothing_is_no_obstacle():
    lift(nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.0)), prior=Normal())(torch.zeros(2, 3))


def test_buffers_may_be_read_but_not_updated():
    x, _ = small_data()
    lift(Buffered(updating=False), prior=Normal())(x)
    net = Buffered(updating=True)
    with pytest.raises(UserError, match=r"buffer 'calls' changes"):
        lift(net, prior=Normal())(x)
    assert float(net.calls) == 0.0


def test_sampled_once_though_inside_of_the_data_plate():
    x, _ = small_data()
    labels = torch.randint(3, (20,))
    net = nn.Linear(3, 3)
    bnn = lift(net, prior=Normal(2.0))

    def inside(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=bnn(x)), obs=y)

    def outside(x, y):
        categorical(bnn(x), y)

    traces = [poutine.trace(model).get_trace(x, labels) for model in (inside, outside)]
    node = traces[0].nodes["weight"]
    assert node["value"].shape == (3, 3)
    assert node["fn"].batch_shape == ()
    assert node["cond_indep_stack"] == ()
    assert [f.name for f in traces[0].nodes["y"]["cond_indep_stack"]] == ["data"]
    one, other = (LogDensity(model, x, labels) for model in (inside, outside))
    position = torch.randn(2, 12)
    torch.testing.assert_close(one.potential(position), other.potential(position))


def test_subsampled_data_plate_does_not_scale_the_prior():
    x, y = small_data()
    bnn = lift(nn.Linear(3, 1), prior=Normal())

    def model(x, y):
        with pyro.plate("data", len(x), subsample_size=5) as rows:
            mean = bnn(x[rows]).squeeze(-1)
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y[rows])

    trace = poutine.trace(model).get_trace(x, y)
    trace.compute_log_prob()
    weight = trace.nodes["weight"]
    expected = dist.Normal(0.0, 1.0).log_prob(weight["value"]).sum()
    assert float(weight["log_prob_sum"]) == pytest.approx(float(expected), rel=1e-6)


def test_one_network_may_be_lifted_twice():
    net, (x, y) = small_net(), small_data()
    first, second = (lift(net, prior=Normal(), prefix=f"{k}.") for k in "ab")

    def model(x, y):
        gaussian(first(x) + second(x), y, noise=1.0)

    assert LogDensity(model, x, y).dim == 2 * sum(p.numel() for p in net.parameters())


def test_plain_svi_learns_a_lifted_network():
    x, y = small_data()
    bnn = lift(nn.Linear(3, 1), prior=Normal())

    def model(x, y=None):
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(bnn(x).squeeze(-1), 0.1), obs=y)

    guide = AutoNormal(model, init_scale=0.01)
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), pyro.infer.Trace_ELBO())
    losses = [svi.step(x, y) for _ in range(400)]
    assert sum(losses[-20:]) < 0.1 * sum(losses[:20])
    weight = guide.median()["weight"]
    torch.testing.assert_close(weight, torch.tensor([[1.0, -0.5, 0.0]]), atol=0.05, rtol=0)


def test_plain_pyro_mcmc_samples_a_lifted_network():
    x, y = small_data()
    bnn = lift(nn.Linear(3, 1), prior=Normal())

    def model(x, y=None):
        return gaussian(bnn(x), y, noise=0.1)

    kernel = pyro.infer.NUTS(model)
    mcmc = pyro.infer.MCMC(kernel, num_samples=60, warmup_steps=60, disable_progbar=True)
    mcmc.run(x, y)
    weight = mcmc.get_samples()["weight"]
    assert weight.shape == (60, 1, 3)
    expected = torch.tensor([[1.0, -0.5, 0.0]])
    torch.testing.assert_close(weight.mean(0), expected, atol=0.1, rtol=0)
