from dataclasses import replace

import numpy as np

from parity.comparison import Comparison, backward_order
from parity.judge import Judge
from parity.record import LayerCall, Trace


def trace(factor: float = 1.0) -> Trace:
    """A made-up run; ``factor`` makes another one of it."""
    return Trace(
        layers={"conv": factor * np.ones((1, 2, 2, 1)), "bn": factor * np.ones((1, 2, 2, 1))},
        logits=factor * np.ones((1, 2)),
        loss=factor * np.ones(()),
        parameter_gradients={
            "conv.weight": factor * np.ones((1, 3, 1, 1)),
            "conv.bias": np.zeros(1),
            "bn.weight": factor * np.ones(1),
        },
        input_gradient=factor * np.ones((1, 2, 2, 3)),
        statistics={"bn.running_mean": factor * np.ones(1)},
        layer_gradients={"bn": factor * np.ones((1, 2, 2, 1))},
    )


def failures(found: list[Comparison]) -> list[tuple[str, str]]:
    return [(comparison.check, comparison.layer) for comparison in found if not comparison.ok]


def test_float64_allows_more_in_the_backward_pass() -> None:
    judge = Judge("net", "float64", "eval")
    assert failures(judge.traces(trace(), trace(1 + 5e-11))) == []
    found = failures(judge.traces(trace(), trace(1 + 5e-10)))
    assert {check for check, _ in found} == {"layers", "logits", "loss", "statistics"}
    assert len(failures(judge.traces(trace(), trace(1 + 5e-9)))) == 9


def test_float32_allows_four_times_what_pytorch_is_off() -> None:
    judge = Judge("net", "float32", "train")
    reference = trace(1 + 1e-5)
    assert failures(judge.traces(trace(), trace(1 - 4e-5), [reference])) == []
    found = failures(judge.traces(trace(), trace(1 - 4.1e-5), [reference]))
    assert len(found) == 8
    assert ("loss", "") not in found


def test_float32_counts_pytorchs_less_exact_run() -> None:
    judge = Judge("net", "float32", "train")
    runs = [trace(1 + 1e-6), trace(1 + 1e-5)]
    found = [c for c in judge.traces(trace(), trace(1 - 4e-5), runs) if c.check != "names"]
    assert failures(found) == []
    assert {round(c.reference, 9) for c in found if c.check == "layers"} == {1e-5}


def test_float32_gradients_of_a_layer_share_a_budget() -> None:
    judge = Judge("net", "float32", "train")
    right = {key: np.ones(2) for key in ("conv.weight", "bn.weight", "bn.bias")}

    def run(**wrong: float) -> Trace:
        gradients = {key: right[key] + wrong.get(key.replace(".", "_"), 0.0) for key in right}
        return replace(trace(), parameter_gradients=gradients)

    def failing(**wrong: float) -> list[tuple[str, str]]:
        return failures(judge.traces(run(), run(**wrong), [run(bn_weight=1e-5)]))

    assert failing(bn_weight=3e-5) == failing(bn_bias=3e-5) == []
    assert failing(bn_bias=5e-5) == [("parameter gradients", "bn.bias")]
    assert failing(conv_weight=3e-5) == [("parameter gradients", "conv.weight")]


def test_float32_loss_is_allowed_what_pytorchs_logits_are_off() -> None:
    judge = Judge("net", "float32", "train")
    reference = replace(trace(), logits=np.array([[1 + 1e-5, 1.0]]))  # its loss is right by luck

    def loss_off_by(error: float) -> list[tuple[str, str]]:
        return failures(
            judge.traces(trace(), replace(trace(), loss=np.array(1 + error)), [reference])
        )

    assert loss_off_by(8e-5) == []
    assert loss_off_by(8.2e-5) == [("loss", "")]


def test_float32_gradients_have_oracles_of_their_own() -> None:
    judge = Judge("net", "float32", "train")
    found = judge.traces(
        trace(),
        replace(trace(), parameter_gradients=trace(2.0).parameter_gradients),
        [trace(), trace()],
        flax_gradients=replace(trace(2.0), turned=3),
    )
    assert failures(found) == [("layer gradients", "bn"), ("input gradient", "")]
    notes = {comparison.note for comparison in found if "gradient" in comparison.check}
    assert notes == {"ReLU signs turned: Flax 3, PyTorch 0, 0"}


def test_a_gradient_that_is_zero_is_measured_against_its_layer() -> None:
    judge = Judge("net", "float64", "train")
    noise = trace().parameter_gradients | {"conv.bias": np.full(1, 9e-14)}
    assert failures(judge.traces(trace(), replace(trace(), parameter_gradients=noise))) == []
    noise["conv.bias"] = np.full(1, 2e-13)
    assert failures(judge.traces(trace(), replace(trace(), parameter_gradients=noise))) == [
        ("parameter gradients", "conv.bias")
    ]


def test_a_float32_reference_that_is_not_finite_allows_nothing() -> None:
    judge = Judge("net", "float32", "eval")
    assert len(failures(judge.traces(trace(), trace(), [trace(np.inf)]))) == 10


def test_what_only_one_side_has_is_listed() -> None:
    one = trace()
    other = replace(
        one,
        layers={"conv": one.layers["conv"], "norm": one.layers["bn"]},
        parameter_gradients={"conv.weight": one.parameter_gradients["conv.weight"]},
        statistics=one.statistics | {"bn.running_var": np.ones(1)},
    )
    names = [
        (comparison.layer, comparison.note)
        for comparison in Judge("net", "float64", "eval").traces(one, other)
        if comparison.check == "names"
    ]
    assert names == [
        ("bn", "layer only in PyTorch"),
        ("norm", "layer only in Flax"),
        ("conv.bias", "parameter only in PyTorch"),
        ("bn.weight", "parameter only in PyTorch"),
        ("bn.running_var", "statistic only in Flax"),
    ]


def test_batches_need_not_be_counted_where_flax_counts_none_at_all() -> None:
    one = trace()
    counted = one.statistics | {"bn.num_batches_tracked": np.array(3)}
    judge = Judge("net", "float64", "eval")
    assert failures(judge.traces(replace(one, statistics=counted), one)) == []
    more = counted | {"bn2.num_batches_tracked": np.array(3)}
    found = judge.traces(replace(one, statistics=more), replace(one, statistics=counted))
    assert failures(found) == [("names", "bn2.num_batches_tracked")]


def test_gradients_come_from_the_last_layer_back() -> None:
    names = ["a.weight", "a.bias", "b.weight", "c.d.weight", "a", "c.d", "c"]
    assert backward_order(names, ["a", "c.d", "c", "b"]) == [
        "b.weight",
        "c",
        "c.d",
        "c.d.weight",
        "a",
        "a.weight",
        "a.bias",
    ]


def test_a_gradient_that_only_one_side_has_is_listed_for_layers_that_have_parameters() -> None:
    call = LayerCall(("bn",), len, reads_maps=False, kwargs={})
    torch_side = replace(trace(), inputs={"bn": np.ones((1, 2, 2, 1))})
    flax_side = replace(trace(), layer_gradients={}, calls={"bn": call})
    found = [
        (comparison.layer, comparison.note)
        for comparison in Judge("net", "float64", "eval").traces(torch_side, flax_side)
        if not comparison.ok
    ]
    assert found == [("bn", "gradient only in PyTorch")]
    container = replace(flax_side, calls={})
    assert failures(Judge("net", "float64", "eval").traces(torch_side, container)) == []
