"""The leaderboard as one HTML file with interactive figures; it works offline."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_hex
from plotly.subplots import make_subplots

from metarl.evaluation.drawing.colours import colours
from metarl.evaluation.results import short
from metarl.studies.bench.board import Board
from metarl.studies.bench.protocol import PROBLEMS, VERSION
from metarl.studies.bench.rows import Row

LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "margin": {"l": 60, "r": 20, "t": 50, "b": 60},
    "legend": {"orientation": "h", "y": -0.12},
}
STYLE = """
body { font-family: system-ui, sans-serif; max-width: 1150px; margin: 2rem auto; padding: 0 1rem; color: #222; }
.wide { overflow-x: auto; } .figure { min-width: 56rem; }
h1 { font-weight: 600; } h2 { font-weight: 600; margin-top: 2.5rem; } p { max-width: 46rem; line-height: 1.5; }
table { border-collapse: collapse; font-size: .92rem; } th, td { padding: .3rem .8rem; text-align: right; }
th { border-bottom: 2px solid #999; font-weight: 600; } td { border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child { text-align: left; }
"""


def page(rows: Sequence[Row]) -> str:
    """Return the page of a benchmark's rows, as one HTML document."""
    board = Board(rows)
    shades = {agent: to_hex(shade) for agent, shade in colours(board.agents).items()}
    parts = [_overall(board)]
    figures = [
        (
            "How fast do they adapt?",
            "Return of an episode by the experience on the task, on a scale on which 0 is random play and 1 the best "
            "known return if the task is known. Bands are 95 % intervals over tasks, of seed 1.",
            _adaptation(board, shades),
        ),
        (
            "On how many tasks are they good?",
            "The share of tasks on which the last point lies above a value, every problem weighing the same.",
            _profiles(board, shades),
        ),
        (
            "Who is best?",
            "The mean over problems, and the mean rank, of agents that were measured on all problems; 95 % intervals.",
            _ranks(board, shades),
        ),
        (
            "What does a return cost?",
            "The return by environment steps of meta-training and by adaptation on the task, in the evaluations during "
            "training of one seed, on other tasks than those above. Pretrained agents have no such history.",
            _surfaces(board),
        ),
    ]
    library: Any = "inline"  # once
    for title, text, figure in figures:
        if figure is None:
            continue
        body = figure.to_html(full_html=False, include_plotlyjs=library, config={"displaylogo": False})
        library = False
        parts.append(f"<h2>{title}</h2><p>{text}</p><div class='wide'><div class='figure'>{body}</div></div>")
    parts += [_problem(board, name) for name in board.by_problem]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width'><title>metarl-bench</title><style>{STYLE}</style></head>"
        f"<body><h1>metarl-bench, version {VERSION}</h1>{''.join(parts)}</body></html>\n"
    )


def _html_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(each)}</th>" for each in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(each)}</td>" for each in line) + "</tr>" for line in cells)
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _overall(board: Board) -> str:
    """Return the table of agents that were evaluated on every problem."""
    suite = board.suite()
    if suite is None:
        return "<p>No agent was measured on all problems.</p>"
    lines = []
    for row in suite.summary():
        means = [f"{row[name][0]:.3f} [{row[name][1]:.3f}, {row[name][2]:.3f}]" for name in ("mean", "iqm", "rank")]
        lines.append([row["agent"], *means])
    text = f"<p>{len(suite.curves)} problems with a known optimum; the last point of adaptation, normalised.</p>"
    return text + _html_table(("agent", "mean", "interquartile mean", "mean rank"), lines)


def _problem(board: Board, name: str) -> str:
    """Return the table of a problem."""
    of, curves = board.by_problem[name], board.curves[name]
    lines = []
    for agent, curve in sorted(curves.items(), key=lambda item: -float(item[1].mean()[-1])):
        low, high = (float(end[-1]) for end in curve.interval())
        value = float(curve.mean()[-1])
        steps = np.mean([row.train_steps for row in of[agent]])
        on_task = np.mean([row.env_steps[-1] for row in of[agent]])
        lines.append(
            [
                agent,
                short(value),
                f"[{short(low)}, {short(high)}]",
                str(len(of[agent])),
                f"{on_task:,.0f}",
                f"{steps:,.0f}",
            ]
        )
    columns = (
        "agent",
        "return of an episode, last point",
        "95 % interval",
        "seeds",
        "steps on the task",
        "of training",
    )
    about = f"{PROBLEMS[name].id}, split {PROBLEMS[name].split}"
    return f"<h2>{html.escape(name)}</h2><p>{html.escape(about)}</p>{_html_table(columns, lines)}"


def _adaptation(board: Board, shades: dict[str, str]) -> go.Figure | None:
    """Draw the normalised adaptation curves, one panel per problem."""
    names = [name for name, of in board.by_problem.items() if next(iter(of.values()))[0].normalised([0.0]) is not None]
    if not names:
        return None
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = make_subplots(lines, columns, subplot_titles=names, vertical_spacing=0.25 / lines, horizontal_spacing=0.06)
    shown: set[str] = set()
    for number, name in enumerate(names):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        for agent, rows in board.by_problem[name].items():
            _draw_curve(figure, rows[0], shades[agent], agent not in shown, place)
            shown.add(agent)
        figure.update_yaxes(range=[-0.15, 1.1], **place)
        figure.update_xaxes(type="log", title_text="episodes on the task" if place["row"] == lines else "", **place)
    figure.update_layout(height=300 * lines + 90, **LAYOUT)
    figure.update_layout(legend={"orientation": "h", "y": -0.28 / lines})
    return figure


def _draw_curve(figure: go.Figure, row: Row, shade: str, first: bool, place: dict[str, int]) -> None:
    """Draw an agent's curve with its confidence band; a log axis starts at the first episode."""
    values = [row.normalised(each) for each in (row.mean, row.low, row.high)]
    mean, low, high = (np.array(each) for each in values if each is not None)
    x = np.array(row.episodes) + 1.0
    band = {"x": [*x, *x[::-1]], "y": [*high, *low[::-1]], "fill": "toself", "opacity": 0.18, "line": {"width": 0}}
    figure.add_scatter(**band, fillcolor=shade, hoverinfo="skip", showlegend=False, legendgroup=row.agent, **place)
    figure.add_scatter(
        x=x, y=mean, name=row.agent, legendgroup=row.agent, showlegend=first, line={"color": shade, "width": 2},
        mode="lines+markers" if len(x) < 12 else "lines", marker={"size": 5}, **place,
    )  # fmt: skip


def _profiles(board: Board, shades: dict[str, str]) -> go.Figure | None:
    """Draw performance profiles (Agarwal et al. 2021)."""
    suite = board.suite()
    if suite is None:
        return None
    figure = go.Figure()
    thresholds = np.linspace(-0.2, 1.1, 80)
    for agent, (share, low, high) in suite.profile(thresholds).items():
        band = {"x": [*thresholds, *thresholds[::-1]], "y": [*high, *low[::-1]], "line": {"width": 0}}
        figure.add_scatter(
            **band, fill="toself", opacity=0.18, fillcolor=shades[agent], hoverinfo="skip", showlegend=False
        )
        figure.add_scatter(x=thresholds, y=share, name=agent, line={"color": shades[agent], "width": 2})
    figure.update_xaxes(title_text="normalised return (0 random, 1 told the task)")
    figure.update_yaxes(title_text="share of tasks above it", range=[0, 1.02])
    figure.update_layout(height=420, **LAYOUT)
    figure.update_layout(legend={"orientation": "h", "y": -0.22})
    return figure


def _ranks(board: Board, shades: dict[str, str]) -> go.Figure | None:
    """Draw means and mean ranks with their intervals."""
    suite = board.suite()
    if suite is None:
        return None
    figure = make_subplots(1, 2, subplot_titles=("mean over problems", "mean rank (1 is best)"), shared_yaxes=True)
    for row in reversed(suite.summary()):
        for column, name in enumerate(("mean", "rank"), start=1):
            value, low, high = row[name]
            error = {"type": "data", "symmetric": False, "array": [high - value], "arrayminus": [value - low]}
            figure.add_scatter(
                x=[value], y=[row["agent"]], error_x=error, mode="markers", showlegend=False, row=1, col=column,
                marker={"color": shades[row["agent"]], "size": 11},
            )  # fmt: skip
    figure.update_layout(height=120 + 42 * len(suite.agents), **LAYOUT)
    return figure


def _surfaces(board: Board) -> go.Figure | None:
    """Draw the budget surface of each agent and problem, one at a time, chosen from a list."""
    chosen = [
        (f"{agent} on {name}, seed {row.seed}", row)
        for name, of in board.by_problem.items()
        for agent, rows in of.items()
        for row in [row for row in rows if len(row.training) >= 3 and len({*map(len, row.training)}) == 1][:1]
    ]
    if not chosen:
        return None
    figure = go.Figure()
    for number, (title, row) in enumerate(chosen):
        table = np.array(row.training)
        points = np.arange(1, table.shape[1])
        figure.add_surface(
            x=points, y=table[:, 0], z=table[:, 1:], name=title, visible=number == 0, colorscale="Viridis",
            colorbar={"title": "return", "len": 0.7},
        )  # fmt: skip
    buttons = [
        {"label": title, "method": "update", "args": [{"visible": [each == number for each in range(len(chosen))]}]}
        for number, (title, _) in enumerate(chosen)
    ]
    figure.update_layout(
        height=620,
        updatemenus=[{"buttons": buttons, "x": 0.0, "xanchor": "left", "y": 1.08}],
        scene={
            "xaxis": {"title": {"text": "point of adaptation"}},
            "yaxis": {"title": {"text": "training steps"}},
            "zaxis": {"title": {"text": "return"}},
        },
        **LAYOUT,
    )
    return figure
