"""Named plans, and plans from TOML files."""

from pathlib import Path

from suture.errors import InvalidArgumentError, UnknownNameError
from suture.registry import suggest
from suture.rundir import toml_in, validated
from suture.training import Augment, Recipe
from suture.treatments.arachne import Arachne
from suture.treatments.batchnorm import Recalibrate
from suture.treatments.each import EachBlock
from suture.treatments.finetune import STANDARD, FineTune
from suture.treatments.guards import EWC, L2SP, Distill
from suture.treatments.interpolate import Average
from suture.treatments.lastlayer import LastLayer
from suture.treatments.lora import LoRA
from suture.treatments.plan import NAMED, Choice, Nothing, Plan
from suture.treatments.route import Route
from suture.treatments.search import Search
from suture.treatments.where import Early, Entries, Everything, Last, Norms, Random, Ranked

# The paper's own (section 5.5 and Table 16): 30 epochs, cosine 0.01 → 1e-4, critical momentum, BatchNorm trained.
PAPER = FineTune(recipe=Recipe(), batchnorm="train", seen=None)
# The same with the Adam family for networks that Adam trained: steps of lr, whatever the scale of the gradients.
ADAM = FineTune(recipe=STANDARD.model_copy(update={"optimizer": "adamw", "lr": 5e-4, "lr_min": 5e-6}))
FASTER = FineTune(recipe=STANDARD.model_copy(update={"lr": 0.01, "lr_min": 1e-4}))
PLAIN = Augment(pad=0, flip=False)
# The one-standard-error rule (Breiman et al. 1984, section 3.4.3), as `Choice` has it.
BOUNDED = Choice(max_regression=0.05, broken_costs=2.0, switch_se=1.0)

_FULL = Plan(name="full", where=Everything())
_FLAGGED = Plan(name="flagged")
_BN_AFFINE = Plan(name="bn_affine", where=Norms(), how=FASTER)
_EARLY_FAST = Plan(name="early_fast", where=Early(), how=FASTER)
_CANDIDATES = (_EARLY_FAST, _BN_AFFINE, _FLAGGED, _FULL)
_BOTH = Plan(name="mean", how=Average(plans=(_EARLY_FAST, _BN_AFFINE)))

_PLANS = {
    plan.name: plan
    for plan in (
        # What each is good for differs from case to case; part of the way to their mean breaks least.
        Plan(name="auto", how=Search(plans=_CANDIDATES, most=3), choose=BOUNDED),
        # Table 13: gradient attribution; friction by group; the 30 % and 15 % of entries with the highest friction.
        Plan(name="A", how=PAPER),
        Plan(name="B", where=Ranked(localizer="friction"), how=PAPER),
        Plan(name="C", where=Entries(score="friction", share=0.30), how=PAPER),
        Plan(name="D", where=Entries(score="friction", share=0.15), how=PAPER),
        Plan(name="E", how=PAPER),
        Plan(name="adam", how=ADAM),
        _FLAGGED,
        Plan(name="early", where=Early()),
        Plan(name="per_block", how=EachBlock(how=FineTune())),
        Plan(name="iterative", cycles=3),
        Plan(name="ewc", guards=(EWC(),)),
        Plan(name="distill", where=Everything(), guards=(Distill(),)),
        Plan(name="route", how=Route(plan=_BOTH), choose=BOUNDED),
        Plan(name="lora", how=LoRA()),
        # Baselines.
        Plan(name="none", how=Nothing()),
        Plan(name="bn_recalibrate", how=Recalibrate()),
        _BN_AFFINE,
        Plan(name="last_layer", where=Last(), how=LastLayer()),
        Plan(name="arachne", where=Last(), how=Arachne()),
        _FULL,
        Plan(name="full_l2sp", where=Everything(), guards=(L2SP(),)),
        Plan(name="random_groups", where=Random()),
    )
}  # fmt: skip
for _name, _plan in _PLANS.items():
    NAMED.register(_name)(_plan)
PRESETS = NAMED
DEFAULT = "auto"
PAPER_DEFAULT = "A"


def load_plan(plan: str | Plan, protocol: str = "split") -> Plan:
    """A plan by name, from a TOML file, or as it is; the default is ``auto``, and ``A`` under protocol "paper".

    Raises:
        UnknownNameError: no preset of that name.
        MissingFileError: no such file.
        InvalidArgumentError: the file is no plan; the first wrong field is named.
    """
    if isinstance(plan, Plan):
        return plan
    name = plan if plan != "default" else PAPER_DEFAULT if protocol == "paper" else DEFAULT
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith(".toml"):
        raise UnknownNameError(f"no plan and no TOML file is called '{name}'; {suggest(name, list(PRESETS))}")
    path = Path(name)
    written = toml_in(path)
    return validated(Plan, {"name": path.stem} | written, name)  # not the base's, whose other fields stay


def within(plan: Plan, budget: float | None) -> Plan:
    """The plan with another budget, in multiples of one full fine-tuning; as it is without one.

    Raises:
        InvalidArgumentError: the plan tries nothing, so that there is nothing to bound, or the budget is not positive.
    """
    if budget is None:
        return plan
    if not isinstance(plan.how, Search):
        raise InvalidArgumentError(
            f"--budget goes with a plan that tries several, such as auto, not with '{plan.name}'"
        )
    if not budget > 0:
        raise InvalidArgumentError(f"--budget must be above 0, not {budget}")
    return plan.model_copy(update={"how": plan.how.model_copy(update={"budget": budget})})
