"""Compute what all sites have in common, such as normal priors, for all of them at once."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_bnn.passes.rewrite import (
    SAME_ORDER,
    attribute,
    call,
    constant,
    finish,
    replace,
    shape,
    through_views,
    writes,
)

__all__ = ["merge_sites"]

_aten = torch.ops.aten


@dataclass(frozen=True)
class _Run:
    """Neighbouring sites with the same computation; `start` and `stop` in the flat position."""

    sites: range
    start: int
    stop: int


class _Sites:
    """What a graph computes element by element from the pieces of a flat position.

    A node belongs to a site when its elements, in row-major order, are functions of the elements
    of that site at the same place, and of constants that are the same for every chain.
    """

    def __init__(self, module: GraphModule, split: Node) -> None:
        self.module = module
        position = split.args[0]
        assert isinstance(position, Node)
        self.position = position
        self.sizes: list[int] = list(split.args[1])  # type: ignore[arg-type]
        self.chains = shape(position)[0]
        self.site: dict[Node, int] = {}
        self.formula: dict[Node, Hashable] = {}
        for user in split.users:
            if user.target is operator.getitem:
                self.site[user] = int(user.args[1])  # type: ignore[arg-type]
                self.formula[user] = "position"
        for node in module.graph.nodes:
            if node.op == "call_function" and node not in self.site:
                self._place(node)

    def _place(self, node: Node) -> None:
        found = {self.site[source] for source in node.all_input_nodes if source in self.site}
        if len(found) != 1 or not shape(node) or shape(node)[0] != self.chains:
            return
        (site,) = found
        if node.meta["val"].numel() != self.chains * self.sizes[site]:
            return
        if node.target in SAME_ORDER:
            formula = self.formula[node.all_input_nodes[0]]
        elif torch.Tag.pointwise in getattr(node.target, "tags", ()) and self._is_own(node):
            formula = (str(node.target), tuple(map(self._operand, node.args)), str(node.kwargs))
        else:
            return
        self.site[node] = site
        self.formula[node] = formula

    def _is_own(self, node: Node) -> bool:
        """Whether all operands are of the site, in the same shape, or constants for all chains."""
        for argument in node.args:
            if isinstance(argument, Node):
                if argument in self.site:
                    if shape(argument) != shape(node):
                        return False
                elif self.constant(node, argument) is None:
                    return False
            elif not isinstance(argument, int | float | str | None):
                return False
        return not any(isinstance(value, Node) for value in node.kwargs.values())

    def constant(self, node: Node, operand: Node) -> Tensor | None:
        """Return the row ``(site size,)`` of a constant operand that all chains share."""
        value = attribute(self.module, operand)
        if value is None or value.ndim > len(shape(node)):
            return None
        whole = value.expand(shape(node))
        row = whole[0]
        return row.reshape(-1) if bool((whole == row).all()) else None

    def _operand(self, argument: object) -> Hashable:
        if not isinstance(argument, Node):
            return repr(argument)
        return self.formula.get(argument, ("constant", str(argument.meta["val"].dtype)))

    def runs(self) -> list[_Run]:
        """Split the sites into runs of neighbours on which the same formulas are computed."""
        formulas: list[frozenset[tuple[Hashable, int]]] = []
        for index in range(len(self.sizes)):
            own = [node for node, site in self.site.items() if site == index]
            count = Counter(self.formula[node] for node in own if node.target not in SAME_ORDER)
            formulas.append(frozenset(count.items()))
        runs: list[_Run] = []
        first = start = 0
        for index in range(1, len(self.sizes) + 1):
            if index == len(self.sizes) or formulas[index] != formulas[first]:
                stop = start + sum(self.sizes[first:index])
                if index - first > 1 and len(formulas[first]) > 1:
                    runs.append(_Run(range(first, index), start, stop))
                first, start = index, stop
        return runs


def merge_sites(module: GraphModule) -> None:
    """Evaluate, in place, equal element-wise formulas of neighbouring sites as one.

    A model of twelve sites with normal priors computes twelve small log densities and gradients;
    afterwards it computes one, on the flat position. Sums over the merged sites become one sum,
    and the parts of the gradient are added once. Where sites differ in their formulas, such as
    in the family of their priors, they stay apart.

    Parameters
    ----------
    module : GraphModule
        A function of a flat position ``(chain, dim)`` that it splits along the second axis.
    """
    if writes(module.graph.nodes):
        return
    for split in list(module.graph.nodes):
        if split.target is _aten.split_with_sizes.default and tuple(split.args[2:]) in (
            (1,),
            (-1,),
        ):
            sites = _Sites(module, split)
            for run in sites.runs():
                merged = _merge(sites, run, split)
                if len(merged) > 1:
                    _add_gradients_once(sites, run, merged)
                    _sum_once(sites, run, merged)
                    _drop_dead(module, set(merged.values()))
                    _cut(sites, run, merged)
    finish(module)


def _drop_dead(module: GraphModule, kept: set[Node]) -> None:
    module.graph.eliminate_dead_code(lambda node: node in kept or node.is_impure())


def _merge(sites: _Sites, run: _Run, split: Node) -> dict[Hashable, Node]:
    """Insert each formula of a run, evaluated on the flat part of the position."""
    graph = sites.module.graph
    members: dict[Hashable, list[Node]] = {}
    for index in run.sites:
        for node, site in sites.site.items():
            if site == index and node.target not in SAME_ORDER:
                members.setdefault(sites.formula[node], []).append(node)
    merged: dict[Hashable, Node] = {}
    with graph.inserting_before(split):
        if run.stop - run.start == shape(sites.position)[1]:
            merged["position"] = sites.position
        else:
            merged["position"] = call(
                graph, _aten.slice.Tensor, sites.position, 1, run.start, run.stop
            )
        for formula, nodes in members.items():
            # One formula with two sets of constants at one site cannot be told apart.
            if formula not in merged and len(nodes) == len(run.sites):
                arguments = _merged_arguments(sites, merged, nodes)
                if arguments is not None:
                    target: Any = nodes[0].target
                    merged[formula] = call(graph, target, *arguments, **nodes[0].kwargs)
    return merged


def _merged_arguments(
    sites: _Sites, merged: dict[Hashable, Node], nodes: list[Node]
) -> list[object] | None:
    arguments: list[object] = []
    for place, argument in enumerate(nodes[0].args):
        if not isinstance(argument, Node):
            arguments.append(argument)
        elif argument in sites.site:
            if sites.formula[argument] not in merged:
                return None
            arguments.append(merged[sites.formula[argument]])
        else:
            rows = [sites.constant(node, node.args[place]) for node in nodes]  # type: ignore[arg-type]
            arguments.append(constant(sites.module, torch.cat([r for r in rows if r is not None])))
    return arguments


def _find(sites: _Sites, merged: dict[Hashable, Node], node: Node) -> Hashable | None:
    """Return the formula of a node of a merged run, None where it is not merged."""
    formula = sites.formula.get(node)
    return formula if formula in merged and formula != "position" else None


def _add_gradients_once(sites: _Sites, run: _Run, merged: dict[Hashable, Node]) -> None:
    """Turn ``cat(a_i + merged_i)`` into ``cat(a_i) + merged``."""
    graph = sites.module.graph
    for node in list(graph.nodes):
        if node.target is not _aten.cat.default or tuple(node.args[1:]) != (1,):
            continue
        parts: list[Node] = list(node.args[0])
        if [shape(part)[1:] for part in parts] != [(size,) for size in sites.sizes]:
            continue
        found = [_gradient_terms(sites, index, parts[index]) for index in run.sites]
        terms = [pair for pair in found if pair is not None]
        formulas = {_find(sites, merged, own) for own, _ in terms}
        if len(terms) != len(run.sites) or len(formulas) != 1 or None in formulas:
            continue
        (formula,) = formulas
        with graph.inserting_before(node):
            others = [
                call(graph, _aten.reshape.default, other, list(shape(parts[index])))
                for index, (_, other) in zip(run.sites, terms, strict=True)
            ]
            joined = call(graph, _aten.cat.default, others, 1)
            total = call(graph, _aten.add.Tensor, joined, merged[formula])
            whole = [*parts[: run.sites.start], total, *parts[run.sites.stop :]]
            result = total if len(whole) == 1 else call(graph, _aten.cat.default, whole, 1)
        replace(node, result)
        graph.erase_node(node)


def _gradient_terms(sites: _Sites, index: int, part: Node) -> tuple[Node, Node] | None:
    """Return the site's own term and the other term of a sum of two, if it is one."""
    addition = through_views(part)
    if addition.target is not _aten.add.Tensor or addition.kwargs:
        return None
    first, second = addition.args
    if not (isinstance(first, Node) and isinstance(second, Node)):
        return None
    if shape(first) != shape(addition) or shape(second) != shape(addition):
        return None
    own = [sites.site.get(term) == index for term in (first, second)]
    if own == [True, False]:
        return first, second
    return (second, first) if own == [False, True] else None


def _sum_once(sites: _Sites, run: _Run, merged: dict[Hashable, Node]) -> None:
    """Sum a merged formula once where the sums of all its sites are added up."""
    graph = sites.module.graph
    for top in list(graph.nodes):
        if not _is_plain_addition(top) or any(_is_plain_addition(user) for user in top.users):
            continue
        leaves = _leaves(top)
        by_formula: dict[Hashable, dict[int, Node]] = {}
        for leaf in leaves:
            source = _summed(leaf)
            formula = None if source is None else _find(sites, merged, source)
            if source is not None and formula is not None and sites.site[source] in run.sites:
                by_formula.setdefault(formula, {})[sites.site[source]] = leaf
        complete = {f: found for f, found in by_formula.items() if len(found) == len(run.sites)}
        gone = {leaf for found in complete.values() for leaf in found.values()}
        if not gone or any(leaves.count(leaf) > 1 for leaf in gone):
            continue
        with graph.inserting_before(top):
            terms = [leaf for leaf in leaves if leaf not in gone]
            terms += [call(graph, _aten.sum.dim_IntList, merged[f], [1]) for f in complete]
            total = terms[0]
            for term in terms[1:]:
                total = call(graph, _aten.add.Tensor, total, term)
        replace(top, total)
        graph.erase_node(top)


def _is_plain_addition(node: Node) -> bool:
    return (
        node.target is _aten.add.Tensor
        and not node.kwargs
        and len(shape(node)) == 1
        and all(isinstance(a, Node) and shape(a) == shape(node) for a in node.args)
    )


def _leaves(node: Node) -> list[Node]:
    """Terms of a sum, additions that nothing else reads opened."""
    found: list[Node] = []
    for term in node.args:
        assert isinstance(term, Node)
        opens = _is_plain_addition(term) and len(term.users) == 1
        found += _leaves(term) if opens else [term]
    return found


def _summed(node: Node) -> Node | None:
    """Return what ``sum`` over everything but the chain was taken of, None for other sums.

    What is no sum is one element a chain.
    """
    node = through_views(node)
    if node.target is not _aten.sum.dim_IntList:
        return node
    if node.kwargs:
        return None
    source = node.args[0]
    assert isinstance(source, Node)
    rank = len(shape(source))
    axes = {int(axis) % rank for axis in node.args[1] or ()}  # type: ignore[union-attr, arg-type]
    return through_views(source) if axes == set(range(1, rank)) else None


def _cut(sites: _Sites, run: _Run, merged: dict[Hashable, Node]) -> None:
    """Let whatever else reads a merged formula of one site read its part of the whole."""
    graph = sites.module.graph
    start = 0
    for index in run.sites:
        stop = start + sites.sizes[index]
        for node in [node for node, site in sites.site.items() if site == index]:
            formula = _find(sites, merged, node)
            readers = [user for user in node.users if user not in sites.site]
            if formula is None or not readers:
                continue
            with graph.inserting_before(readers[0]):
                whole = merged[formula]
                part = call(graph, _aten.slice.Tensor, whole, 1, start, stop)
                cut = call(graph, _aten.reshape.default, part, list(shape(node)))
            for user in readers:
                user.replace_input_with(node, cut)
        start = stop
