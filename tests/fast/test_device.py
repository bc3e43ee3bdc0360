"""x"""
from __future__ import annotations
from typing import Any
import gymnasium
import pytest
import torch
from pretended import CPU, GPU, PretendedGPU, OnGPU, gpu  # noqa: F401
from registered_families import IDS
from torch.utils import _pytree as pytree
import metarl
from metarl.core import rng
from metarl.core.batch_env import make_env
from metarl.core.tree import to_device, leaves
SIMULATED = {f"metarl/{name}-v0" for names in metarl.envs.SIMULATED.values() for name in names}  # on the CPU, always
OPAQUE = {"metarl/Gym-v0"}  # simulators are on no device
FAMILIES = sorted(id for id in IDS if id not in SIMULATED and id not in OPAQUE)

def close(a, b):
    torch.testing.assert_close(a.host if isinstance(a, OnGPU) else a, b, rtol=1e-4, atol=1e-5)

@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("what", ["tasks", "env", "told", "belief", "mutate"])
def test_fam(name, what, gpu):
    family = metarl.make(name)
    for split in family.splits if what == "tasks" else family.splits[:1]:
        wanted = family.sample_tasks(rng.key(0), 3, split)
        if what in ("tasks", "mutate"):
            found = family.sample_tasks(rng.key(0, GPU), 3, split)
            pytree.tree_map(close, found, wanted)
    task, key = to_device(wanted, GPU), rng.key(1, GPU)
    if what == "mutate":
        keys = rng.fold(key, torch.arange(3, device=GPU))
        m = family.mutate(task, keys)
        if m is not None:
            pytree.tree_map(close, m, family.mutate(wanted, rng.fold(rng.key(1), torch.arange(3))))
        if family.task_space:
            pytree.tree_map(close, family.reconcile(task), family.reconcile(wanted))
        family.check_task(task)
        return
    def play(task, key):
        env = make_env(family, task, key)
        steps, seen = [], []
        steps.append(env.reset())
        for n in range(1, 4):
            if not family.terminates and n == 2:
                env._step = family.horizon - 1
            space = family.action_space
            action = torch.zeros((3, *space.shape), device=key.device)
            outcome, step = env.step(action.to(torch.int64) if not isinstance(space, gymnasium.spaces.Box) else action)
            env.all_done()
            steps.append(step); seen.append(outcome)
        return env, steps, seen
    if what == "env":
        env, steps, seen = play(task, key)
        with gpu.recording():
            env, steps, seen = play(task, key)
        e2, s2, o2 = play(wanted, rng.key(1))
        pytree.tree_map(close, (steps, seen), (s2, o2))
    if what == "told":
        env, steps, seen = play(task, key)
        e2, s2, o2 = play(wanted, rng.key(1))
        def told(task, env, step):
            return [x for x in (family.oracle(task), family.random_return(task), family.optimal_action(task, step.obs), family.target(task, env.state), family.success(task, env.final_state)) if x is not None]
        for _ in range(2):
          a = told(task, env, steps[-1]); b = told(wanted, e2, s2[-1])
          pytree.tree_map(close, a, b)
        def acting(task, env, step):
            return [x for x in (family.optimal_action(task, step.obs), family.target(task, env.state), family.success(task, env.final_state)) if x is not None]
        with gpu.recording():
            acting(task, env, steps[-1])
    if what == "belief":
        env, steps, seen = play(task, key)
        e2, s2, o2 = play(wanted, rng.key(1))
        belief = family.belief(family.splits[0])
        if belief is None: return
        def infer(task, steps, dev):
            b = belief.prior(3, dev)
            out = [belief.features(b)]
            for s in steps:
                b = belief.posterior(b, s); out.append(belief.features(b))
            return out, b
        out, b = infer(task, steps, GPU)
        with gpu.recording(): infer(task, steps, GPU)
        out2, b2 = infer(wanted, s2, CPU)
        pytree.tree_map(close, out, out2)
        def more(b, task): return [belief.log_prob(b, task), belief.task_mean(b), belief.weighted_tasks(b)]
        pytree.tree_map(lambda x, y: close(x,y) if isinstance(y, torch.Tensor) else None, more(b, task), more(b2, wanted))
