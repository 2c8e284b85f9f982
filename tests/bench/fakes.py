"""Rows of a bench that was never run."""

GROUPS = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "linear"]


def fault_rows() -> list[dict[str, object]]:
    """Every group damaged by two kinds; one localizer is always right, one always says layer3."""
    return [
        {
            "network": "digits", "record": "none", "kind": kind, "group": group, "seed": 0, "planted": group,
            "localizer": name, "groups": 7, "named": named, "hit": named == group, "top2": named == group,
            "rank": 1.0 if named == group else 4.5, "alarm": None, "passes": 0.5, "error": None,
        }
        for kind in ("noise", "zero")
        for group in GROUPS
        for name, named in (("perfect", group), ("constant", "layer3"))
    ]  # fmt: skip
