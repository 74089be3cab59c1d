"""What discovery reads: one network as an ATen graph in float64 with named weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import biject_to, constraints
from torch.func import vmap
from torch.fx import GraphModule, Node
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from pyro_bnn.errors import UserError
from pyro_bnn.graph import constant_fold, trace_graph
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.sites import is_identity

RUNNING_MEAN, RUNNING_VAR = 3, 4
LOUD = 4.0


@dataclass(frozen=True)
class Weight:
    """One tensor that the group acts on.

    Attributes
    ----------
    shape : tuple of int
    support : Constraint
        Real, positive, or anything else (which nothing may act on).
    center : Tensor or None
        Value around which generic points are drawn.
    statistic : bool
        Whether it is a running statistic rather than a weight.
    """

    shape: tuple[int, ...]
    support: constraints.Constraint
    center: Tensor | None = None
    statistic: bool = False

    @property
    def kind(self) -> str:
        """``real``, ``positive`` or ``other``."""
        support = self.support
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        if support is constraints.real:
            return "real"
        positive = (constraints.positive, constraints.nonnegative)
        return "positive" if any(support is p for p in positive) else "other"


@dataclass(frozen=True)
class Computation:
    """A pure function of named weights, and its graph.

    Attributes
    ----------
    graph : GraphModule
        ATen graph in float64, on the CPU; one placeholder a weight.
    weights : dict of str to Weight
        In order of the placeholders.
    log_prior : callable, optional
        Log prior density of each site, ``(batch, site)``, of weights with a leading batch axis.
    """

    graph: GraphModule
    weights: dict[str, Weight]
    log_prior: Callable[[Mapping[str, Tensor]], Tensor] | None = None

    def __call__(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Evaluate the function at float64 weights."""
        with torch.no_grad():
            out = self.graph(*(weights[name] for name in self.weights))
        tensors = [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor)]
        return torch.cat([tensor.reshape(-1).double() for tensor in tensors])

    def live(self) -> set[Node]:
        """Return the nodes that the output depends on, through memory that is written too."""
        writes: dict[Node, list[Node]] = {}
        for node in self.graph.graph.nodes:
            if is_write(node):
                writes.setdefault(memory_of(node), []).append(node)
        reached: set[Node] = set()
        waiting = [node for node in self.graph.graph.nodes if node.op == "output"]
        while waiting:
            node = waiting.pop()
            if node not in reached:
                reached.add(node)
                waiting.extend(node.all_input_nodes)
                waiting.extend(writes.get(memory_of(node), []))
        return reached

    def placeholders(self) -> dict[str, Node]:
        """Return the node of every weight."""
        nodes = [node for node in self.graph.graph.nodes if node.op == "placeholder"]
        return dict(zip(self.weights, nodes, strict=True))

    def unused(self) -> tuple[str, ...]:
        """Return the weights that the output does not depend on."""
        live = self.live()
        return tuple(name for name, node in self.placeholders().items() if node not in live)

    def generic_point(self, generator: torch.Generator, size: float = 1.0) -> dict[str, Tensor]:
        """Draw weights at a point without accidental symmetry.

        Parameters
        ----------
        generator : torch.Generator
        size : float
            Scale of the weights with two axes or more. Small weights hide much: tokens that
            attend to one another a few times over are nearly equal.
        """
        point = {}
        for name, weight in self.weights.items():
            transform: Any = biject_to(weight.support)
            shape = transform.inverse_shape(torch.Size(weight.shape))
            noise = torch.randn(shape, generator=generator, dtype=torch.float64)
            if weight.kind == "real" and len(weight.shape) > 1:
                fan_in = weight.shape[0] if len(weight.shape) == 2 else 1
                fan_in = max(fan_in, math.prod(weight.shape[1:]))
                point[name] = size * noise * math.sqrt(1.5 / fan_in)
            elif weight.center is not None and weight.kind == "real":
                point[name] = weight.center.double() + 0.3 * noise
            else:
                point[name] = transform(0.3 * noise)
        return point


def is_write(node: Node) -> bool:
    """Whether a node writes into the memory of its first argument."""
    schema: Any = getattr(node.target, "_schema", None)
    alias = schema.arguments[0].alias_info if schema is not None and schema.arguments else None
    return alias is not None and bool(alias.is_write)


def memory_of(node: Node) -> Node:
    """Follow views, and writes, back to the node in whose memory the result of a node lies."""
    while node.op == "call_function" and node.args and isinstance(node.args[0], Node):
        schema: Any = getattr(node.target, "_schema", None)
        if schema is None or all(result.alias_info is None for result in schema.returns):
            break
        node = node.args[0]
    return node


def from_density(density: Any) -> Computation:
    """Read the log likelihood of a model."""
    graph: GraphModule = copy.deepcopy(density.likelihood_graph())
    names = graph.meta.get("sites", tuple(density.sites))
    log_prior = _log_prior(density) if hasattr(density, "log_prior") else None
    return Computation(to_host(graph), weights_of(density, names), log_prior)


def weights_of(density: Any, names: Sequence[str]) -> dict[str, Weight]:
    """Return what the group may act on: latent sites, and running statistics."""
    weights = {}
    for name in names:
        if name in density.sites:
            site = density.sites[name]
            weights[name] = Weight(tuple(site.shape), site.support)
        else:
            shape, positive = density.statistics[name]
            support = constraints.positive if positive else constraints.real
            weights[name] = Weight(tuple(shape), support, statistic=True)
    return weights


def prior_graph(density: Any) -> GraphModule:
    """Trace the log prior of each site in its own space, ``(site,)``, in float64, on the CPU.

    The network that the model calls is dead code there: nothing of it is evaluated.
    """
    names = tuple(density.sites)

    def log_prior(*values: Tensor) -> Tensor:
        some = density.some
        trace = density.trace_at(dict(zip(names, values, strict=True)), *some.args, **some.kwargs)
        return torch.stack([trace.nodes[name]["log_prob_sum"] for name in names])

    somewhere = density.example_values()
    return to_host(trace_graph(log_prior, *(somewhere[name] for name in names)))


def _log_prior(density: Any) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """Return the log prior of each site in unconstrained space, Jacobians included."""
    graph: list[GraphModule] = []  # traced when it is first asked for

    def log_prior(params: Mapping[str, Tensor]) -> Tensor:
        if not graph:
            graph.append(prior_graph(density))
        with torch.no_grad():
            found: Tensor = vmap(graph[0])(*(params[name] for name in density.sites))
            for number, site in enumerate(density.sites.values()):
                if not is_identity(site.transform):
                    value = params[site.name]
                    position = site.transform.inv(value)
                    jacobian = site.transform.log_abs_det_jacobian(position, value)
                    found[:, number] += jacobian.reshape(len(value), -1).sum(1)
        return found

    return log_prior


def _unreadable(
    module: nn.Module, inputs: Sequence[Any], named_inputs: Mapping[str, Any]
) -> UserError:
    """Say why a module has no graph: it does not take the example, or it branches on values."""
    name = type(module).__name__
    try:
        with torch.no_grad():
            module(*inputs, **named_inputs)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        return UserError(
            f"{name} cannot be evaluated on the example input that was given with it "
            f"({type(error).__name__}: {reason}): give discover() the module and one input of the "
            "shape that it takes."
        )
    return UserError(
        f"{name} cannot be read as one fixed computation: its control flow depends on values (if, "
        "while, .item()); replace the branch by torch.where, or give the part without it."
    )


def from_module(
    module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], *, noise: bool = True
) -> Computation:
    """Read a module in evaluation mode, at noise of the shape of the example or at the example.

    The running statistics of batch norm count as weights: the group acts on them too.
    """
    if noise:
        _refuse_uniform_numbers(module, (args, kwargs))
    module = _copied(module).eval()
    state: dict[str, Tensor] = dict(module.named_parameters())
    parameters = set(state)
    state |= {k: b for k, b in module.named_buffers() if b.is_floating_point()}
    names = list(state)
    inputs, named_inputs = tuple(args), dict(kwargs)
    if noise:
        inputs, named_inputs = pytree.tree_map(_generic, (inputs, named_inputs))

    def function(*values: Tensor) -> Any:
        weights = dict(zip(names, values, strict=True))
        return torch.func.functional_call(module, weights, inputs, named_inputs)

    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        graph = trace_graph(function, *(t.detach() for t in state.values()), pre_dispatch=True)
    except Exception as error:
        raise _unreadable(module, inputs, named_inputs) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    weights: dict[str, Weight] = {}
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for name, node in zip(names, placeholders, strict=True):
        tensor = state[name].detach().cpu()
        roles = {
            user.args.index(node)
            for user in node.users
            if "batch_norm" in str(user.target) or "instance_norm" in str(user.target)
        }
        statistics = bool(node.users) and roles <= {RUNNING_MEAN, RUNNING_VAR} and len(roles) == 1
        if name in parameters or statistics:
            positive = roles == {RUNNING_VAR}
            support = constraints.positive if positive else constraints.real
            weights[name] = Weight(tuple(tensor.shape), support, tensor, statistics)
        else:
            attribute = f"_buffer_{len(weights)}_{node.name}"
            graph.register_buffer(attribute, tensor)
            with graph.graph.inserting_before(node):
                constant = graph.graph.get_attr(attribute)
            node.replace_all_uses_with(constant)
            graph.graph.erase_node(node)
    constant_fold(graph)
    return Computation(to_host(graph), weights)


def is_network(source: Any) -> bool:
    """Whether an object is a network, and not a model."""
    return isinstance(source, nn.Module) and not isinstance(source, PyroModule)


def computation(source: Any, *args: Any, **kwargs: Any) -> Computation:
    """Read a log density, a module with an example input, or a Pyro model with its data."""
    if hasattr(source, "likelihood_graph") and hasattr(source, "sites"):
        return from_density(source)
    if is_network(source):
        return from_module(source, args, kwargs)
    if callable(source):
        return from_density(LogDensity(source, *args, **kwargs))
    raise UserError(
        f"discover() cannot read an object of type {type(source).__name__}: give it a "
        "LogDensity, a Pyro model with its data, or a torch.nn.Module with an example input."
    )


def to_host(graph: GraphModule) -> GraphModule:
    """Take a graph to the CPU and to float64, in place: its constants and what it makes."""
    low = {torch.float16, torch.bfloat16, torch.float32}

    def moved(argument: Any) -> Any:
        if isinstance(argument, torch.device):
            return torch.device("cpu")
        return torch.float64 if isinstance(argument, torch.dtype) and argument in low else argument

    for node in graph.graph.nodes:
        if node.op == "get_attr":
            tensor = getattr(graph, str(node.target))
            if isinstance(tensor, Tensor):
                dtype = torch.float64 if tensor.dtype in low else tensor.dtype
                setattr(graph, str(node.target), tensor.detach().to("cpu", dtype))
        elif node.op == "call_function":
            node.args = pytree.tree_map(moved, node.args)
            node.kwargs = {key: moved(argument) for key, argument in node.kwargs.items()}
            made = node.meta.get("val")
            if not node.all_input_nodes and isinstance(made, Tensor) and made.dtype in low:
                # what is made from nothing has torch's default type, unless another is named
                node.kwargs = {**node.kwargs, "dtype": torch.float64}
    graph.recompile()
    return graph


def _generic(argument: Any) -> Any:
    """Replace a floating example by noise of its shape: its values must not look symmetric."""
    if isinstance(argument, Tensor) and argument.is_floating_point():
        generator = torch.Generator().manual_seed(0)
        return torch.randn(argument.shape, generator=generator).to(argument)
    return argument


def _copied(module: nn.Module) -> nn.Module:
    """Copy a network, whose buffers running it may change."""
    name = type(module).__name__
    if any(is_lazy(parameter) for parameter in module.parameters()):
        raise UserError(f"{name} has parameters without a shape: call it once on data, to have one")
    try:
        return copy.deepcopy(module)
    except RuntimeError as error:
        raise UserError(
            f"{name} cannot be copied: it has tensors that were computed from parameters, as "
            "torch.nn.utils.weight_norm makes them; torch.nn.utils.parametrizations has forms of "
            "the same that can be"
        ) from error


def _refuse_uniform_numbers(module: nn.Module, example: Any) -> None:
    """Refuse whole numbers that are all alike: such tokens do not show what tells them apart."""
    tensors = [leaf for leaf in pytree.tree_leaves(example) if isinstance(leaf, Tensor)]
    numbers = [leaf for leaf in tensors if leaf.numel() > 1 and leaf.dtype != torch.bool]
    if not numbers or any(leaf.is_floating_point() or leaf.is_complex() for leaf in tensors):
        return
    if all(bool((leaf == leaf.flatten()[0]).all()) for leaf in numbers):
        raise UserError(
            f"the whole numbers in the example input of {type(module).__name__} are all "
            f"{int(numbers[0].flatten()[0])}: they are used as they are, and what the network does "
            "with others does not show; give discover() numbers that differ, as those of data do."
        )
