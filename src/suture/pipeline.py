"""A run: the stages in order, each done once for what it was asked, stopped and resumed anywhere."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property, partial
from importlib.metadata import version
from itertools import chain, combinations
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from suture.asked import Asked
from suture.case import Case
from suture.causes.label_errors import find_label_issues
from suture.claim import asked_in, claimed, refuse_other_case
from suture.errors import InvalidArgumentError, MissingFileError, RunError
from suture.history import History, load_history
from suture.patch import apply, canonical_state
from suture.registry import suggest
from suture.rundir import LOOKS, MADE_FROM, STAGES, RunDir, fingerprint, read_json, write_json
from suture.splits import SPLITS
from suture.stages.diagnose import ASKED, Diagnosis, diagnose
from suture.stages.drift import Drift, untouched_examples
from suture.stages.exclusion import SUSPECTS, Exclude
from suture.stages.localize import Localization, localize
from suture.stages.must_keep import places_of
from suture.stages.result import Result
from suture.stages.scan import Scan, scan
from suture.stages.treat import Treatment, treat, with_baselines, with_twin
from suture.stages.verify import Verification, verify
from suture.training import Checkpoints
from suture.treatments import Groups, Plan, known_groups, load_plan
from suture.views.page import FILE, report

R = TypeVar("R", bound=Result)
RESULTS: dict[str, type[Result]] = {
    "scan": Scan,
    "localize": Localization,
    "diagnose": Diagnosis,
    "treat": Treatment,
    "verify": Verification,
}
BESIDE = {"twin": with_twin, "baselines": with_baselines}  # what may be added to a treatment, in this order


class Run:
    """A run directory and the case it answers.

    Every stage method returns the stored result when it was made from the same inputs and options, and does
    the stage otherwise.

    Attributes:
        case: what is treated.
        directory: where results are.
        asked: how to build the case again, where it was asked for by name.
    """

    def __init__(
        self, case: Case, out: str | Path, say: Callable[[str], None] | None = None, asked: Asked | None = None
    ) -> None:
        self.case, self.directory, self.asked = case, RunDir(out), asked
        self._say = say or (lambda _: None)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the directory while stages are done, then bring a page that is there up to date.

        See `suture.claim.claimed`.
        """
        with claimed(self.directory, self.case, self.asked):
            yield
            if (self.directory.path / FILE).exists():
                try:
                    self.report()
                except Exception as error:  # what was done is saved, whatever cannot be drawn
                    self._tell(f"{self.directory.path / FILE} is older than this result: {error}")

    @cached_property
    def _base(self) -> str:
        return fingerprint(self.case.fingerprint, version("suture"))

    def scan(self, history: str | Path | pd.DataFrame | History) -> Scan:
        """Damping regimes of the training that made the model."""
        history = history if isinstance(history, History) else load_history(history)
        key = fingerprint("scan", version("suture"), history.fingerprint)
        return self._stage("scan", Scan, key, lambda: scan(history))

    def localize(
        self, localizers: str | Sequence[str] = "default", rule: str = "default", max_memory: int | None = None
    ) -> Localization:
        """Scores of every group on the errors of `diagnose`, whatever memory they may take."""
        chosen = localizers if isinstance(localizers, str) else list(localizers)
        key = fingerprint("localize", self._base, chosen, rule)
        return self._stage(
            "localize", Localization, key, lambda: localize(self.case, localizers, rule, max_memory=max_memory)
        )

    def diagnose(self, causes: int | None = None) -> Diagnosis:
        """Confusion pairs of the errors, and their causes.

        Args:
            causes: as for `suture.diagnose`.
        """
        causes = ASKED if causes is None else causes
        localization = self._needed("localize", Localization)
        key = fingerprint("diagnose", Diagnosis.schema, self.directory.key("localize"), causes)
        return self._stage("diagnose", Diagnosis, key, lambda: diagnose(self.case, localization, causes=causes))

    def treat(
        self,
        plan: str | Plan = "default",
        *,
        exclude: Exclude | None = None,
        twin: bool = False,
        baselines: bool = False,
    ) -> Treatment:
        """The patch; resumes after the last finished epoch. Twin and baselines are added to a treatment without them.

        Args:
            plan, exclude, twin, baselines: as for `suture.treat`.
        """
        localization = self._needed("localize", Localization)
        plan = load_plan(plan, self.case.protocol)
        more = list[str]()
        if exclude is not None:
            out = exclude if isinstance(exclude, str) else [x if isinstance(x, str) else int(x) for x in exclude]
            more += [fingerprint("exclude", out)]
        key = fingerprint("treat", self.directory.key("localize"), plan.model_dump(mode="json"), *more)
        directory = self.directory.stage("treat")
        some = chain.from_iterable(combinations(BESIDE, k) for k in range(len(BESIDE) + 1))
        keys = {has: fingerprint(key, *has) if has else key for has in some}
        there = next((has for has, made in keys.items() if made == self.directory.key("treat")), None)
        checkpoints = Checkpoints(directory, key)
        do = partial(treat, self.case, localization, plan, exclude=exclude, checkpoints=checkpoints, say=self._tell)
        result = self._stage("treat", Treatment, key, do) if there is None else Treatment.load(directory)
        there = there or ()
        for name in [name for name, asked in (("twin", twin), ("baselines", baselines)) if asked and name not in there]:
            there = tuple(each for each in BESIDE if each in there or each == name)
            self._tell(f"{name} …")
            under_way = Checkpoints(directory, keys[there])
            result = BESIDE[name](
                result, self.case, localization, exclude=exclude, checkpoints=under_way, say=self._tell
            )
            result.save(directory, keys[there])
            self.directory.log(f"{name} done")
        checkpoints.clear()
        return result

    def verify(self, untouched: Any = None, must_keep: Sequence[str | int] | None = None) -> Verification:
        """Before against after on `verify`; the result says how many patches these examples have judged.

        What an earlier look at the same patch measured on untouched data is kept unless other data are given.

        Args:
            untouched, must_keep: as for `suture.verify`.
        """
        treatment = self._needed("treat", Treatment)
        apply(canonical_state(self.case.model), treatment.patch)  # a stored verdict is of the patch as it was made
        examples = untouched_examples(self.case, untouched) if untouched is not None else None
        judged = self._judged(treatment.patch.base, treatment.patch.result)
        others = [self._judged(treatment.patch.base, str(result)) for result in treatment.baselines["result"]]
        asked = [examples.fingerprint if examples else None, list(must_keep) if must_keep is not None else None]
        metadata = {name: list(map(str, values)) for name, values in self.case.splits["verify"].metadata.items()}
        twin = treatment.twin.result if treatment.twin is not None else None
        more: list[Any] = [*asked, twin, metadata or None]
        more += [others] if others else []  # a run without baselines keeps the key it had
        key = fingerprint(judged, more) if any(each is not None for each in more) else judged
        looks = self._looks()
        chosen = looks["beside"] if judged in looks["beside"] else []  # taken since it did well beside another
        count = len({*looks["judged"], *chosen, judged})

        def do() -> Verification:
            found = verify(self.case, treatment, untouched=examples, must_keep=must_keep, looks=count)
            return found if examples is not None else replace(found, drift=self._measured_before())

        result = self._stage("verify", Verification, key, do)
        shown = [each for each in others if each != judged]
        more_looks = {"judged": [*looks["judged"], judged], "beside": [*looks["beside"], *shown]}
        more_looks = {name: list(dict.fromkeys(patches)) for name, patches in more_looks.items()}
        if more_looks != looks:
            write_json(self.directory.stage("verify") / LOOKS, more_looks)
        return result

    def _judged(self, base: str, result: str) -> str:
        """What stands for a patch in the list of looks."""
        return fingerprint("verify", self._base, base, result)

    def _looks(self) -> dict[str, list[str]]:
        """Which patches `verify` has judged, and which it has shown beside one."""
        path = self.directory.stage("verify") / LOOKS
        found = read_json(path) if path.exists() else []
        found = found if isinstance(found, dict) else {"judged": found}
        return {name: list(found.get(name) or []) for name in ("judged", "beside")}

    def _measured_before(self) -> Drift | None:
        """The drift of a finished Verify, which is of the patch that Treat left: another treatment forgets it."""
        with suppress(MissingFileError, RunError):  # there is none, or it can no longer be read
            return Verification.load(self.directory.stage("verify")).drift
        return None

    def stored(self, name: str) -> Result | None:
        """What a stage found, whatever it was asked; None where it is not finished, or what it read is not."""
        before = [earlier for earlier, readers in MADE_FROM.items() if name in readers]
        if any(self.directory.key(each) is None for each in (*before, name)):
            return None
        return RESULTS[name].load(self.directory.stage(name))

    def report(self) -> Path:
        """Write ``report.html``."""
        return report(self.directory.path)

    def _stage(self, name: str, kind: type[R], key: str, do: Callable[[], R]) -> R:
        if self.directory.key(name) == key:
            return kind.load(self.directory.stage(name))
        self._tell(f"{name} …")
        result = do()
        self.directory.drop(name)
        kind.clear(self.directory.stage(name))
        result.save(self.directory.stage(name), key)
        self.directory.log(f"{name} done")
        return result

    def _needed(self, name: str, kind: type[R]) -> R:
        if self.directory.key(name) is None:
            raise RunError(
                f"{self.directory.path} has no finished {name}; run suture {name} {self.directory.path} first"
            )
        return kind.load(self.directory.stage(name))

    def _tell(self, message: str) -> None:
        self.directory.log(message)
        self._say(message)


def run(
    case: Case,
    out: str | Path,
    *,
    history: str | Path | pd.DataFrame | None = None,
    localizers: str | Sequence[str] = "default",
    rule: str = "default",
    max_memory: int | None = None,
    causes: int | None = None,
    plan: str | Plan = "default",
    twin: bool = False,
    baselines: bool = False,
    exclude_suspects: bool = False,
    must_keep: Sequence[str | int] | None = None,
    until: str | None = None,
    redo: str | None = None,
    asked: Asked | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Result]:
    """Scan → Localize → Diagnose → Treat → Verify, and the report.

    May be killed at any time: the same call continues, inside Treat after the last finished epoch, and ends
    with the result of an undisturbed run.

    Args:
        case: what to repair.
        out: the run directory; made when it does not exist.
        history: a log of the training, for Scan, which is skipped without one.
        localizers, rule, max_memory: as for `localize`.
        causes: as for `diagnose`.
        plan, twin, baselines: as for `treat`.
        exclude_suspects: as ``exclude="suspects"`` for `treat`.
        must_keep: as for `suture.verify`.
        until: the last stage to do.
        redo: the first stage to do again even if it was finished.
        asked: how to build the case again, for the commands that take the run directory alone.
        say: called with a line of text when a stage begins.

    Returns:
        Stage → result, for the stages that were reached.

    Raises:
        RunError: the directory belongs to another case, or another process works in it.
    """
    check_stages(until, redo)
    if until and redo and STAGES.index(redo) > STAGES.index(until):
        raise InvalidArgumentError(f"--redo {redo} lies behind --until {until}, so it would be lost and not made again")
    if redo == "scan" and history is None:
        raise InvalidArgumentError("--redo scan needs --history, the training log that is scanned")
    plan = load_plan(plan, case.protocol)
    if isinstance(plan.where, Groups):
        known_groups(case.groups, plan.where.names)
    for split in SPLITS:
        case.splits[split]  # a missing one is said before anything is written
    if exclude_suspects:
        find_label_issues()
    places_of(case, must_keep or [])
    this = Run(case, out, say, asked)
    with claimed(this.directory, case, asked):
        if redo:
            this.directory.forget(redo)
        steps: dict[str, Callable[[], Result]] = {
            "localize": lambda: this.localize(localizers, rule, max_memory),
            "diagnose": lambda: this.diagnose(causes),
            "treat": lambda: this.treat(
                plan, exclude=SUSPECTS if exclude_suspects else None, twin=twin, baselines=baselines
            ),
            "verify": lambda: this.verify(must_keep=must_keep),
        }
        if history is not None:
            steps = {"scan": lambda: this.scan(history)} | steps
        results: dict[str, Result] = {}
        for name, step in steps.items():
            if until and STAGES.index(name) > STAGES.index(until):
                break
            results[name] = step()
        this.report()
    return results


def check_stages(*stages: str | None) -> None:
    """Refuse a stage that there is not.

    Raises:
        InvalidArgumentError: no such stage.
    """
    for stage in stages:
        if stage is not None and stage not in STAGES:
            raise InvalidArgumentError(f"there is no stage '{stage}'; {suggest(stage, list(STAGES))}")


def open_run(
    path: str | Path, say: Callable[[str], None] | None = None, check: Callable[[], object] | None = None
) -> Run:
    """The run in a directory, with its case built again from what was asked.

    Args:
        check: as for `suture.asked.Asked.case`.

    Raises:
        RunError: the directory is no run, was made from Python objects, or its files have changed since.
    """
    directory = RunDir(path)
    asked = asked_in(directory)
    case = asked.case(check)
    refuse_other_case(directory, case, asked)
    return Run(case, path, say, asked)
