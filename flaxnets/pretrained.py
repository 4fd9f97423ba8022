"""Published weights: torchvision's files and timm's repositories on the Hugging Face Hub."""

import hashlib
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from flaxnets import registry, rules
from flaxnets.checkpoint_files import import_reader
from flaxnets.matching import CheckpointError
from flaxnets.torch_bridge import load_torch

TORCHVISION_URL = "https://download.pytorch.org/models/"

# SHA-256 of torchvision's files (torchvision 0.29, ``get_model_weights``), as far as their names
# give it: the first 8 digits.
TORCHVISION: dict[str, dict[str, str]] = {
    "resnet18": {"IMAGENET1K_V1": "f37072fd"},
    "resnet34": {"IMAGENET1K_V1": "b627a593"},
    "resnet50": {"IMAGENET1K_V1": "0676ba61", "IMAGENET1K_V2": "11ad3fa6"},
    "resnet101": {"IMAGENET1K_V1": "63fe2227", "IMAGENET1K_V2": "cd907fc2"},
    "resnet152": {"IMAGENET1K_V1": "394f9c45", "IMAGENET1K_V2": "f82ba261"},
    "wide_resnet50_2": {"IMAGENET1K_V1": "95faca4d", "IMAGENET1K_V2": "9ba9bcbe"},
    "wide_resnet101_2": {"IMAGENET1K_V1": "32ee1156", "IMAGENET1K_V2": "d733dc28"},
    "resnext50_32x4d": {"IMAGENET1K_V1": "7cdf4587", "IMAGENET1K_V2": "1a0047aa"},
    "resnext101_32x8d": {"IMAGENET1K_V1": "8ba56ff5", "IMAGENET1K_V2": "110c445d"},
    "resnext101_64x4d": {"IMAGENET1K_V1": "173b62eb"},
    "densenet121": {"IMAGENET1K_V1": "a639ec97"},
    "densenet161": {"IMAGENET1K_V1": "8d451a50"},
    "densenet169": {"IMAGENET1K_V1": "b2777c0a"},
    "densenet201": {"IMAGENET1K_V1": "c1103571"},
}


def create(
    name: str,
    *,
    rngs: nnx.Rngs,
    dtype: Dtype = jnp.float32,
    param_dtype: Dtype = jnp.float32,
    pretrained: str | None = None,
    **overrides: Any,
) -> registry.Model:
    """A named network in training mode, newly initialised or with published weights:
    ``create("wrn_28_10", rngs=nnx.Rngs(0))``.

    Args:
        name: one of ``list_models()`` or a family alias.
        rngs: streams ``params`` and, with dropout, ``dropout``; ``nnx.Rngs(seed)`` has both.
        dtype: compute dtype; batch norm stays in float32 or wider.
        param_dtype: dtype of the parameters.
        pretrained: "torchvision" (its first weights; "torchvision/IMAGENET1K_V2" for the second;
            checked by its SHA-256), or a repository of timm's, such as "timm/resnet50.tv_in1k".
            Downloaded once, and kept where torch and ``huggingface_hub`` keep such files. With
            another
            ``num_classes`` than the weights' the classifier is newly initialised.
        overrides: fields of the network's config, such as ``num_classes=100`` or ``dropout=0.3``.

    Returns:
        A module that takes pictures (N, H, W, 3) to logits (N, num_classes).

    Raises:
        CheckpointError: the weights can't be had (the message says which file to put where), or are
            not this network's.
        ValueError: unknown name, option or weights, or an invalid value; near misses are suggested.
    """
    config = registry.get_config(name, **overrides)
    if pretrained is None:
        return registry.build(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
    published = registry.get_config(name).num_classes
    head = "keep" if config.num_classes == published else "new"
    return load_torch(
        pretrained_file(name, pretrained),
        name,
        head=head,  # type: ignore[arg-type]
        rngs=rngs,
        dtype=dtype,
        param_dtype=param_dtype,
        **overrides,
    )


def pretrained_file(name: str, pretrained: str) -> Path:
    """The file of published weights, downloaded if it is not here yet.

    Args:
        name: of the network.
        pretrained: as in ``create``.

    Raises:
        CheckpointError: it can't be downloaded, or is damaged.
        ValueError: there are no such weights.
    """
    name = registry.canonical_name(name)
    source, _, tag = pretrained.partition("/")
    if source == "torchvision":
        return _torchvision_file(name, tag or "IMAGENET1K_V1")
    if source == "timm" and tag:
        return _timm_file(name, pretrained, tag)
    raise ValueError(
        f"pretrained={pretrained!r} is neither 'torchvision', 'torchvision/IMAGENET1K_V2' nor a "
        "repository such as 'timm/resnet50.tv_in1k'"
    )


def _torchvision_file(name: str, tag: str) -> Path:
    rules.require(
        name in TORCHVISION,
        f"torchvision has weights of {', '.join(TORCHVISION)}, and none of {name}",
    )
    rules.require_choice(f"pretrained weights of {name}", tag, TORCHVISION[name])
    digest = TORCHVISION[name][tag]
    file = f"{name}-{digest}.pth"
    hub = import_reader("torch.hub", "torch", file)
    path = Path(hub.get_dir()) / "checkpoints" / file
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            hub.download_url_to_file(TORCHVISION_URL + file, str(path), hash_prefix=digest)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"{TORCHVISION_URL}{file} could not be downloaded ({error}). Where there is no "
                f"network, fetch it elsewhere and put it at {path}"
            ) from error
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if not found.startswith(digest):
        raise CheckpointError(
            f"{path} is damaged, or another file: its SHA-256 begins with {found[:8]}, not with "
            f"{digest}. Delete it, and it is downloaded again"
        )
    return path


def _timm_file(name: str, repository: str, tag: str) -> Path:
    if tag.partition(".")[0] != name:
        raise ValueError(f"{repository} has weights of {tag.partition('.')[0]}, not of {name}")
    file = "model.safetensors"
    hub = import_reader("huggingface_hub", "huggingface_hub", repository)
    try:
        return Path(hub.hf_hub_download(repository, file))
    except Exception as error:  # the hub's own errors, its client's and the network's
        place = os.environ.get("HF_HUB_CACHE") or hub.constants.HF_HUB_CACHE
        raise CheckpointError(
            f"{file} of {repository} could not be had ({type(error).__name__}). Where there is no "
            f"network, run `hf download {repository} {file}` elsewhere and copy the folder "
            f"models--timm--{tag} to {place}; or pass the file itself to flaxnets.load_torch"
        ) from error
