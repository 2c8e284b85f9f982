"""How long SGD takes to settle on a quadratic, against its momentum, beside what theory says.

python examples/quadratic/settling.py            # prints a table, writes settling.svg beside this file
python examples/quadratic/settling.py figure.png # writes elsewhere; the suffix gives the format
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from suture import physics

STRENGTHS = (0.01, 0.03, 0.1, 0.2)  # λα: curvature times learning rate, all that the recurrence depends on
TOLERANCES = (1e-3, 1e-9, 1e-60)  # shares of the initial distance
FORMS = ("exact", "paper")
LR = 0.1
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito 2008


def grid(strengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Momenta to try: every 0.005 below 0.98, and the critical ones exactly; ascending."""
    critical = [np.atleast_1d(physics.critical_momentum(strengths, form=form)) for form in FORMS]
    momenta = np.unique(np.concatenate([np.arange(196) / 200, *critical]))
    return momenta[momenta >= 0]  # the paper's form is negative from λα = 1/4 on


def distances(strengths: NDArray[np.float64], momenta: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Distance |θ| to the minimum of ½λθ² that torch.optim.SGD leaves, from θ = 1 at rest, without weight decay.

    Args:
        strengths: λα, (s,).
        momenta: (m,).
        steps: how many.

    Returns:
        (steps + 1, m, s), float64.
    """
    curvatures = torch.tensor(strengths / LR)
    parameters = [torch.nn.Parameter(torch.ones_like(curvatures)) for _ in momenta]
    groups = [{"params": [p], "momentum": float(mu)} for p, mu in zip(parameters, momenta, strict=True)]
    optimizer = torch.optim.SGD(groups, lr=LR)
    path = np.ones((steps + 1, len(momenta), len(strengths)))
    for step in range(1, steps + 1):
        for p in parameters:
            p.grad = curvatures * p.detach()
        optimizer.step()
        path[step] = torch.stack([p.detach() for p in parameters]).abs().numpy()
    return path


def settling_times(path: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """The first step from which on the distance stays at or below the tolerance, (m, s); inf where it never does."""
    above = path > tolerance
    last = len(path) - 1 - np.argmax(above[::-1], axis=0)  # the start is above every tolerance
    return np.where(above[-1], np.inf, last + 1.0)


def table(strengths: NDArray[np.float64], momenta: NDArray[np.float64], path: NDArray[np.float64]) -> pd.DataFrame:
    """Per λα: critical momenta, the momentum that settled first for each tolerance, and steps to 1e-9."""
    rows = []
    for i, strength in enumerate(strengths):
        critical = {form: physics.critical_momentum(float(strength), form=form) for form in FORMS}
        row: dict[str, float] = {"lambda*lr": strength} | {f"{form} mu_c": critical[form] for form in FORMS}
        for tolerance in TOLERANCES:
            row[f"fastest {tolerance:.0e}"] = momenta[np.argmin(settling_times(path, tolerance)[:, i])]
        times = settling_times(path, 1e-9)[:, i]
        marks = {f"steps {form}": critical[form] for form in FORMS} | {"steps 0.9": 0.9}
        rows.append(row | {name: times[np.argmin(abs(momenta - mu))] for name, mu in marks.items()})
    return pd.DataFrame(rows)


def figure(strengths: NDArray[np.float64], momenta: NDArray[np.float64], path: NDArray[np.float64]) -> Figure:
    """Steps to a thousand-millionth of the distance against μ, a curve per λα, with both critical momenta."""
    fig = Figure(figsize=(7, 4.2), layout="constrained")
    ax = fig.add_subplot()
    times = settling_times(path, 1e-9)
    for i, (strength, colour) in enumerate(zip(strengths, COLOURS, strict=False)):
        theory = physics.settling_time(momenta, strength, tolerance=1e-9)
        ax.plot(momenta, times[:, i], lw=1.8, color=colour, label=f"λα = {strength:g}")
        ax.plot(momenta, theory, lw=0.9, ls="--", color=colour)
        for form, face in (("exact", colour), ("paper", "white")):
            mu = physics.critical_momentum(float(strength), form=form)
            ax.plot(mu, np.interp(mu, momenta, times[:, i]), "o", ms=7, mfc=face, mec=colour, zorder=3)
    ax.plot([], [], "o", ms=7, color="0.3", label="exact: (1 − √λα)²")
    ax.plot([], [], "o", ms=7, mfc="white", mec="0.3", label="paper: 1 − 2√λα")
    ax.plot([], [], lw=0.9, ls="--", color="0.3", label="theory, from the roots")
    ax.set(xlabel="momentum μ", ylabel="steps to 1e-9 of the distance", yscale="log", xlim=(0, 1))
    ax.set_ylim(times.min() * 0.8, 1500)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", ncols=2)
    return fig


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("settling.svg")
    strengths = np.array(STRENGTHS)
    momenta = grid(strengths)
    path = distances(strengths, momenta, steps=2000)
    found = table(strengths, momenta, path)
    print(found.to_string(index=False, float_format="{:.4g}".format))
    with mpl.rc_context({"svg.hashsalt": "settling", "svg.fonttype": "none"}):  # the same file from the same numbers
        figure(strengths, momenta, path).savefig(
            out, dpi=150, metadata={"Date": None} if out.suffix == ".svg" else None
        )
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
