"""Our SGD against torch.optim.SGD: same gradients in, same parameters out, step after step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train import optimizer, schedule

SHAPES = {"kernel": (3, 3, 4, 5), "scale": (5,), "bias": (5,)}
STEPS = 24
RATES = schedule.warm_up(schedule.step(0.5, [8, 16], 0.1), 4)


def trees(rng: np.random.Generator, dtype: str) -> dict[str, np.ndarray]:
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}


def torch_sgd(parameters, gradients, rates, dtype, **options):
    torch = pytest.importorskip("torch")
    tensors = {k: torch.nn.Parameter(torch.from_numpy(v.copy())) for k, v in parameters.items()}
    sgd = torch.optim.SGD(tensors.values(), lr=rates[0], **options)
    history = []
    for gradient, rate in zip(gradients, rates, strict=True):
        for name, tensor in tensors.items():
            tensor.grad = torch.from_numpy(gradient[name].copy())
        sgd.param_groups[0]["lr"] = rate
        sgd.step()
        history.append({name: t.detach().numpy().copy() for name, t in tensors.items()})
    return history


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 5e-2},
        {"momentum": 0.9},
        {"momentum": 0.9, "weight_decay": 5e-2},
        {"momentum": 0.9, "weight_decay": 5e-2, "nesterov": True},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_equals_torch_sgd_under_a_changing_rate(options, dtype):
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(0)
        parameters = trees(rng, dtype)
        gradients = [trees(rng, dtype) for _ in range(STEPS)]
        rates = [float(RATES(step)) for step in range(STEPS)]
        assert len({round(rate, 6) for rate in rates}) == 6  # 4 of the warm-up and two drops
        expected = torch_sgd(parameters, gradients, rates, dtype, **options)

        sgd = optimizer.sgd(RATES, **options)
        ours = jax.tree.map(jnp.asarray, parameters)
        state = sgd.init(ours)

        @jax.jit
        def update(ours, state, gradient):
            updates, state = sgd.update(gradient, state, ours)
            return optax.apply_updates(ours, updates), state

        # The parameters reach about 40 in size, so a few roundings of that are the floor.
        tolerance = 40 * 8 * float(np.finfo(dtype).eps)
        for gradient, theirs in zip(gradients, expected, strict=True):
            ours, state = update(ours, state, gradient)
            for name in SHAPES:
                assert ours[name].dtype == dtype
                np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=tolerance)


def test_first_step_takes_the_whole_gradient_into_the_buffer():
    sgd = optimizer.sgd(1.0, momentum=0.9)
    parameters = {"p": jnp.zeros(3)}
    updates, _ = sgd.update({"p": jnp.ones(3)}, sgd.init(parameters), parameters)
    np.testing.assert_array_equal(updates["p"], -np.ones(3))


def test_a_drop_of_the_rate_acts_on_the_whole_buffer():
    sgd = optimizer.sgd(schedule.step(1.0, [1], 0.5), momentum=0.5)
    parameters = {"p": jnp.zeros(())}
    state = sgd.init(parameters)
    first, state = sgd.update({"p": jnp.ones(())}, state, parameters)
    second, state = sgd.update({"p": jnp.zeros(())}, state, parameters)
    assert float(first["p"]) == -1.0
    assert float(second["p"]) == -0.25  # 0.5 (new rate) * 0.5 (momentum) * 1 (old buffer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -0.1}, "learning_rate must not be negative, got -0.1"),
        ({"learning_rate": 0.1, "momentum": 1.0}, "momentum must be at least 0 and below 1"),
        ({"learning_rate": 0.1, "weight_decay": -1e-4}, "weight_decay must not be negative"),
        ({"learning_rate": 0.1, "nesterov": True}, "nesterov needs a momentum above 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        optimizer.sgd(**options)
