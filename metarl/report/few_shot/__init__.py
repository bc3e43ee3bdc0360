"""What an evaluation shows of supervised few-shot learning; importing this package registers it for its families."""

from metarl.report.few_shot import figures, measures  # noqa: F401  (both register)
