"""Figure, table and HTML of every result: ordinary, empty, strange and hostile."""

import doctest
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from suture.stats import Flips, Verdict
from suture.views import (
    bars,
    baselines,
    diagnose,
    localize,
    localize_tables,
    scan,
    style,
    text,
    treat,
    verify,
    verify_tables,
)
from suture.views.bars import drawing
from suture.views.export import markdown
from suture.views.grid import Column, Grid, escaped
from tests.views.results import (
    HOSTILE,
    SCRIPT,
    UNWRITABLE,
    cycled,
    diagnosed,
    diagnosed_without_classes,
    localized,
    localized_by_record,
    localized_without_errors,
    noise,
    routed,
    scanned,
    searched,
    treated,
    untreated,
    verified,
    verified_in_full,
    verified_long_ago,
    verified_unchanged,
    verified_without_classes,
    write_run,
)

VIEWS = {"scan": scan, "localize": localize, "diagnose": diagnose, "treat": treat, "verify": verify}
NAN = float("nan")
STRANGE = [*HOSTILE, UNWRITABLE]

DRAWN = {
    "scan": lambda: scanned(),
    "scan of one epoch": lambda: scanned(1),
    "long scan": lambda: scanned(3000),
    "scan without epoch numbers": lambda: scanned(epochs=scanned().epochs.assign(epoch=NAN)),
    "localize": lambda: localized(),
    "localize, many groups": lambda: localized([f"layer{i}.weight" for i in range(200)]),
    "localize, by record": lambda: localized_by_record(),
    "localize, by record, no gains": lambda: localized_by_record(pays=pd.DataFrame()),
    "localize, hostile": lambda: localized(STRANGE),
    "localize, no top": lambda: localized(top=None, flagged=[]),
    "localize, of an older suture": lambda: localized(
        low=pd.DataFrame(),
        high=pd.DataFrame(),
        first_share=pd.DataFrame(),
        pays=pd.DataFrame(),
        confidence=None,
        why="",
        cost={},
    ),
    "localize, hostile sentences": lambda: localized(why=SCRIPT, rule=SCRIPT, skipped={SCRIPT: UNWRITABLE}),
    "localize, no nulls": lambda: localized(
        null_correct=localized().scores * NAN, null_random=localized().scores * NAN
    ),
    "localize, one NaN": lambda: localized(scores=localized().scores.mask(localized().scores == 2.0)),
    "localize, infinite": lambda: localized(scores=localized().scores.replace(2.0, np.inf)),
    "localize, negative": lambda: localized(scores=-localized().scores),
    "localize, all zero": lambda: localized(scores=localized().scores * 0),
    "diagnose": lambda: diagnosed(),
    "diagnose, hostile": lambda: diagnosed(STRANGE, STRANGE),
    "diagnose, many": lambda: diagnosed([f"class {i}" for i in range(60)]),
    "diagnose, none attributed": lambda: diagnosed_without_classes_but_confusions(),
    "treat": lambda: treated(),
    "treat, hostile": lambda: treated(STRANGE, note=SCRIPT, kept=SCRIPT),
    "treat, one epoch": lambda: treated(history=treated().history.head(1)),
    "treat, several plans": lambda: searched(),
    "treat, many plans": lambda: searched([f"layer{i}" for i in range(40)]),
    "treat, hostile plans": lambda: searched(STRANGE, account=STRANGE, warnings=STRANGE),
    "treat, route": routed,
    "treat, cycles": cycled,
    "treat, no momentum": lambda: treated(history=treated().history.assign(momentum=None)),
    "verify": lambda: verified(),
    "verify, hostile": lambda: verified(STRANGE),
    "verify, in full": lambda: verified_in_full(),
    "verify, in full and hostile": lambda: verified_in_full(STRANGE, slices_left_out=STRANGE),
    "verify, long ago": verified_long_ago,
    "verify, without classes": verified_without_classes,
    "verify, unchanged": verified_unchanged,
    "verify, many classes": lambda: verified([f"class {i}" for i in range(300)]),
    "verify, unknown accuracies": lambda: verified(per_class=verified().per_class.assign(before=None, after=None)),
    "verify, nothing right": lambda: verified(moves=Flips(fixed=3, broken=0, both_right=0, both_wrong=7)),
}
EMPTY = {
    "scan, no epochs": lambda: scanned(epochs=scanned().epochs.head(0), counts={}),
    "localize, no errors": localized_without_errors,
    "diagnose, no classes": diagnosed_without_classes,
    "diagnose, no errors": lambda: diagnosed_without_classes(0),
    "treat, nothing": untreated,
    "treat, all NaN": lambda: treated(history=treated().history * NAN),
}


def diagnosed_without_classes_but_confusions() -> Any:
    found = diagnosed(pictures=False)
    return type(found)(pairs=found.pairs.head(0), confusion=found.confusion, n_errors=found.n_errors)


def printed(table: Any, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table, highlight=False)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", DRAWN.values(), ids=DRAWN.keys())
def test_every_figure_has_a_title_and_labelled_axes(make: Any) -> None:
    result = make()
    ax = result.plot()
    panels = ax.get_figure().axes
    assert all(panel.get_title(loc="left") for panel in panels)
    assert panels[-1].get_xlabel()
    assert ax.get_legend() or ax.get_ylabel() or len(ax.get_yticklabels())
    assert style.svg(lambda: VIEWS[result.stage].figure(result)).startswith(b"<?xml")


@pytest.mark.parametrize("make", EMPTY.values(), ids=EMPTY.keys())
def test_a_figure_of_nothing_is_a_sentence(make: Any) -> None:
    ax = make().plot()
    assert not ax.axison
    assert ax.texts[0].get_text().endswith(".")


@pytest.mark.parametrize("make", [*DRAWN.values(), *EMPTY.values()], ids=[*DRAWN, *EMPTY])
def test_tables_and_html_render_and_panels_are_never_empty(make: Any) -> None:
    result = make()
    printed(result.table(), width=60)
    html = result._repr_html_()
    assert html.startswith('<div class="suture notebook">')
    assert "<script" not in html
    assert "nan" not in html.split("</style>")[1].replace("data:image", "").lower().split("base64")[0]
    assert html.count("<tbody>\n</tbody>") == 0


@pytest.mark.parametrize("make", EMPTY.values(), ids=EMPTY.keys())
def test_a_missing_figure_is_left_out(make: Any) -> None:
    assert "<figure" not in make()._repr_html_()


def test_figures_are_drawn_on_axes_that_are_given() -> None:
    for make in (scanned, localized, diagnosed, treated, verified):
        ax = Figure().add_subplot()
        assert make().plot(ax) is ax


def test_dollars_are_not_mathematics() -> None:
    for result in (localized(STRANGE), diagnosed(STRANGE, STRANGE), verified(STRANGE)):
        drawn = style.svg(lambda result=result: VIEWS[result.stage].figure(result)).decode()
        assert "$x_$" in drawn
        assert "<script" not in drawn


def test_figures_do_not_depend_on_the_users_settings_and_repeat() -> None:
    first = style.svg(lambda: verify.figure(verified()))
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "svg.fonttype": "path"}):
        assert style.svg(lambda: verify.figure(verified())) == first
        assert matplotlib.rcParams["font.size"] == 30


def test_importing_views_imports_no_matplotlib_and_drawing_no_pyplot() -> None:
    code = (
        "import sys; from suture.views import page, export; assert 'matplotlib' not in sys.modules, 'import';"
        "from tests.views.results import *; from suture.views import style, scan, treat;"
        "style.svg(lambda: treat.figure(treated())); style.svg(lambda: scan.figure(scanned()));"
        "assert 'matplotlib.pyplot' not in sys.modules, 'draw'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_text_examples() -> None:
    assert doctest.testmod(text).failed == 0


def test_foreign_text_cannot_steer_a_terminal_or_spoil_a_file() -> None:
    shown = text.plain("a\x1b[31m\u202eb\udcff\x00\ufffe")
    assert shown == "a\ufffd[31m\ufffdb\ufffd\ufffd\ufffd"
    shown.encode()
    assert len(text.plain("n" * 500, 40)) == 40


def test_rich_tables_show_markup_as_it_is() -> None:
    shown = printed(
        Grid("[red]x[/nonsense]", [Column("[b]"), Column("c")], [["[/bold]", "long enough for the title"]]).rich()
    )
    assert "[red]x[/nonsense]" in shown
    assert "[/bold]" in shown


def test_markdown_escapes_what_would_act() -> None:
    assert escaped("a|b <i> [x](y) $z$ `c`") == r"a\|b &lt;i&gt; \[x\](y) \$z\$ \`c\`"
    lines = Grid("T", [Column("a"), Column("b", numeric=True)], [["x|y\nz", "1"]], note="n").markdown().splitlines()
    assert lines[2:5] == ["| a | b |", "| --- | ---: |", r"| x\|y z | 1 |"]


def test_scan_counts_and_colours_every_epoch() -> None:
    result = scanned(200)
    spans = scan._spans(result.epochs)
    for regime, stretches in spans.items():
        assert sum(width for _, width in stretches) == pytest.approx(result.counts[str(regime)])
    assert set(map(str, spans)) == {name for name, n in result.counts.items() if n}
    assert "Assumed: something." in printed(scanned(assumed="something").table())


def test_localize_says_when_the_top_group_also_leads_on_correct_examples() -> None:
    same, other = localized(), localized(null_correct=localized().scores.iloc[::-1].set_axis(["conv1", "layer1", "fc"]))
    assert any("also comes first on correct examples" in found for found in localize.findings(same))
    assert not any("also comes first" in found for found in localize.findings(other))
    assert "fc stands out: Because (same group in 93\xa0% of resamples)." in localize.findings(same)
    assert "fc stands out: Because." in localize.findings(localized(confidence=None))
    assert "fc stands out." in localize.findings(localized(confidence=None, why=""))


def test_localize_says_no_group_stands_out_and_warns_of_the_median_rule() -> None:
    assert "No group stands out. Because." in localize.findings(localized(top=None))
    assert "about half of them, whatever the model" in str(localize.html(localized()))
    assert "about half of them" not in str(localize.html(localized(rule="first")))


def test_localize_derives_shares_of_parameters_where_it_can() -> None:
    grid = localize.grid(localized())
    place = [name for name, _ in grid.columns].index("share of weights")
    assert [row[place] for row in grid.rows] == ["16.7\xa0%", "33.3\xa0%", "50.0\xa0%"]
    assert grid.rows[2][-1] == "top, flagged"
    only = localized().scores[["relative"]]
    headings = [name for name, _ in localize.grid(localized(scores=only)).columns]
    assert "share of score" in headings
    assert "share of weights" not in headings


def test_localize_shows_intervals_stability_gains_and_both_nulls() -> None:
    row = localize.grid(localized()).rows[2]
    headings = [name for name, _ in localize.grid(localized()).columns]
    shown = dict(zip(headings, row, strict=True))
    assert shown["grad_norm"] == "3.00 [2.7, 3.3]"
    assert shown["correct"] == "0.150"
    assert shown["random init"] == "0.0200"
    assert shown["first"] == "93\xa0%"
    assert shown["held-out gain"] == "0.20 [0.10, 0.30]"
    assert localize_tables.GAINS in localize.grid(localized()).note
    bare = localized(low=pd.DataFrame(), high=pd.DataFrame(), first_share=pd.DataFrame(), pays=pd.DataFrame())
    assert localize.grid(bare).rows[2][1] == "3.00"
    assert {"first", "held-out gain"}.isdisjoint(name for name, _ in localize.grid(bare).columns)
    assert localize_tables.GAINS not in localize.grid(bare).note


def test_localize_by_the_network_s_record_shows_its_unit_and_the_gradients_beside_it() -> None:
    result = localized_by_record()
    assert localize.winner(result) == (
        "layer1 stands out: What arrives at layer1.bn is not what it was (same group in 97\xa0% of resamples)."
    )
    healthy = localized_by_record(
        top=None, why="No activation is further from its record than a mild input shift takes it."
    )
    assert (
        localize.winner(healthy)
        == "No group stands out. No activation is further from its record than a mild input shift takes it."
    )
    grid = localize.grid(result)
    assert grid.caption.startswith("norm_statistics (above 1: stands out); 20 errors in 100 examples")
    assert [name for name, _ in grid.columns] == ["Group", "norm_statistics", "held-out gain", "flagged"]
    assert [row[1] for row in grid.rows] == ["0.500", "4.00", "–"]
    names = [name for name, _ in localize.beside(result).columns]
    assert names == ["Group", "grad_norm", "correct", "random init", "first"]
    assert localize.beside(result).rows[2][1:3] == ["3.00 [2.7, 3.3]", "0.150"]
    assert not localize.others(result)
    assert not localize.beside(localized())  # its first localizer has nulls of its own
    html = str(localize.section(result))
    assert "Beside it, grad_norm of the errors" in html
    assert "norm_statistics (above 1: stands out)" in html


@pytest.mark.parametrize(
    ("score", "shown"), [(0.9996, "0.9996"), (1.0004, "1.0004"), (1.0, "1.00"), (0.9949, "0.995"), (1.5, "1.50")]
)
def test_no_rounding_takes_a_score_across_the_line_above_which_it_stands_out(score: float, shown: str) -> None:
    found = localized_by_record(top=None)
    found = replace(found, scores=found.scores.assign(norm_statistics=[0.5, score, float("nan")]))
    assert localize.grid(found).rows[1][1] == shown
    assert f" {shown}" in printed(found.table(), width=80)


def test_localize_by_the_network_s_record_draws_the_line_at_one() -> None:
    shown = printed(localized_by_record().table(), width=80)
    lines = [line for line in shown.splitlines() if "stands out" not in line]
    bars = {line.split()[0]: line for line in lines if line.startswith(("conv1 ", "layer1 ", "fc "))}
    assert bars["layer1"].count("█") == 31
    assert bars["layer1"].index("┃") == bars["conv1"].index("┃")  # at a quarter of the longest bar, which is 4
    assert "┃" not in bars["fc"]
    assert "–" in bars["fc"]
    assert "norm_statistics; ┃ above 1: stands out" in shown
    ax = localized_by_record().plot()
    assert ax.get_xlabel() == "norm_statistics (above 1: stands out)"
    (line,) = [each for each in ax.get_lines() if each.get_label() == "above 1: stands out"]
    assert list(line.get_xdata()) == [1, 1]
    assert [text.get_text() for text in ax.texts] == ["–"]  # fc has no record
    gains = ax.get_figure().axes[1]
    assert gains.get_xlabel() == "held-out gain, log(1 + loss)"


def test_localize_says_what_an_interval_below_its_score_means() -> None:
    assert localize_tables.SCATTER not in localize.grid(localized()).note
    assert localize_tables.SCATTER in localize.grid(localized(high=localized().scores * 0.9)).note


def test_localize_draws_bars_with_both_nulls_and_the_interval() -> None:
    shown = printed(localized().table(), width=100)
    (line,) = [line for line in shown.splitlines() if line.startswith("fc ") and "█" in line]
    assert line.count("█") == 30  # half of all, the longest but for two marks in it
    assert line.count("┃") == line.count("○") == 1
    assert "50.0" in line
    ax = localized().plot()
    gains = ax.get_figure().axes[1]
    assert gains.get_title(loc="left") == "What treating it gains"
    drawn = list(gains.get_lines()[1].get_xdata())
    assert drawn == pytest.approx([0.1, 0.15, 0.2])
    assert len(localized(pays=pd.DataFrame()).plot().get_figure().axes) == 1


@pytest.mark.parametrize(("make", "tables"), [(localized, 3), (localized_by_record, 2)])
def test_localize_folds_no_cell_at_80_columns(make: Any, tables: int) -> None:
    shown = printed(make().table(), width=80)
    rows = [line for line in shown.splitlines() if line.startswith("│")]
    assert len(rows) == 3 * tables  # three groups in each
    assert all(line.split("│")[1].strip() for line in rows)
    assert "0.20 [0.10, 0.30]" in shown
    assert "3.00 [2.7, 3.3]" in shown


@pytest.mark.parametrize("width", [60, 80, 100])
def test_localize_fits_the_terminal(width: int) -> None:
    for groups in (None, [f"model.layers.{i}.self_attention.output.dense" for i in range(20)], STRANGE):
        shown = printed(localized(groups).table(), width=width)
        assert max(len(line) for line in shown.splitlines()) <= width
        assert "stands out" in " ".join(shown.split())


def test_localize_shows_costs_and_what_was_not_used() -> None:
    said = " ".join(localize.small_print(localized(skipped={SCRIPT: "it needs\x1b[31m BatchNorm"})))
    assert "Cost: 1.5 forward and backward passes over the 100 examples (nulls 1.0, grad_norm 0.50)." in said
    assert "\x1b" not in said
    assert "it needs" in said
    assert "&lt;script" in str(localize.section(localized(skipped={SCRIPT: "x"})))


def test_bars_are_to_scale() -> None:
    assert doctest.testmod(bars).failed == 0
    assert drawing(1.0, {}, 10) == "█" * 10
    assert drawing(0.0, {"|": 0.0}, 4) == "|   "
    assert drawing(0.55, {}, 10) == "█████▌    "
    assert len({len(drawing(i / 97, {"|": i / 50})) for i in range(98)}) == 1


def test_large_tables_are_cut_and_say_so() -> None:
    many = localize.grid(localized([f"g{i}" for i in range(200)]))
    assert len(many.rows) == localize_tables.LONGEST
    assert many.note.startswith("60 of 200 groups")
    classes = verify.per_class(verified([f"class {i}" for i in range(300)]))
    assert len(classes.rows) == verify_tables.LONGEST
    assert "300" in classes.note


def test_verify_numbers() -> None:
    shown = printed(verified().table())
    for part in ("75.0\xa0%", "87.0\xa0%", "+24", "7.0 × 10⁻⁵", "3.0\xa0%", "4.0\xa0%", "20.0\xa0%", "better"):
        assert part in shown
    assert "churn" not in printed(verified_without_classes().table())


def test_verify_in_full_fits_a_screen_and_says_the_verdict_last() -> None:
    result = verified_in_full()
    shown = printed(result.table(), width=80)
    for part in (
        "5.0 : 1", "2.0 to 15", "churn floor", "15.0\xa0%", "2 of 12", "mean KL, nats", "0.0123", "night = cat",
        "worse", "looked at 2 times", "may not break: cat and dog", "No slices: file", "wrong before: ship",
        "Won : lost", "4 : 20",
    ):  # fmt: skip
        assert part in shown, part
    assert "full (30 fixed, 6 broken) has more right than the repair (30 fixed, 6 broken)" in " ".join(shown.split())
    beside = 6 + len(result.baselines)  # its caption, frame and rows
    alone = len(printed(replace(result, baselines=result.baselines[:0]).table(), width=80).splitlines())
    assert alone <= 45
    assert len(shown.splitlines()) - alone <= beside + 3  # and what is said of it
    assert shown.split()[-len(result.sentence.split()) :] == result.sentence.split()


@pytest.mark.parametrize("name", ["auto", "a-plan-of-my-own-with-a-long-name"])
def test_baselines_fit_a_terminal_whole(name: str) -> None:
    found = verified_in_full()
    big = found.baselines.assign(plan=[name, *found.baselines["plan"][1:]], fixed=12345, broken=1234, net=11111)
    shown = printed(baselines.grid(replace(found, baselines=big), narrow=True).rich(), width=80)
    assert [line.rstrip()[-1] for line in shown.splitlines()[1:]].count("│") >= len(big)
    assert all(line.rstrip()[-1] in "┓┃┩│┘" for line in shown.splitlines()[1:]), shown
    assert "better" in shown
    assert "kept none" in shown


def test_an_untouched_network_beside_baselines_is_no_repair() -> None:
    found = verified_in_full()
    table = found.baselines.assign(kept=["none", "full", *["none"] * (len(found.baselines) - 2)])
    said = baselines.sentences(replace(found, baselines=table.assign(word=[None, *["better"] * (len(table) - 1)])))
    assert said[0] == "Beside its baselines, leaving the network as it is is better than full."
    assert said[1].startswith("What kept the original: cat")
    worse = replace(found, baselines=table.assign(word=[None, *["worse"] * (len(table) - 1)]))
    assert "more right than leaving the network as it is (30 fixed" in baselines.beaten_by(worse)


def test_verify_shows_what_became_worse_first_and_cuts_the_rest() -> None:
    found = verify.beyond_chance(verified_in_full())
    assert [row[-1] for row in found.rows] == ["worse", "worse", "worse", "better"]
    many = verify.beyond_chance(verified_in_full([f"class {i}" for i in range(40)]))
    assert len(many.rows) == verify_tables.NOTED
    assert "of 41" in many.note


def test_verify_says_when_nothing_moved_beyond_chance() -> None:
    assert verify_tables.remarks(verified()) == [
        "Of 3 classes and 3 confusions, none moved beyond chance (Holm's correction in each table)."
    ]
    assert verify_tables.remarks(verified_long_ago()) == []


def test_verify_in_full_on_the_page_and_in_markdown(tmp_path: Path) -> None:
    result = verified_in_full()
    html = str(verify.section(result))
    for part in ("Per slice", "Data the repair was not about", "looked at 2 times", "that may not break"):
        assert part in html
    written = markdown(write_run(tmp_path, result))
    for part in ("churn floor", "mean KL, nats", "night = cat", "looked at 2 times", "may not break: cat and dog"):
        assert part in written


def test_verify_says_when_untouched_data_became_worse() -> None:
    drift = verified_in_full().drift
    assert drift is not None
    said = "On untouched data it breaks more than it fixes: 2 fixed, 20 broken of 500 examples."
    harmed = verified_in_full(drift=replace(drift, broken=20, p_value=0.0001))
    assert said in verify_tables.caveats(harmed)
    assert said in str(verify.section(harmed))
    assert not verify_tables.harm_elsewhere(verified_in_full())
    assert not verify_tables.harm_elsewhere(verified_in_full(drift=replace(drift, fixed=20, broken=2, p_value=0.0001)))
    assert not verify_tables.harm_elsewhere(verified())


def test_verify_without_a_broken_one_has_no_upper_end() -> None:
    found = verified(moves=Flips(fixed=30, broken=0, both_right=150, both_wrong=20))
    assert "7.6 to ∞" in printed(found.table())
    assert "to ∞" not in printed(verified_unchanged().table())


def test_verify_fourfold_table_adds_up() -> None:
    moves = Flips(fixed=30, broken=6, both_right=144, both_wrong=20)
    cells = [int(cell.split()[0]) for row in verify.outcomes(verified(moves=moves)).rows for cell in row[1:]]
    assert cells == [144, 6, 30, 20]


def test_verify_names_the_targeted_pairs_and_the_attributed_group() -> None:
    result, why = verified(), diagnosed(groups=["layer2"])
    grid = verify.targeted(result, why)
    assert grid.rows[0] == ["cat", "dog", "layer2", "9", "4", "−5", "0.69", ""]
    assert not verify.moved(result, why)
    assert verify.moved(result, None).rows[0] == ["cat", "dog", "9", "4", "−5", "0.69", ""]
    assert verify.pairs_sentence(result, why) == "Together, the targeted confusions went from 27 to 12 errors."
    assert str(verify.section(result, why)).count("layer2</span>") == 2  # of the pair for which it stands out
    assert "layer2</span>" not in str(verify.section(result))


def test_verify_pairs_that_no_longer_occur_went_to_zero() -> None:
    gone = verified(pairs=pd.DataFrame(columns=["true", "predicted", "before", "after", "change"]))
    assert verify.targeted(gone, diagnosed()).rows[0][3:] == ["0", "0", "0", "", ""]


def test_verify_shows_names_where_there_are_no_pictures() -> None:
    html = str(verify.section(verified_without_classes()))
    assert "example 3" in html
    assert 'class="thumb' not in html


def test_verify_tolerates_fewer_pictures_than_examples() -> None:
    html = str(verify.section(verified(pictures={"fixed": noise(1, 8, 8, 1)})))
    assert html.count('class="thumb') == 1


def test_banner_drops_the_verdict_from_its_reason() -> None:
    assert verify.headline(verified())["reason"] == "On 200 unseen examples this was seen."
    odd = verified(sentence="It depends: on much.", verdict=Verdict.CANNOT_TELL)
    assert verify.headline(odd)["reason"] == "It depends: on much."
