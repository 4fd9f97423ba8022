"""Checkpoints come back bit for bit, survive crashes, and refuse other networks."""

import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from train import optimizer, step
from train.checkpoint import Checkpoints


def state_of(tiny, seed=0, at=0, momentum=0.9, **options):
    sgd = optimizer.sgd(lambda step: 0.1, momentum=momentum)
    state = step.split(tiny.Network(nnx.Rngs(seed), **options), sgd)[2]
    return step.TrainState(jnp.int32(at), state.params, state.model_state, state.opt_state)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def test_everything_comes_back(tiny, tmp_path):
    saved = state_of(tiny, seed=1, at=12)
    assert any(
        jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in jax.tree.leaves(saved.model_state)
    )
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.step is None
    checkpoints.save(saved, {"loss": 0.1 + 0.2, "correct": 7})
    read, progress = Checkpoints(tmp_path).restore(state_of(tiny, seed=2))
    assert_same(read, saved)
    assert progress == {"loss": 0.1 + 0.2, "correct": 7}


def test_only_the_newest_is_kept_and_one_step_is_saved_once(tiny, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for at in (3, 5):
        checkpoints.save(state_of(tiny, seed=at, at=at), {})
    checkpoints.save(state_of(tiny, seed=9, at=5), {})
    assert [path.name for path in tmp_path.iterdir()] == ["5"]
    assert_same(checkpoints.restore(state_of(tiny)).state, state_of(tiny, seed=5, at=5))


def test_a_crash_while_saving_leaves_the_one_before(tiny, tmp_path, monkeypatch):
    """The old one may go only after the new one is complete, and debris doesn't matter."""
    checkpoints = Checkpoints(tmp_path)
    old = state_of(tiny, seed=3, at=3)
    checkpoints.save(old, {"correct": 3})
    seen = []

    def crash(*args, **kwargs):
        seen.extend(path.name for path in tmp_path.iterdir())
        raise OSError("disk full")

    import orbax.checkpoint as ocp

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "finalize", crash)
    with pytest.raises(OSError, match=f"cannot write a checkpoint to {tmp_path}: .*disk full"):
        checkpoints.save(state_of(tiny, seed=5, at=5), {})
    assert "3" in seen
    assert len(seen) == 2  # the unfinished one, under a temporary name
    monkeypatch.undo()
    again = Checkpoints(tmp_path)
    assert again.step == 3
    assert_same(again.restore(state_of(tiny)).state, old)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_another_network_is_refused_with_the_differences(tiny, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_of(tiny, at=2), {})
    with pytest.raises(ValueError, match="of another network") as caught:
        checkpoints.restore(state_of(tiny, classes=7))
    message = str(caught.value)
    assert "4 of another shape or dtype" in message
    assert "params/fc/kernel is float32[6, 4], expected float32[6, 7]" in message
    with pytest.raises(
        ValueError,
        match="1 missing: opt_state/1/count\n  7 unexpected: opt_state/1/trace/bn/bias, ",
    ):
        checkpoints.restore(state_of(tiny, momentum=0.0))


def test_no_checkpoint_and_a_damaged_one(tiny, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no checkpoint in {tmp_path}"):
        checkpoints.restore(state_of(tiny))
    checkpoints.save(state_of(tiny, at=2), {})
    shutil.rmtree(tmp_path / "2" / "state")
    with pytest.raises(ValueError, match=f"cannot read the checkpoint {tmp_path / '2'}"):
        Checkpoints(tmp_path).restore(state_of(tiny))


def test_saving_says_nothing(tiny, tmp_path, capfd, caplog):
    with caplog.at_level(logging.INFO):
        Checkpoints(tmp_path).save(state_of(tiny), {})
        Checkpoints(tmp_path).restore(state_of(tiny))
    assert not [record for record in caplog.records if record.name == "absl"]
    assert capfd.readouterr() == ("", "")
