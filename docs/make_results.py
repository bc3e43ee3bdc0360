"""Make the tables of results and their figure from the record that `benchmarks.presets` wrote::

    python -m docs.make_results

Writes the README's short table, the tables of docs/results.md and docs/every_split.md, docs/images/presets.png,
docs/images/es.png and the sentence "Reached: …" in the header of every preset. What is not measured here (values known
from theory, published ones) stands in `KNOWN`.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.presets import CONTROLS, RECORD
from docs import es_figure
from docs.presets_figure import dots, draw
from metarl.evaluation.results import chosen_points, short

ROOT = Path(__file__).parent.parent
README, PAGE, SPLITS = "README.md", "docs/results.md", "docs/every_split.md"
FIGURE, ES_FIGURE, CONFIGS = "docs/images/presets.png", "docs/images/es.png", "configs"

KNOWN = {
    "rl2_bernoulli_bandit_n10": "6.660 Bayes-optimal; 6.7 published (Duan et al. 2016)",
    "rl2_bernoulli_bandit": "≥ 78.62 finite-horizon Gittins index; 78.7 published (Duan et al. 2016)",
    "rl2_bernoulli_bandit_k10": "83.5 published (Duan et al. 2016)",
    "rl2_tabular_mdp": "{oracle} known MDP; 156.2 published, with a GRU (Duan et al. 2016)",
    "rl2_gridnavi": "37.214 Bayes-optimal (4.000, then 11.071 per episode)",
    "dpt_bernoulli_bandit_n10": "5.82 Thompson sampling, its limit",
    "dpt_bernoulli_bandit": "75.04 Thompson sampling, its limit",
    "dpt_gridnavi": "24.64 posterior sampling, its limit",
    "dpt_darkroom": "297 posterior sampling by episode, its limit",
    "dagger_gridnavi_small": "37.214 Bayes-optimal; 37.21 its teacher",
    "rl2_navigation2d": "{oracle} known goal",
    "rl2_darkroom": "{oracle} known goal",
    "rl2_dependent_bandit_easy": "regret {regret}; least possible .625",
    "rl2_dependent_bandit_medium": "regret {regret}; least possible 1.0",
    "rl2_dependent_bandit_hard": "regret {regret}; least possible 2.312",
    "rl2_informative_bandit": "20.55 Bayes-optimal",
    "rl2_sparse_point_robot": "{oracle} known goal",
    "rl2_tmaze": "1 optimum",
    "rl2_dark_key_to_door": "{oracle} known places",
    "rl2_two_step": "70.586 Bayes-optimal",
    "rl2_harlow": "5 optimum (0 in the first round, then 1)",
    "rl2_cartpole": "1000 at most",
    "memoryless_cartpole": "1000 at most",
    "rl2_cartpole_wide": "1000 at most, where the pole can be kept up",
    "rl2_pendulum": "told swing-up −335",
    "memoryless_pendulum": "told swing-up −335",
    "rl2_alchemy": "ideal observer 284.4, model-free agents 140 to 155 published (Wang et al. 2021)",
    "rl2_half_cheetah_vel": "unknown",
    "rl2_sinusoid": "0 told; −4.20 [−4.45, −3.95] by least squares on a sine (1,000 tasks of `test`)",
    "rl2_few_shot_digits": (
        "47.28 at most without being told labels; 44.04 [43.97, 44.11] by the nearest neighbour in pixels (1,000 tasks "
        "of `test`)"
    ),
    "rl2_ml1_reach": "unknown; Meta-World's scripted policy solves every episode",
    "rl2_rulesets_trivial": "2.76 by a player that is told the ruleset",
    "rl2_lunar_lander": "unknown; Gymnasium calls 200 an episode solved, at nominal parameters",
    "memoryless_lunar_lander": "unknown; Gymnasium calls 200 an episode solved, at nominal parameters",
    "maml_supervised_few_shot_digits": (
        "50 at most after a step; 44.04 [43.97, 44.11] by the nearest neighbour in pixels, which learns as it answers"
    ),
    "maml_cartpole": "at most 500",
    "ppo_cartpole": "at most 500",
    "ppo_told_cartpole": "1000 at most",
    "maml_bernoulli_bandit_n10": "published .65 a pull after 1 step (Mishra et al. 2018)",
    "maml_bernoulli_bandit": "published .671 a pull after 1 step (Mishra et al. 2018)",
    "maml_tabular_mdp": "published about 11.7 an episode after 1 step (Mishra et al. 2018)",
    "maml_navigation2d": "published −40.4, −11.7 ± 2.2, −3.33 ± .56, −3.23 after 0 to 3 steps (Finn et al. 2017)",
    "maml_vpg_navigation2d": "published −40.4, −11.7 ± 2.2, −3.33 ± .56, −3.23 after 0 to 3 steps (Finn et al. 2017)",
    "maml_half_cheetah_vel": "published −129.5, −78.6 ± 10, −66.6, −60.8 after 0 to 3 steps (Finn et al. 2017)",
}
"""The best that is known of a preset's problem: from theory, or published."""

MEMORY = (  # the first table: agents that learn in a trial of several episodes
    "rl2_bernoulli_bandit_n10", "rl2_bernoulli_bandit", "memoryless_bernoulli_bandit", "rl2_bernoulli_bandit_k10",
    "rl2_tabular_mdp", "memoryless_tabular_mdp", "rl2_gridnavi", "memoryless_gridnavi", "rl2_navigation2d",
    "rl2_darkroom", "rl2_dependent_bandit_easy", "rl2_dependent_bandit_medium", "rl2_dependent_bandit_hard",
    "rl2_informative_bandit", "rl2_sparse_point_robot", "memoryless_sparse_point_robot", "rl2_tmaze",
    "rl2_dark_key_to_door", "rl2_two_step", "rl2_harlow", "rl2_cartpole", "memoryless_cartpole", "rl2_cartpole_wide",
    "rl2_pendulum", "memoryless_pendulum", "rl2_alchemy", "rl2_half_cheetah_vel", "memoryless_half_cheetah_vel",
    "rl2_room_navi", "rl2_wall_maze", "rl2_rulesets_trivial", "rl2_lunar_lander", "memoryless_lunar_lander",
    "rl2_sinusoid", "rl2_few_shot_digits", "rl2_ml1_reach",
)  # fmt: skip
GRADIENTS = (  # the second table: those that learn by gradient steps
    "maml_navigation2d", "maml_vpg_navigation2d", "fomaml_navigation2d", "anil_navigation2d", "metasgd_navigation2d",
    "promp_navigation2d", "reptile_navigation2d", "es_maml_navigation2d",
    "maml_bernoulli_bandit_n10", "maml_bernoulli_bandit", "maml_tabular_mdp", "maml_gridnavi", "maml_cartpole",
    "maml_half_cheetah_vel",
    "maml_supervised_sinusoid", "maml_supervised_few_shot_digits",
)  # fmt: skip

BELIEFS = ("belief_", "varibad_", "hyper_")
REPLAY = ("r2d2_", "sac_", "td3_", "pearl_")
OTHERS = ("plr_", "robust_plr_", "sfl_", "regret_", "roml_", "paired_", "accel_", "es_", "dpt_", "dagger_", "ad_")
"""How the names of the presets of three more tables begin: agents on beliefs, on replay, and of other kinds."""

SHORT = (  # the README's table: the least and the best known problems of both kinds of agent
    "rl2_bernoulli_bandit_n10", "rl2_gridnavi", "rl2_two_step", "rl2_navigation2d", "maml_navigation2d",
    "maml_half_cheetah_vel",
)  # fmt: skip
SPLIT_COLUMNS = (
    "split", "return of the trial, or after the last round", "per seed", "points", "random", "known task", "steps",
    "tasks",
)  # fmt: skip

Entry = Mapping[str, Any]


def number(value: float | None) -> str:
    """A return, as tables show it."""
    return "unknown" if value is None or not math.isfinite(value) else short(value)


def bracket(low: float | None, high: float | None) -> str:
    """An interval."""
    return f"[{number(low)}, {number(high)}]"


def tasks_of(curve: Entry, words: tuple[str, str] = ("", "")) -> str:
    """``1,000``, ``all 21 × 48`` for a split that is finite: tasks × repeats, each with its word."""
    every = "all " if curve["distinct"] is not None and curve["distinct"] <= curve["tasks"] else ""
    repeats = f" × {curve['repeats']}{words[1]}" if curve["repeats"] > 1 else ""
    return f"{every}{curve['tasks']:,}{words[0]}{repeats}"


def by_seed(curve: Entry) -> str:
    return ", ".join(map(number, curve["by_seed"]))


def points(curve: Entry, limit: int, arrow: bool = False) -> str:
    """Points with their intervals, or only their means with arrows between them."""
    shown = [curve["points"][n] for n in chosen_points(len(curve["points"]), limit)]
    if arrow:
        return " → ".join(number(mean) for _, mean, _, _ in shown)
    return "; ".join(f"{label}: {number(mean)} {bracket(low, high)}" for label, mean, low, high in shown)


def known(preset: str, curve: Entry) -> str:
    """What is known of the best; for the dependent bandits beside the regret, by seed where there are several."""
    if preset not in KNOWN:  # another agent on a problem that RL² has a preset for: the same is known of it
        preset = f"rl2_{problem}" if (problem := _problem(preset)) else preset
    if preset not in KNOWN:
        return f"{number(curve['oracle'])} known task" if curve["oracle"] is not None else "unknown"
    regret = ""
    if curve["oracle"] is not None:
        lost = [curve["oracle"] - score for score in curve["by_seed"]]
        seeds = f" ({', '.join(f'{each:.2f}' for each in lost)})" if len(lost) > 1 else ""
        regret = f"{sum(lost) / len(lost):.2f}{seeds}"
    return KNOWN[preset].format(oracle=number(curve["oracle"]), regret=regret)


def _problem(preset: str) -> str:
    """The second part of the name of a preset of the tables by kind, "" for other presets."""
    kind = next((kind for kind in (*BELIEFS, *REPLAY, *OTHERS) if preset.startswith(kind)), "")
    return preset.removeprefix(kind) if kind else ""


def millions(steps: int | None) -> str:
    """Environment steps in short."""
    if steps is None:
        return ""
    return f"{steps / 1e6:.1f} M" if steps >= 1e5 else f"{steps / 1e3:.0f} k"


def score(curve: Entry, bold: bool = True) -> str:
    mark = "**" if bold else ""
    return f"{mark}{number(curve['score'])}{mark} {bracket(curve['low'], curve['high'])}"


def target(entry: Entry) -> Entry:
    """The curve on the split that the preset is about."""
    curve: Entry = entry["splits"][entry["target"]]
    return curve


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def of_kind(record: Mapping[str, Entry], kinds: Sequence[str]) -> list[str]:
    """The presets of the record of some kinds of agent, but those that learn by gradient steps: by kind, then name."""
    found = [(number, name) for number, kind in enumerate(kinds) for name in record if name.startswith(kind)]
    return [name for _, name in sorted(found) if name not in GRADIENTS]


def memory_table(record: Mapping[str, Entry], presets: Sequence[str] = MEMORY) -> str:
    """A table of agents that learn in a trial."""
    columns = ("preset", "split", "return of the trial", "per seed", "episode 1 → 2 → last", "random", "best known")
    rows = []
    for preset in filter(record.__contains__, presets):
        entry = record[preset]
        curve = target(entry)
        cells = [
            f"`{preset}`", entry["target"], score(curve), by_seed(curve), points(curve, 3, arrow=True),
            number(curve["random"]), known(preset, curve), tasks_of(curve), millions(entry["env_steps"]),
        ]  # fmt: skip
        rows.append(cells)
    return table((*columns, "tasks", "steps"), rows)


def gradient_table(record: Mapping[str, Entry]) -> str:
    """The table of agents that learn by gradient steps: return of an episode after each step."""
    columns = ("preset", "agent", *(f"{n} step{'s'[: n != 1]}" for n in range(4)), "1 step, per seed")
    rows = []
    for preset in filter(record.__contains__, GRADIENTS):
        entry = record[preset]
        curve = target(entry)
        after = [
            f"{number(mean)} {bracket(low, high)}" if n in (1, 3) else number(mean)
            for n, (_, mean, low, high) in enumerate(curve["points"][:4])
        ]
        after += [""] * (4 - len(after))  # of those that take fewer steps
        seeds = ", ".join(number(row[1]) for row in curve["points_by_seed"])
        ends = f"{number(curve['random'])} / {number(curve['oracle'])}"
        agent = curve["agent"]
        cells = [f"`{preset}`", agent, *after, seeds, ends, tasks_of(curve), millions(entry["env_steps"])]
        rows.append(cells)
    return table((*columns, "random / known task", "tasks", "steps"), rows)


def short_table(record: Mapping[str, Entry]) -> str:
    """The README's table: a few presets of both kinds."""
    columns = ("preset", "split", "what is measured", "reached", "random", "best known")
    rows = []
    for preset in filter(record.__contains__, SHORT):
        curve = target(record[preset])
        what = f"an episode after {len(curve['points']) - 1} gradient steps" if curve["rounds"] else "a whole trial"
        cells = [f"`{preset}`", record[preset]["target"], what, score(curve), number(curve["random"])]
        rows.append([*cells, known(preset, curve)])
    return table(columns, rows)


def splits(record: Mapping[str, Entry]) -> str:
    """Every preset on every split, a section each."""
    return "\n\n".join(f"## {preset}\n\n{split_table(entry)}" for preset, entry in sorted(record.items()))


def split_table(entry: Entry) -> str:
    """One preset on every split."""
    rows = []
    for split in ("train", "valid", "test", "ood", "all"):
        if (curve := entry["splits"].get(split)) is None:
            continue
        reached = curve["steps_to_90"]
        cells = [
            split, score(curve), by_seed(curve), points(curve, 4), number(curve["random"]), number(curve["oracle"]),
            "" if reached is None else f"{reached:,.0f}", tasks_of(curve),
        ]  # fmt: skip
        rows.append(cells)
    return table(SPLIT_COLUMNS, rows)


def reached(preset: str, entry: Entry) -> str:
    """The sentence of a preset's header."""
    curve, seeds = target(entry), len(entry["seeds"])
    what = "return of an episode after the last round" if curve["rounds"] else "return of a trial"
    training = f"{seeds} training seeds ({by_seed(curve)})" if seeds > 1 else f"training seed {entry['seeds'][0]} alone"
    parts = [
        f"Reached: {what} {score(curve, bold=False)} on {tasks_of(curve, (' tasks', ' repeats'))} "
        f"of the split '{entry['target']}', "
        f"{training}; 95 % interval {curve['over']}."
    ]
    if len(curve["points"]) > 1:
        parts.append(f"By {'round' if curve['rounds'] else 'episode'}: {points(curve, 5)}.")
    if entry["target"] != "ood" and (ood := entry["splits"].get("ood")):
        parts.append(f"On 'ood': {score(ood, bold=False)}.")
    best = known(preset, curve)
    parts.append(
        f"Random {number(curve['random'])}; {best}." if best != "unknown" else f"Random {number(curve['random'])}."
    )
    parts.append(f"{millions(entry['env_steps'])} environment steps of training.")
    return " ".join(parts)


def with_header(text: str, sentence: str) -> str:
    """A preset's text with `sentence` in place of the one that begins with ``# Reached``, at the end of its header."""
    lines = text.splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    start = next((number for number, line in enumerate(lines[:end]) if line.startswith("# Reached")), end)
    wrapped = textwrap.wrap(sentence, 118, break_long_words=False, break_on_hyphens=False)
    return "\n".join([*lines[:start], *(f"# {line}" for line in wrapped), *lines[end:]]) + "\n"


def memory(record: Mapping[str, Entry]) -> str:
    """The sentences on what a memory is worth: paired differences from the controls without one."""
    sentences = []
    for control, preset in CONTROLS.items():
        if "memory_is_worth" not in record.get(control, {}):
            continue
        found = record[control]["memory_is_worth"]
        parts = [f"{number(found[split][0])} {bracket(*found[split][1:])} on `{split}`" for split in ("test", "ood")]
        sentences.append(f"- `{preset}` less `{control}`: {', '.join(parts)}.")
    return "\n".join(sentences)


def between(text: str, mark: str, table: str) -> str:
    """`text` with `table` between ``<!-- mark -->`` and ``<!-- /mark -->``."""
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(\n<!-- /{mark} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"There is no place for a table: <!-- {mark} --> … <!-- /{mark} -->.")
    return pattern.sub(lambda found: found[1] + table + found[2], text)


def documents(record: Mapping[str, Entry], root: Path = ROOT) -> dict[Path, str]:
    """What every file that holds results should say: path → text."""
    page = (root / PAGE).read_text(encoding="utf-8")
    tables = {"results": memory_table, "maml": gradient_table, "memory": memory}
    for mark, make in tables.items():
        page = between(page, mark, f"\n{make(record)}\n")
    for mark, kinds in {"beliefs": BELIEFS, "replay": REPLAY, "others": OTHERS}.items():
        page = between(page, mark, f"\n{memory_table(record, of_kind(record, kinds))}\n")
    readme = between((root / README).read_text(encoding="utf-8"), "results", short_table(record))
    every = between((root / SPLITS).read_text(encoding="utf-8"), "splits", f"\n{splits(record)}\n")
    made = {root / README: readme, root / PAGE: page, root / SPLITS: every}
    for preset, entry in record.items():
        path = root / CONFIGS / f"{preset}.yaml"
        made[path] = with_header(path.read_text(encoding="utf-8"), reached(preset, entry))
    return made


def note(record: Mapping[str, Entry]) -> str:
    """Of how many seeds the figure is."""
    seeds = sorted({len(entry["seeds"]) for entry in record.values()})
    many = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"{many} training seed{'s'[: seeds[-1] > 1]}"


def main(arguments: Sequence[str] | None = None) -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    for path, text in documents(record).items():
        path.write_text(text, encoding="utf-8")
    draw(dots(record), ROOT / FIGURE, note(record))
    es_figure.draw(record, ROOT / ES_FIGURE)
    print(f"Wrote {README}, {PAGE}, {SPLITS}, {FIGURE}, {ES_FIGURE} and {len(record)} headers in {CONFIGS}/")


if __name__ == "__main__":
    main()
