"""Mistakes on the way of the weights."""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest import mock

from flaxnets import WideResNetConfig, densenet, layout, torch_bridge
from flaxnets.matching import find_dialects
from parity.mutants.changes import edited, together
from parity.mutants.mutant import Mutant, Place

_READ = "values.get(entry.key, np.zeros((), np.int64))"


def _read(key: str) -> partial:
    """Another key is read for a variable than the one that it has."""
    return partial(edited, torch_bridge._build, (_READ, _READ.replace("entry.key", key)))


def _stated(family: type, dialect: str, **fields: Any) -> AbstractContextManager[None]:
    """A dialect says otherwise of its code base."""
    (found,) = (each for each in find_dialects(dialect) if each.family is family)
    return together(mock.patch.dict(found.fixed, fields))


def _wrong(key: str) -> Place:
    return Place("bridge", key)


MUTANTS = (
    Mutant(
        name="kernel's input and output swapped",
        description="convolution kernels are read as if PyTorch had (in, out, k, k)",
        expected=_wrong("conv1.weight"),
        subject="resnet, eval",
        change=lambda: together(mock.patch.dict(layout.FROM_TORCH_AXES, {4: (2, 3, 0, 1)})),
    ),
    Mutant(
        name="kernel's height and width swapped",
        description="kernels are transposed as a whole, there and back",
        expected=Place("isolated layers", "conv1"),
        subject="resnet, eval",
        change=lambda: together(
            mock.patch.dict(layout.FROM_TORCH_AXES, {4: (3, 2, 1, 0)}),
            mock.patch.dict(layout.TO_TORCH_AXES, {4: (3, 2, 1, 0)}),
        ),
    ),
    Mutant(
        name="linear kernel not transposed",
        description="the classifier's (out, in) is taken for (in, out)",
        expected=_wrong("fc.weight"),
        subject="resnet, eval",
        change=lambda: together(mock.patch.dict(layout.FROM_TORCH_AXES, {2: (0, 1)})),
    ),
    Mutant(
        name="kernels written as they are",
        description="kernels are not transposed on their way back",
        expected=_wrong("conv1.weight"),
        subject="resnet, eval",
        change=partial(
            edited,
            torch_bridge._to_torch_layout,
            ("array = array.transpose(TO_TORCH_AXES.get(array.ndim, range(array.ndim)))", "pass"),
        ),
    ),
    Mutant(
        name="variance taken for mean",
        description="running_var is read for running_mean",
        expected=_wrong("bn1.running_mean"),
        subject="resnet, eval",
        change=_read('{"mean": entry.key[:-4] + "var"}.get(entry.path[-1], entry.key)'),
    ),
    Mutant(
        name="mean and variance swapped",
        description="the same both ways, and for both",
        expected=Place("isolated layers", "bn1"),
        subject="resnet, eval",
        change=lambda: together(
            mock.patch.dict(layout.LEAF_NAMES, {"mean": "running_var", "var": "running_mean"})
        ),
    ),
    Mutant(
        name="bias taken for scale",
        description="a norm's bias is read for its scale",
        expected=_wrong("bn1.weight"),
        subject="resnet, eval",
        change=_read('{"scale": entry.key[:-6] + "bias"}.get(entry.path[-1], entry.key)'),
    ),
    Mutant(
        name="two layers of the same shape swapped",
        description="the convolutions of a block change places, there and back",
        expected=Place("isolated layers", "layer1.0.conv1"),
        subject="resnet, eval",
        change=partial(
            edited,
            layout._skeleton,
            (
                "entries.append(Entry(path, torch_name(path), shape))",
                "name = torch_name(path)\n"
                '                if name.startswith("layer1.0.conv"):\n'
                '                    other = {"1": "2", "2": "1"}[name[13]]\n'
                "                    name = name[:13] + other + name[14:]\n"
                "                entries.append(Entry(path, name, shape))",
            ),
        ),
    ),
    Mutant(
        name="a block off by one",
        description="the blocks of a stage are counted from the other end, there and back",
        expected=Place("isolated layers", "layer1.0.conv1"),
        subject="two blocks, eval",
        change=partial(
            edited,
            layout._skeleton,
            (
                "entries.append(Entry(path, torch_name(path), shape))",
                "name = torch_name(path)\n"
                '                if name.startswith("layer1."):\n'
                '                    other = {"0": "1", "1": "0"}[name[7]]\n'
                "                    name = name[:7] + other + name[8:]\n"
                "                entries.append(Entry(path, name, shape))",
            ),
        ),
    ),
    Mutant(
        name="weights rounded to float16",
        description="weights pass through float16 on their way",
        expected=_wrong("conv1.weight"),
        subject="resnet, eval",
        change=partial(
            edited,
            torch_bridge._from_torch_layout,
            ("value = value.astype(jax", "value = value.astype(np.float16).astype(jax"),
        ),
    ),
    Mutant(
        name="weights rounded to float32",
        description="a float64 network is given float32 weights",
        expected=_wrong("conv1.weight"),
        subject="resnet, eval",
        change=partial(
            edited,
            torch_bridge._from_torch_layout,
            ("value = value.astype(jax", "value = value.astype(np.float32).astype(jax"),
        ),
    ),
    Mutant(
        name="classifier left initial",
        description="the classifier's weights are not copied",
        expected=_wrong("fc.weight"),
        subject="resnet, eval",
        change=partial(
            edited,
            torch_bridge._build,
            (
                "if entry.key in values or",
                'if (entry.key in values and not entry.key.startswith("fc.")) or',
            ),
        ),
    ),
    Mutant(
        name="running statistics left initial",
        description="parameters are copied, running statistics are not",
        expected=_wrong("bn1.running_mean"),
        subject="resnet, eval",
        change=partial(
            edited,
            torch_bridge._build,
            (
                "if entry.key in values or",
                'if (entry.key in values and ".running_" not in entry.key) or',
            ),
        ),
    ),
    Mutant(
        name="batch count forgotten",
        description="num_batches_tracked starts from 0",
        expected=_wrong("bn1.num_batches_tracked"),
        subject="resnet, eval",
        change=_read('"" if entry.key.endswith(BATCHES_TRACKED) else entry.key'),
    ),
    Mutant(
        name="another code base's concatenation",
        description="a DenseNet that puts new maps first is read as one that puts them last",
        expected=Place("layers", "trans1.bn"),
        subject="kuangliu's densenet, eval",
        change=partial(
            edited,
            densenet.DenseBlock.__init__,
            ('self.new_first = config.concat == "new_old"', "self.new_first = False"),
        ),
    ),
    Mutant(
        name="another code base's momentum",
        description="a WRN whose last norm has a momentum of its own is read as one without",
        expected=Place("statistics", "bn1.running_mean"),
        subject="meliketoy's wrn, train",
        change=partial(_stated, WideResNetConfig, "meliketoy", final_norm_momentum=0.9),
    ),
)
