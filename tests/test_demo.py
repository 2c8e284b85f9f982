"""The demo: its plan is the default one, and its data are what it says."""

from pathlib import Path

import torch

from suture import demo
from suture.training import Augment
from suture.treatments import load_plan


def test_its_plan_is_auto_without_mirroring(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text(demo.PLAN)
    plain = Augment(pad=1, flip=False)
    assert load_plan(str(tmp_path / "demo.toml")) == load_plan("auto").model_copy(update={"augment": plain})


def test_what_is_met_is_not_what_was_learnt() -> None:
    clean, met = demo.clean(), demo.photographed()
    assert len(clean) == demo.TRAINED_ON
    assert len(clean) + len(met) == 1797
    inputs, label = met[0]
    assert inputs.shape == (1, demo.SIDE, demo.SIDE)
    assert met.classes[label] in "0123456789"
    with torch.no_grad():
        assert demo.network()(inputs[None]).shape == (1, 10)
