import numpy as np
import pytest

from parity.naming import in_torch_layout, torch_arrays, unchanged


@pytest.mark.parametrize(
    ("shape", "axes"), [((3, 5, 4, 7), (3, 2, 0, 1)), ((4, 7), (1, 0))], ids=["HWIO", "IO"]
)
def test_kernels_lie_as_pytorch_lays_them_out(
    shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    kernel = np.random.default_rng(0).normal(size=shape)
    found = in_torch_layout(("conv1", "kernel"), kernel)
    np.testing.assert_array_equal(found, kernel.transpose(axes))


def test_other_variables_stay_as_they_are() -> None:
    values = np.arange(6.0).reshape(2, 3)
    assert in_torch_layout(("bn1", "mean"), values) is values


def test_keys_are_renamed_whole() -> None:
    variables = [(("layer1", "0", "conv1", "kernel"), np.zeros((1, 1, 2, 3)))]
    found = torch_arrays(variables, lambda key: key.replace("layer1", "stage"))
    assert {key: value.shape for key, value in found.items()} == {
        "stage.0.conv1.weight": (3, 2, 1, 1)
    }
    assert list(torch_arrays(variables, unchanged)) == ["layer1.0.conv1.weight"]
