"""The log of a run: TensorBoard, a JSONL copy, and progress in the terminal.

Every tag has a group: ``train/…``, ``loss/…``, ``eval/<split>/…``, ``time/…``. docs/metrics.md explains each tag, with
good and bad values. TensorBoard's x-axis is the environment steps of training, so that agents with different iterations
can be compared; the JSONL file has both.
"""
