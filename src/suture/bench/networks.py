"""Networks with answers: healthy networks by name, and examples to damage, look at and treat them with.

A network of one's own is a function and a line::

    @suture.bench.networks.network("mine")
    def mine(source):
        return Subject("mine", model, trained_on, held_out)
"""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

import filelock
import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from suture.bench.architectures import Plain, Residual
from suture.bench.examples import Pairs
from suture.errors import DataError, InvalidArgumentError, MissingFileError
from suture.images import ImageFormat, decode
from suture.listing import SUFFIXES
from suture.loading import load_model
from suture.registry import Registry
from suture.rundir import fingerprint, replacing
from suture.tasks import Batch, Classification
from suture.training import Augment, Checkpoints, train

CIFAR = ImageFormat((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DIGITS = ImageFormat((0.3,), (0.35,))
SIDE = 16  # the 8x8 digits are enlarged, so that a network with strides has something to look at
TRAINED_ON = 497  # of 1,797 digits
TRAIN, TEST = "data/cifar10_jpeg_train.zip", "data/cifar10_jpeg_test_a.zip"
LESSONS, RECORDED = 20_000, 1000  # training pictures: that `plain` learns from, that a record is taken on

POOLS = {"diagnose": 1000, "calibrate": 250, "finetune": 400, "oracle_train": 600, "oracle_score": 400}
FEW = {"diagnose": 500, "calibrate": 200, "finetune": 150, "oracle_train": 250, "oracle_score": 200}


@dataclass(frozen=True, eq=False)
class Subject:
    """A healthy network and its examples.

    Attributes:
        model: in eval mode; nobody changes it.
        trained_on: examples like those it learnt from, for a record of health.
        held_out: examples that it never saw, which the pools are cut from.
        image: how its pictures were normalised.
        sizes: examples in each pool.
    """

    name: str
    model: nn.Module
    trained_on: Pairs
    held_out: Pairs
    image: ImageFormat
    sizes: Mapping[str, int] = field(default_factory=lambda: POOLS)

    def pools(self, seed: int, sizes: Mapping[str, int] | None = None) -> dict[str, Pairs]:
        """Name → examples, drawn by seed from `held_out`; no example stands in two of them.

        `diagnose` is what localizers see, `calibrate` is where a fault's drop is measured, `finetune` teaches the
        fault of that name, `oracle_train` and `oracle_score` are for the oracle alone.

        Args:
            sizes: pool → examples, in place of the network's own.

        Raises:
            DataError: there are not enough.
        """
        sizes = self.sizes if sizes is None else sizes
        needed = sum(sizes.values())
        if needed > len(self.held_out):
            raise DataError(f"the network '{self.name}' has {len(self.held_out)} held-out examples; it takes {needed}")
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(self.held_out)))
        parts = torch.split(order[:needed], list(sizes.values()))
        return {name: Pairs(*self.held_out.read_batch(part.tolist())) for name, part in zip(sizes, parts, strict=True)}


@dataclass(frozen=True)
class Source:
    """Where a network's files are.

    Attributes:
        data: the folder that has ``data/`` and ``weights/``; empty when none was given.
        weights: a file of weights in place of the network's own; empty for none.
        cache: a folder to keep in what takes long to train; None keeps nothing.
    """

    data: str = ""
    weights: str = ""
    cache: Path | None = None

    def file(self, name: str, network: str) -> Path:
        """A file below `data`.

        Raises:
            MissingFileError: saying what to pass.
        """
        path = Path(self.data) / name
        if not self.data or not path.is_file():
            raise MissingFileError(
                f"the network '{network}' needs {name} and there is no {path if self.data else 'folder given'}; pass "
                "as `data` the folder that has data/ and weights/"
            )
        return path


Builder = Callable[[Source], Subject]
NETWORKS: Registry[Builder] = Registry("network of the bench")


def network(name: str) -> Callable[[Builder], Builder]:
    """Decorator that registers a function Source → Subject."""
    return NETWORKS.register(name)


@cache
def load_subject(name: str, data: str = "", weights: str = "", cache: Path | None = None) -> Subject:
    """A network by name, kept in memory.

    Raises:
        UnknownNameError: no such network.
        MissingFileError: it needs files that are not there.
    """
    return NETWORKS[name](Source(data, weights, cache))


@network("digits")
def digits(source: Source) -> Subject:
    """A residual network with BatchNorm and seven groups on scikit-learn's digits, trained in seconds."""
    return _on_digits("digits", digits_network, source)


@network("digits-adam")
def digits_adam(source: Source) -> Subject:
    """The residual network of the digits, trained by Adam (paper: lr 1e-3, weight decay 5e-4)."""
    return _on_digits("digits-adam", digits_network, source, _adam)


@network("digits-plain")
def digits_plain(source: Source) -> Subject:
    """A network without BatchNorm on the same digits."""
    return _on_digits("digits-plain", lambda: Plain(8, (8, 16, 32), SIDE, 32, 1), source)


@network("resnet20")
def resnet20(source: Source) -> Subject:
    """ResNet-20 trained on clean CIFAR-10, seen through JPEG."""
    return _pretrained("resnet20", 3, "weights/resnet20-12fca82f.th", source)


@network("resnet44")
def resnet44(source: Source) -> Subject:
    """ResNet-44 trained on clean CIFAR-10, seen through JPEG."""
    return _pretrained("resnet44", 7, "weights/resnet44-014dd654.th", source)


@network("plain")
def plain(source: Source) -> Subject:
    """A VGG-like network without BatchNorm on CIFAR-10; trained here for minutes unless weights are given."""
    test = Pairs(*_pictures(source.file(TEST, "plain")))
    training = source.file(TRAIN, "plain")
    build = lambda: Plain(24, (32, 64, 128), 32, 128, 3)  # noqa: E731
    if source.weights:
        return Subject("plain", load_model(build, source.weights), Pairs(*_pictures(training, RECORDED)), test, CIFAR)
    if source.cache is None:
        raise InvalidArgumentError("the network 'plain' takes minutes to train; pass its weights, or run it in a study")
    source.cache.mkdir(parents=True, exist_ok=True)
    kept = source.cache / "plain.safetensors"
    with filelock.FileLock(source.cache / "plain.lock"):  # cells that start together train it once
        if not kept.exists():
            lessons = Pairs(*_pictures(training, LESSONS))
            checkpoints = Checkpoints(source.cache / "plain", fingerprint("plain", len(lessons)))
            model = taught(build, lessons, epochs=8, augment=Augment(), image=CIFAR, checkpoints=checkpoints)
            with replacing(kept) as temporary:
                save_file(model.state_dict(), temporary)
            checkpoints.clear()
    return Subject("plain", load_model(build, kept), Pairs(*_pictures(training, RECORDED)), test, CIFAR)


def lessons_of(network: str, source: Source, count: int) -> Pairs:
    """Examples that a network was trained on, drawn by a fixed seed: at most so many."""
    if network.startswith("digits"):
        return all_digits()[0]
    return Pairs(*_pictures(source.file(TRAIN, network), count))


def digits_network() -> nn.Module:
    """The residual network of the digits at random weights: conv1, bn1, layer1 to layer4, linear."""
    return Residual((8, 8, 16, 32), 1, 1)


def taught(
    build: Callable[[], nn.Module],
    lessons: Pairs,
    *,
    epochs: int,
    seed: int = 0,
    optimizer: Callable[[nn.Module], Optimizer] | None = None,
    max_lr: float = 0.03,
    augment: Augment | None = None,
    image: ImageFormat | None = None,
    checkpoints: Checkpoints | None = None,
) -> nn.Module:
    """A network trained by one cycle of the learning rate, stepped by epoch; batches of 64, gradients clipped to 1.

    Everything random follows from the seed. Without `optimizer` it is SGD, momentum 0.9, weight decay 5e-4.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
    with_momentum = torch.optim.SGD(model.parameters(), lr=max_lr, momentum=0.9, weight_decay=5e-4)
    chosen = optimizer(model) if optimizer else with_momentum
    cycle = OneCycleLR(chosen, max_lr, total_steps=epochs + 1, cycle_momentum=False)
    run = train(
        model, lessons, Classification(), chosen, [cycle], epochs=epochs, batch_size=64, seed=seed,
        device=torch.device("cpu"), augment=augment, image=image, clip=1.0, checkpoints=checkpoints,
    )  # fmt: skip
    if run.stopped:
        raise DataError(f"a network of the bench could not be trained: {run.stopped}")
    return model.eval()


def all_digits() -> tuple[Pairs, Pairs]:
    """Digits to learn from and digits to hold out, as inputs (n, 1, 16, 16), in one fixed random order."""
    found = load_digits()
    order = np.random.default_rng(42).permutation(len(found.target))
    small = torch.from_numpy(found.images[order] / 16).float()[:, None]
    large = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    inputs, targets = (large - DIGITS.mean[0]) / DIGITS.std[0], torch.from_numpy(found.target[order].astype(np.int64))
    return Pairs(inputs[:TRAINED_ON], targets[:TRAINED_ON]), Pairs(inputs[TRAINED_ON:], targets[TRAINED_ON:])


def _adam(model: nn.Module) -> Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-4)


def _on_digits(
    name: str,
    build: Callable[[], nn.Module],
    source: Source,
    optimizer: Callable[[nn.Module], Optimizer] | None = None,
) -> Subject:
    lessons, held_out = all_digits()
    if source.weights:
        model = load_model(build, source.weights)
    else:
        model = taught(
            build, lessons, epochs=24, max_lr=0.1 if optimizer is None else 1e-3, optimizer=optimizer,
            augment=Augment(pad=1, flip=False), image=DIGITS,
        )  # fmt: skip
    return Subject(name, model, lessons, held_out, DIGITS, FEW)


def _pretrained(name: str, blocks: int, weights: str, source: Source) -> Subject:
    path = Path(source.weights) if source.weights else source.file(weights, name)
    model = load_model(lambda: Residual((16, 32, 64), blocks, 3), path)
    record = Pairs(*_pictures(source.file(TRAIN, name), RECORDED))
    return Subject(name, model, record, Pairs(*_pictures(source.file(TEST, name))), CIFAR)


def _pictures(path: Path, most: int | None = None) -> Batch:
    """Inputs (n, 3, 32, 32) and labels (n,) of a zip with a folder per class; at most some, drawn by a fixed seed."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if PurePosixPath(n).suffix.lower() in SUFFIXES)
            folders = [PurePosixPath(n).parent.name for n in names]
            chosen = np.sort(np.random.default_rng(0).permutation(len(names))[:most])
            pixels = np.stack([decode(archive.read(names[i]), CIFAR) for i in chosen])
    except (zipfile.BadZipFile, ValueError) as error:
        raise DataError(f"{path} is no zip of pictures ({error})") from error
    classes = sorted(set(folders))
    labels: Tensor = torch.tensor([classes.index(folders[i]) for i in chosen])
    return CIFAR.normalise(pixels), labels
