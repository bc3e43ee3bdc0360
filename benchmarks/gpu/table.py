"""The GPU measurement on one screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LINES, WIDTH = 40, 110


def table(found: Mapping[str, Any]) -> list[str]:
    """At most `LINES` lines of what was found."""
    of = {name: section["results"] for name, section in found["sections"].items()}
    by_name = {name: {result["name"]: result for result in results} for name, results in of.items()}
    lines = [
        *_machine(by_name.get("machine", {})),
        *_tests(by_name.get("tests", {})),
        *_capture(of.get("capture", [])),
        *_speeds(of.get("speed", []), by_name.get("peer", {})),
        *_targets(of.get("targets", [])),
        *_parity(of.get("parity", [])),
        *_kernels(of.get("kernels", [])),
    ]
    for name, section in found["sections"].items():
        if section["status"] != "done":
            lines.append(f"! {name}: {section['status']}")
    lines = [line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines]
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], f"… {len(lines) - LINES + 1} more lines"]


def _machine(results: Mapping[str, Any]) -> list[str]:
    device, versions = results.get("device", {}), results.get("versions", {})
    what = device.get("card", device.get("device", "unknown device"))
    libraries = [f"{name} {versions[name]}" for name in ("python", "torch", "cuda", "jax") if versions.get(name)]
    peaks = []
    for name, result in results.items():
        if "tflops" in result:
            peaks.append(f"{name.removeprefix('product in ')} {result['tflops']:.3g} TFLOP/s")
        if "gb_per_second" in result:
            peaks.append(f"copy {result['gb_per_second']:.4g} GB/s")
    return [f"{what}; {', '.join(libraries)}", f"ceilings: {', '.join(peaks) or 'not measured'}"]


def _tests(results: Mapping[str, Any]) -> list[str]:
    counts = {key: value for key, value in results.get("counts", {}).items() if isinstance(value, int)}
    said = ", ".join(f"{value} {key}" for key, value in counts.items())
    lines = [f"tests: {said or results.get('counts', {}).get('ended', 'none')}"]
    bad = [f"{result['outcome']}: {name}" for name, result in results.items() if "outcome" in result]
    return lines + [f"  {line}" for line in bad[:4]] + ([f"  … {len(bad) - 4} more"] if len(bad) > 4 else [])


def _capture(results: Sequence[Mapping[str, Any]]) -> list[str]:
    captured = [result["name"] for result in results if result.get("captured")]
    lines = [f"captured: {', '.join(captured) or 'nothing'}"]
    reasons: dict[str, list[str]] = {}
    for result in results:
        reason = result.get("why_not") or result.get("failed")
        if reason:
            reasons.setdefault(reason, []).append(result["name"])
    return lines + [f"  not {', '.join(names)}: {reason}" for reason, names in list(reasons.items())[:3]]


def _speeds(results: Sequence[Mapping[str, Any]], peers: Mapping[str, Any]) -> list[str]:
    if not results:
        return ["steps per second: not measured"]
    lines = [
        f"{'steps per second':22s} {'metarl':>14s} {'of the ceiling':>14s} {'peak GiB':>9s} {'JAX':>14s} {'× JAX':>6s}"
    ]
    for result in results:
        if "failed" in result:
            lines.append(f"{result['name']:22s} {result['failed']}")
            continue
        share = result.get("of_peak_operations", result.get("of_peak_bytes"))
        peer = peers.get(result["name"], {}).get("steps_per_second")
        cells = [
            f"{result['steps_per_second']:14,.0f}",
            f"{'' if share is None else f'{100 * share:.1f} %':>14s}",
            f"{result['peak_gib']:9.2f}" if "peak_gib" in result else " " * 9,
            f"{'' if peer is None else f'{peer:,.0f}':>14s}",
            f"{'' if peer is None else format(result['steps_per_second'] / peer, '.2f'):>6s}",
        ]
        lines.append(f"{result['name']:22s} {' '.join(cells)}".rstrip())
    missing = {result["failed"] for result in peers.values() if "failed" in result}
    return lines + [f"  JAX: {reason}" for reason in list(missing)[:1]]


def _targets(results: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = []
    for result in results:
        if "failed" in result:
            parts.append(f"{result['name']} failed: {result['failed']}")
        elif result["reached"]:
            parts.append(f"{result['name']} {result['seconds']:.1f} s")
        else:
            best = "no evaluation" if result["best"] is None else f"best {result['best']:.4g}"
            parts.append(f"{result['name']} not in {result['seconds']:.0f} s ({best} of {result['target']:g})")
    return [f"to the target: {'; '.join(parts) or 'not measured'}"]


def _parity(results: Sequence[Mapping[str, Any]]) -> list[str]:
    good = [result for result in results if "failed" not in result]
    if not good:
        return ["CPU against the device: not measured"]
    worst = max(good, key=lambda result: result["difference"] if result["difference"] is not None else float("inf"))
    broken = [result["name"] for result in good if not result["there_and_back"]]
    back = f"not the same: {', '.join(broken)}" if broken else "the same"
    lines = [
        f"CPU against the device after an iteration: at most {worst['difference']:.1e} ({worst['name']}); "
        f"checkpoints there and back: {back}"
    ]
    return lines + [f"  {result['name']}: {result['failed']}" for result in results if "failed" in result][:2]


def _kernels(results: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for result in results:
        if "top" in result:
            whole = sum(event["ms"] for event in result["top"]) or 1.0
            top = ", ".join(f"{event['name'][:24]} {100 * event['ms'] / whole:.0f} %" for event in result["top"][:3])
            lines.append(f"{result['name']}: {top}")
        elif "copies" in result:
            count = sum(event["calls"] for event in result["copies"])
            lines.append(f"{result['name']}: {count}")
        else:
            lines.append(f"{result['name']}: {result['failed']}")
    return lines
