"""Fixtures shared by all tests: a toy case that trains in a second, and the real data where it is there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from suture.case import Case
from suture.images import ImageFolder, ImageFormat
from suture.loading import load_model
from tests import toys

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
CIFAR = ImageFormat((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 32)


torch.set_num_threads(1)  # for what sessions and modules set up before their first test


@pytest.fixture(autouse=True)
def one_thread_fixed_seed() -> Iterator[None]:
    """Sums in one order, and random numbers that no other test has drawn from."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(1)  # whatever the test did: what is set up next comes before this fixture
    assert torch.is_grad_enabled(), "a test or the code it ran left gradients switched off"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data: {SHARED} is absent")
    return SHARED


@pytest.fixture
def toy_case() -> Case:
    """A network that learnt three clusters and meets shifted ones: about a quarter of them wrong."""
    return toys.case()


class EveryNth(torch.utils.data.Dataset):
    """A data set thinned out: every n-th example of each class's run."""

    def __init__(self, data: ImageFolder, step: int) -> None:
        self.data, self.classes = data, data.classes
        self.positions = range(0, len(data), step)
        self.names = [data.names[i] for i in self.positions]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.data[self.positions[i]]


@pytest.fixture(scope="session")
def cifar_model(shared: Path) -> torch.nn.Module:
    """ResNet-20 trained on clean CIFAR-10."""
    return load_model(f"{ROOT}/examples/cifar_resnet/model.py:resnet20", shared / "weights/resnet20-12fca82f.th")


@pytest.fixture(scope="session")
def cifar_images(shared: Path) -> EveryNth:
    """About 500 of the JPEG test images."""
    return EveryNth(ImageFolder(shared / "data/cifar10_jpeg_test_a.zip", CIFAR), 10)


@pytest.fixture
def cifar_case(cifar_model: torch.nn.Module, cifar_images: EveryNth) -> Case:
    """The real network on real pictures that it was not made for."""
    return Case(cifar_model, cifar_images, image=CIFAR)
