"""Mistakes on the way of the pictures, from the files to the training step."""

from functools import partial

from parity.mutants.changes import edited
from parity.mutants.mutant import Mutant, Place
from train import augment, datasets, step

_CROPS = Place("data path", "crops and flips")
_DRAWS = Place("data path", "draws", "every offset and flip")
_FILES = Place("data path", "files")
_EPOCHS = Place("data path", "epochs")
_NORMALISED = Place("data path", "normalised")

_OFFSETS = "jax.random.randint(offset_key, (n, 2), 0, 2 * padding + 1, dtype=jnp.int32)"
_ROWS = "rows = offsets[:, :1] - padding + jnp.arange(height)"
_STACKED = "np.stack(np.split(pixels, 3, axis=1), axis=-1).reshape(-1, 32, 32, 3)"


def _mutant(name: str, description: str, expected: Place, change: partial) -> Mutant:
    return Mutant(name, description, expected, "data path", change)


MUTANTS = (
    _mutant(
        "constants of the other set",
        "CIFAR-10 is normalised by CIFAR-100's mean, and the reverse",
        Place("data path", "constants"),
        partial(
            edited,
            datasets._load_cifar,
            ("mean=spec.mean", "mean=(_CIFAR100 if spec is _CIFAR10 else _CIFAR10).mean"),
        ),
    ),
    _mutant(
        "mean of the deviations of pictures",
        "the deviation that many codes use for CIFAR-10",
        Place("data path", "constants", "cifar10"),
        partial(
            edited,
            datasets._load_cifar,
            ("std=spec.std", "std=(0.2023, 0.1994, 0.2010)"),
        ),
    ),
    _mutant(
        "white is 256",
        "bytes are divided by 256, not by 255",
        _NORMALISED,
        partial(edited, augment.normalize, ("wide.type(255)", "wide.type(256)")),
    ),
    _mutant(
        "variance for deviation",
        "pictures are divided by the square of the deviation",
        _NORMALISED,
        partial(
            edited, augment.normalize, ("np.asarray(std, wide)", "np.square(np.asarray(std, wide))")
        ),
    ),
    _mutant(
        "normalised before cropping",
        "the border of a crop has the mean colour, not black",
        _NORMALISED,
        partial(
            edited,
            step.Preprocessing.train,
            (
                "images = augment.crop_and_flip(images, offsets, flips, self.crop_padding)\n"
                "    return self.evaluate(images)",
                "images = self.evaluate(images)\n"
                "    return augment.crop_and_flip(images, offsets, flips, self.crop_padding)",
            ),
        ),
    ),
    _mutant(
        "not augmented",
        "pictures are normalised only",
        _NORMALISED,
        partial(
            edited,
            step.Preprocessing.train,
            ("images = augment.crop_and_flip(images, offsets, flips, self.crop_padding)", ""),
        ),
    ),
    _mutant(
        "crop off by one",
        "crops begin one row too low",
        _CROPS,
        partial(edited, augment.crop_and_flip, (_ROWS, f"{_ROWS} + 1")),
    ),
    _mutant(
        "crop's axes swapped",
        "the top edge of a crop is taken for its left edge",
        _CROPS,
        partial(
            edited,
            augment.crop_and_flip,
            (_ROWS, _ROWS.replace("[:, :1]", "[:, 1:]")),
            ("offsets[:, 1:] - padding + columns", "offsets[:, :1] - padding + columns"),
        ),
    ),
    _mutant(
        "crop's border reflects",
        "pictures are padded with their mirror image",
        _CROPS,
        partial(
            edited,
            augment.crop_and_flip,
            (
                "inside = ",
                "rows = height - 1 - jnp.abs(height - 1 - jnp.abs(rows))\n"
                "    columns = width - 1 - jnp.abs(width - 1 - jnp.abs(columns))\n"
                "    inside = ",
            ),
        ),
    ),
    _mutant(
        "flipped upside down",
        "pictures are mirrored top to bottom",
        _CROPS,
        partial(
            edited,
            augment.crop_and_flip,
            (_ROWS, f"{_ROWS}\n    rows = jnp.where(flips[:, None], height - 1 - rows, rows)"),
            ("jnp.where(flips[:, None], width - 1 - columns, columns)", "columns"),
        ),
    ),
    _mutant(
        "never flipped",
        "no flip is drawn",
        _DRAWS,
        partial(
            edited,
            augment.random_offsets_and_flips,
            ("if flip else", "if False else"),
        ),
    ),
    _mutant(
        "one crop for the batch",
        "all pictures of a batch are cropped at the same place",
        _DRAWS,
        partial(
            edited,
            augment.random_offsets_and_flips,
            (_OFFSETS, f"jnp.tile({_OFFSETS.replace('(n, 2)', '(1, 2)')}, (n, 1))"),
        ),
    ),
    _mutant(
        "last offset never drawn",
        "crops reach 2 * padding - 1 only, as where the upper bound was taken for included",
        _DRAWS,
        partial(
            edited, augment.random_offsets_and_flips, (_OFFSETS, _OFFSETS.replace(" + 1,", ","))
        ),
    ),
    _mutant(
        "the same order in each epoch",
        "pictures are shuffled once",
        _EPOCHS,
        partial(edited, step.Batches.order, ("step // self.steps_per_epoch", "0")),
    ),
    _mutant(
        "drawn with replacement",
        "an epoch has some pictures twice, and others not at all",
        _EPOCHS,
        partial(
            edited,
            step.Batches.order,
            (
                "jax.random.permutation(order_key, pictures)",
                "jax.random.randint(order_key, (pictures,), 0, pictures)",
            ),
        ),
    ),
    _mutant(
        "one batch again and again",
        "every step of an epoch sees its first pictures",
        _EPOCHS,
        partial(
            edited,
            step.Batches.indices,
            ("(step % self.steps_per_epoch) * self.batch_size", "0 * step"),
        ),
    ),
    _mutant(
        "labels in the files' order",
        "pictures are shuffled, their labels are not",
        Place("data path", "labels"),
        partial(
            edited,
            step.make_train_chunk,
            (
                "batch = images[indices], labels[indices]",
                "start = state.step % batches.steps_per_epoch * batches.batch_size\n"
                "            rows = start + jax.numpy.arange(batches.batch_size)\n"
                "            batch = images[indices], labels[rows]",
            ),
        ),
    ),
    _mutant(
        "planes read as pixels",
        "the files' planes of red, green and blue are read as pixels of three bytes",
        _FILES,
        partial(edited, datasets._read_split, (_STACKED, "pixels.reshape(-1, 32, 32, 3)")),
    ),
    _mutant(
        "pictures transposed",
        "rows of pixels are read as columns",
        _FILES,
        partial(edited, datasets._read_split, (_STACKED, f"{_STACKED}.swapaxes(1, 2)")),
    ),
    _mutant(
        "blue for red",
        "channels come in the order blue, green, red",
        _FILES,
        partial(edited, datasets._read_split, (_STACKED, f"{_STACKED}[..., ::-1]")),
    ),
    _mutant(
        "labels shifted",
        "a picture has the label of the one before",
        _FILES,
        partial(
            edited,
            datasets._read_split,
            ("labels.append(file_labels", "labels.append(np.roll(file_labels, 1)"),
        ),
    ),
    _mutant(
        "coarse labels",
        "CIFAR-100's superclasses are read for its classes",
        Place("data path", "files", "cifar100"),
        partial(
            edited,
            datasets._parse_binary,
            ("records[:, spec.label_bytes - 1]", "records[:, 0]"),
        ),
    ),
)
