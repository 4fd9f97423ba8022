import numpy as np
import pytest
import torch

import flaxnets
import torchref
from parity.cases import find_case, named_cases, option_cases
from parity.pairs import make_pair


def test_every_named_network_is_compared_on_both_sides() -> None:
    assert list(named_cases()) == flaxnets.list_models()
    assert set(named_cases()) == set(torchref.list_models())


@pytest.mark.parametrize("case", option_cases().values(), ids=lambda case: case.name)
def test_options_are_valid_and_small_on_both_sides(case) -> None:
    flaxnets.get_config(case.arch, **case.overrides)
    module = torchref.create(case.arch, **case.overrides)
    most = 5_000_000 if case.name == "wrn, many pictures" else 500_000
    assert sum(parameter.numel() for parameter in module.parameters()) < most


def test_options_reach_every_choice_of_the_configs() -> None:
    configs = [flaxnets.get_config(c.arch, **c.overrides) for c in option_cases().values()]

    def values(field: str) -> set:
        return {getattr(config, field) for config in configs if hasattr(config, field)}

    assert values("shortcut") == {
        *("zero_pad_end", "zero_pad_both", "avg_pool_pad", "projection", "projection_biased")
    }
    assert values("project") == {"on_change", "first_of_stage", "every_block"}
    assert values("projection_input") == {"activated", "raw"}
    assert values("shortcut_input") == {"raw", "activated", "activated_first"}
    assert values("stride_on") == {"conv1", "conv2"}
    assert values("concat") == {"old_new", "new_old"}
    assert values("dropout_after") == {"every_conv", "last_conv"}
    assert values("transition_relu") == values("stem_norm") == values("final_norm") == {True, False}
    assert values("final_norm_momentum") == {0.9, 0.1}
    assert values("groups") == {1, 3, 4}
    assert values("dropout_before") == {"conv2", "bn2"}
    assert values("bottleneck") == values("conv_bias") == {True, False}
    assert values("compression") == {0.5, 0.7, 1.0}
    assert values("block") == {"basic", "bottleneck"}
    assert values("stem") == {"cifar", "imagenet"}
    assert values("bottleneck_width") == {1.0, 2.0, 0.25}


@pytest.mark.parametrize("name", flaxnets.list_models())
def test_last_maps_of_named_networks_have_several_pixels(name: str) -> None:
    case = find_case(name)
    halvings = len(getattr(flaxnets.get_config(name), "stage_sizes", ())) - 1
    if "densenet" in name:
        halvings = len(flaxnets.get_config(name).block_sizes) - 1
    elif "wrn" in name:
        halvings = 2
    if getattr(flaxnets.get_config(name), "stem", "cifar") == "imagenet":
        halvings += 2
    size = 2**halvings
    round_up = 0 if "densenet" in name else size - 1
    height, width = ((side + round_up) // size for side in (case.height, case.width))
    assert height * width * case.batch >= 8


def test_pictures_are_not_square_but_where_the_case_says_so() -> None:
    cases = [*named_cases().values(), *option_cases().values()]
    assert {c.name for c in cases if c.height == c.width} == {"wrn, 64x64"}


def test_an_alias_finds_its_network_and_an_unknown_name_the_nearest() -> None:
    assert find_case("densenet").name == "densenet_bc_100_12"
    with pytest.raises(ValueError, match="'wrn_16_44'; did you mean wrn_16_4"):
        find_case("wrn_16_44")


def test_weights_are_random_everywhere_and_the_same_for_a_seed() -> None:
    case = find_case("resnet, convolution biases")
    one, same, other = (make_pair(case, seed=seed) for seed in (3, 3, 4))
    for key, value in one.torch.state_dict().items():
        torch.testing.assert_close(value, same.torch.state_dict()[key], rtol=0, atol=0)
        assert not torch.equal(value, other.torch.state_dict()[key]), key
        if value.ndim:
            assert value.dtype == torch.float64
            assert value.unique().numel() == value.numel(), key  # no zeros and ones left
            assert not torch.equal(value, value.float().double()), key  # all 53 bits are used
    np.testing.assert_array_equal(one.batches.images, same.batches.images)
    assert one.batches.images.shape == (2, 2, 24, 32, 3)


def test_activations_stay_of_one_size_in_evaluation() -> None:
    pair = make_pair(find_case("resnet56"))
    pair.torch.eval()
    pictures = torch.tensor(np.moveaxis(pair.batches.images[0], -1, 1))
    with torch.no_grad():
        assert 0.1 < pair.torch(pictures).abs().max() < 100
