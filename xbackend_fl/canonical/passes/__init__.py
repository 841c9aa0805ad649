"""One form for one function: rewrites of the finished graph, one a module, in the order that stands here.

A fused query-key-value projection and three separate ones are the same function; so are one bias inside a layer and one
added behind it. Every pass rewrites the graph and the layouts of its parameters together, so that models which store the
same numbers differently end up with the same nodes and the same parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.layout import Shape
from xbackend_fl.canonical.passes.activations import name_activations
from xbackend_fl.canonical.passes.biases import fold_biases
from xbackend_fl.canonical.passes.blocks import take_up_block_order
from xbackend_fl.canonical.passes.bounds import merge_bounds
from xbackend_fl.canonical.passes.comparisons import compare_before_bounds
from xbackend_fl.canonical.passes.crops import crop_transposed
from xbackend_fl.canonical.passes.cuts import cut_linears
from xbackend_fl.canonical.passes.hiding import hide_before_softmax
from xbackend_fl.canonical.passes.joins import join_linears
from xbackend_fl.canonical.passes.loops import (
    merge_repeated_biases,
    pick_before_layers,
    split_repeated_layers,
)
from xbackend_fl.canonical.passes.low_rank import spread_low_rank
from xbackend_fl.canonical.passes.negations import push_negations
from xbackend_fl.canonical.passes.norms import name_unit_vectors
from xbackend_fl.canonical.passes.parameters import cut_parameters, pick_before_expanding
from xbackend_fl.canonical.passes.picks import (
    cut_concatenations,
    pick_from_the_other_end,
    pick_single_positions,
)
from xbackend_fl.canonical.passes.products import sum_products
from xbackend_fl.canonical.passes.repeats import add_once_for_all
from xbackend_fl.canonical.passes.roots import settle_roots
from xbackend_fl.canonical.passes.rows import keep_rows_apart
from xbackend_fl.canonical.passes.scales import pull_scales
from xbackend_fl.canonical.passes.single_rows import add_single_rows
from xbackend_fl.canonical.passes.slices import slice_before_functions
from xbackend_fl.canonical.passes.squeezes import squeeze_features
from xbackend_fl.canonical.passes.states import read_last_states
from xbackend_fl.canonical.passes.sums import add_joined_parts
from xbackend_fl.canonical.passes.trims import trim_convolutions
from xbackend_fl.canonical.passes.truths import settle_truths

PASSES: tuple[Callable[[Graph], tuple[Draft, ...]], ...] = (
    spread_low_rank,
    merge_bounds,
    settle_roots,
    name_unit_vectors,
    name_activations,
    compare_before_bounds,
    push_negations,
    settle_truths,
    add_once_for_all,
    pull_scales,
    hide_before_softmax,
    take_up_block_order,
    crop_transposed,
    trim_convolutions,
    fold_biases,
    add_single_rows,
    keep_rows_apart,
    sum_products,
    add_joined_parts,
    cut_concatenations,
    join_linears,
    squeeze_features,
    pick_before_layers,
    slice_before_functions,
    cut_linears,
    split_repeated_layers,
    merge_repeated_biases,
    pick_single_positions,
    pick_from_the_other_end,
    pick_before_expanding,
    cut_parameters,
    read_last_states,
)
"""Every pass, in order: activations first, because later ones look through them; what picks one position
last, because layers are cut by slices."""


def normal_form(
    drafts: tuple[Draft, ...], outputs: set[str], inputs: Mapping[str, tuple[Shape, str]]
) -> tuple[Draft, ...]:
    """The graph in its one form, without what reaches no output.

    Args:
        drafts: Nodes in execution order.
        outputs: Values that the model returns.
        inputs: Shape and NumPy dtype name of every data input.
    """
    for rewrite in PASSES:
        drafts = rewrite(Graph(_live(drafts, outputs), outputs, inputs))
    return _live(drafts, outputs)


def _live(drafts: tuple[Draft, ...], outputs: set[str]) -> tuple[Draft, ...]:
    needed, live = set(outputs), []
    for draft in reversed(drafts):
        if needed.intersection(draft.outputs):
            needed.update(draft.inputs)
            live.append(draft)
    return tuple(reversed(live))
