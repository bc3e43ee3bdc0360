"""The benchmark of exports: a row for the agent itself and for each program, played on the same tasks."""

from __future__ import annotations

import logging

import pytest

from benchmarks.exports import Variant, line, study


@pytest.mark.slow
def test_a_row_for_the_agent_and_for_each_program(monkeypatch: pytest.MonkeyPatch):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="pip install 'metarl[export]'")
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)
    variants = (Variant("float32", "float32"), Variant("int8", "int8"))
    rows = study("rl2_gridnavi", tasks=10, steps=20, variants=variants)
    assert [row["variant"] for row in rows] == ["torch", "float32", "int8"]
    assert rows[1]["difference"] == [0.0, 0.0, 0.0] and rows[1]["score"] == rows[0]["score"]
    assert rows[2]["bytes"] < 0.5 * rows[1]["bytes"] and rows[1]["compressed"] < rows[1]["bytes"]
    assert all(row["latency"] > 0.0 and line(row).count("|") == 8 for row in rows)
