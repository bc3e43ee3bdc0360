"""Submit a run to SLURM by submitit: ``python examples/slurm/submit.py rl2_gridnavi /shared/runs/gridnavi``.

A job that is preempted, or reaches its time limit, is submitted again and goes on from its last checkpoint.
"""

import sys

import submitit


class Train:
    """One process of the run; submitit starts one for each task, and tells it its rank."""

    def __init__(self, preset: str, run_dir: str, *options: str) -> None:
        self.arguments = [preset, "--run_dir", run_dir, "--auto_resume", *options]

    def __call__(self) -> int:
        from metarl.train import main

        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        return main(self.arguments)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Tell submitit what to submit next time: the same."""
        return submitit.helpers.DelayedSubmission(self)


if __name__ == "__main__":
    executor = submitit.AutoExecutor(folder="slurm_logs")
    executor.update_parameters(nodes=2, tasks_per_node=4, gpus_per_node=4, cpus_per_task=4, timeout_min=24 * 60)
    job = executor.submit(Train(*sys.argv[1:]))
    print(f"Submitted job {job.job_id}; its output: {job.paths.stdout}")
