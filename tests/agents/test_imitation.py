"""DPT and DAgger: who plays, who labels, the loss, and exact limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_families import Corridor

import metarl
from metarl.agents import DPT, RL2, DAgger, DAggerConfig, DPTConfig
from metarl.agents.family_extras import baseline
from metarl.agents.imitation.behaviour import Mixed, OptimalTeacher, Pair, labels_of, make_teacher
from metarl.cli.main import main
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, run_trial
from metarl.core.tree import take
from metarl.envs.bandits.bernoulli import BernoulliBandit
from metarl.envs.grids.dark_room import DarkRoom
from metarl.envs.grids.grid_navi import GridNavi
from metarl.testing import check_agent
from metarl.training import checkpoint
from metarl.training.config.errors import ConfigError
from metarl.training.state_file import Counters

SMALL: dict[str, Any] = {"meta_batch_size": 8, "hidden_size": 8, "num_minibatches": 2}


def played(player: Any, family: TaskFamily, rows: int = 12, seed: int = 0) -> Rollout:
    (rollout,) = run_trial(player, family, family.sample_tasks(rng.key(seed), rows), rng.key(seed))
    return rollout


@pytest.mark.parametrize("memory", ["transformer", "gru"])
@pytest.mark.parametrize("context", ["step", "episode"])
def test_dpt_keeps_the_contract_of_agents(memory: str, context: str):
    check_agent(DPTConfig(memory=memory, context=context, **SMALL), GridNavi(2))


def test_dpt_plays_the_contexts_itself_if_asked():
    family = BernoulliBandit(episodes_per_trial=4)
    agent = DPTConfig(memory="gru", behaviour="policy", **SMALL).build(family, 0, torch.device("cpu"))
    assert agent.player(rng.key(0), 0.0) is agent
    check_agent(agent.config, family)


@pytest.mark.parametrize(
    ("family", "teacher"),
    [(BernoulliBandit(episodes_per_trial=4), "gittins"), (GridNavi(2), "optimal")],
    ids=["gittins", "optimal"],
)
def test_dagger_keeps_the_contract_of_agents(family: TaskFamily, teacher: str):
    check_agent(DAggerConfig(teacher=teacher, **SMALL), family)


def test_dagger_learns_continuous_actions():
    check_agent(DAggerConfig(norm_obs=True, **SMALL), metarl.make("metarl/Navigation2D-v0", horizon=5))


def test_optimal_actions_reach_the_optimum():
    """The label is what a player who is told the task does: it earns the family's known optimum."""
    for family in (GridNavi(1), DarkRoom(1), BernoulliBandit(episodes_per_trial=1)):
        task = family.sample_tasks(rng.key(0), 60)
        if isinstance(family, DarkRoom):  # with renamed actions, too
            task = family.sample_tasks(rng.key(0), 60, "ood")
        teacher = OptimalTeacher(family)
        (rollout,) = run_trial(Pair(RL2like(family), teacher, beta=1.0), family, task, rng.key(1))
        total, oracle = (rollout.outcome.reward * rollout.mask).sum(0), family.oracle(task)
        if family.noisy:
            assert torch.equal(rollout.acted.action[0], task.probs.argmax(-1))
        else:
            torch.testing.assert_close(total, oracle, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", [GridNavi(1), DarkRoom(1)], ids=repr)
@pytest.mark.parametrize("split", ["test", "ood"])
def test_the_optimal_actions_are_those_after_which_the_goal_is_nearest(family: Any, split: str):
    task = family.sample_tasks(rng.key(0), 80, split)
    obs = torch.stack([rng.integers(rng.fold(rng.key(7), torch.arange(80)), 1, 5)[:, 0] for _ in range(2)], -1).float()
    obs[:, 1] = obs[:, 1].flip(0)
    left = []
    for action in range(5):
        keys = rng.fold(rng.key(1), torch.arange(80))
        state, _, _ = family.step(task, type(family.reset(task, keys))(obs.long()), torch.full((80,), action), keys)
        left.append((state.position - task.goal).abs().sum(-1))
    distance = torch.stack(left, dim=-1)
    optimal = family.optimal_actions(task, obs)
    nearest, there = distance == distance.amin(-1, keepdim=True), (task.goal == obs.long()).all(-1)
    assert torch.equal(optimal[~there], nearest[~there])
    assert (optimal[there].sum(-1) == 1).all() and (nearest[there] & optimal[there]).any(-1).all(), "to stay there"
    assert optimal.gather(1, family.optimal_action(task, obs)[:, None]).all() and (optimal.sum(1) > 1).any()


def test_sampled_labels_are_all_optimal_actions_equally_often():
    family, config = GridNavi(1), DPTConfig(memory="gru", **SMALL)
    rollout = played(Mixed(family, rng.key(5)), family, 400)
    best = torch.stack([family.optimal_actions(rollout.task, obs) for obs in rollout.step.obs])
    labels = {}
    for config.labels in ("sampled", "greedy"):
        labels[config.labels] = DPT(config, family).label(rollout, rng.key(0))
        assert best.gather(2, labels[config.labels][..., None]).all()
    several = best.sum(-1) == 2
    first = torch.stack([family.optimal_action(rollout.task, obs) for obs in rollout.step.obs])
    assert torch.equal(labels["greedy"], first)
    assert float((labels["sampled"] == first)[several].float().mean()) == pytest.approx(0.5, abs=0.03)


def RL2like(family: TaskFamily) -> DPT | DAgger:
    return DAggerConfig(teacher="optimal", **SMALL).build(family, 0, torch.device("cpu"))  # type: ignore[return-value]


def test_labels_are_asked_where_the_student_went():
    family, teacher = GridNavi(2), OptimalTeacher(GridNavi(2))
    rollout = played(Mixed(family, rng.key(5)), family)
    labels = labels_of(rollout, teacher, rng.key(0), greedy=True)
    by_hand = torch.stack([family.optimal_action(rollout.task, obs) for obs in rollout.step.obs])
    assert torch.equal(labels, by_hand) and not torch.equal(labels, rollout.acted.action)


def test_labels_are_the_teacher_s_mode_or_drawn_from_it():
    family, student = GridNavi(1), RL2like(GridNavi(1))
    assert isinstance(student, DAgger)
    student.teacher, rollout = RL2like(family), played(Mixed(family, rng.key(5)), family)
    mode, drawn = (labels_of(rollout, student.teacher, rng.key(0), greedy=greedy) for greedy in (True, False))
    assert torch.equal(student.label(rollout, rng.key(0)), mode) and not torch.equal(mode, drawn)
    student.config.labels = "sampled"
    assert torch.equal(student.label(rollout, rng.key(0)), drawn)


def test_a_teacher_that_learns_sees_the_trial_of_the_student():
    """Fed with its own trial, a planner labels every step with what it did itself."""
    family = GridNavi(3)
    rollout = played(baseline("bayes_optimal", family), family)
    teacher = make_teacher("bayes_optimal", family, torch.device("cpu"))
    assert torch.equal(labels_of(rollout, teacher, rng.key(0), greedy=True), rollout.acted.action)
    # On a student's trial it changes its mind where the student has seen what it would not have.
    other = played(Mixed(family, rng.key(5)), family)
    first, again = (labels_of(each, teacher, rng.key(0), greedy=True) for each in (rollout, other))
    assert torch.equal(first[0], again[0]) and not torch.equal(first, again)


def test_a_trained_agent_teaches():
    config, family = DAggerConfig(teacher="pretrained:rl2_gridnavi", **SMALL), GridNavi()
    student = config.build(family, 0, torch.device("cpu"))
    assert not hasattr(student, "teacher"), "a student acts without its teacher's run"
    student.prepare("all", metarl.load)
    assert student.learn("all").metrics["loss/cross_entropy"] > 0.0
    rollout = played(student, family)
    labels, teacher = labels_of(rollout, student.teacher, rng.key(1), greedy=True), metarl.load(config.teacher)
    memory = teacher.begin(12)
    for t in range(20):
        acted, memory = teacher.act(memory, take(rollout.step, t), rng.key(t).expand(12), greedy=True)
        assert torch.equal(labels[t], acted.action)


def test_a_run_with_a_teacher_that_there_is_not_ends_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["train", "dagger_gridnavi", "--agent.teacher", "runs/nowhere", "--run_dir", str(tmp_path / "run")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "runs/nowhere" in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("teacher", "sentence"),
    [
        ("pretrained:rl2_cartpole", "was trained on CartPole"),
        ("pretrained:maml_gridnavi", "adapts in rounds"),
        ("pretrained:rl2_gridnavy", "rl2_gridnavi"),
        ("runs/nowhere", "runs/nowhere"),
    ],
)
def test_a_trained_teacher_that_does_not_fit_is_refused(teacher: str, sentence: str):
    student = DAggerConfig(teacher=teacher, **SMALL).build(GridNavi(), 0, torch.device("cpu"))
    with pytest.raises(ValueError, match=sentence):
        student.prepare("all", metarl.load)


def test_beta_says_who_plays():
    family = BernoulliBandit(episodes_per_trial=30)
    student, teacher = RL2like(family), OptimalTeacher(family)
    best = family.sample_tasks(rng.key(0), 50).probs.argmax(-1)
    shares = []
    for beta in (0.0, 0.5, 1.0):
        rollout = played(Pair(student, teacher, beta), family, 50)
        shares.append(float((rollout.acted.action == best).float().mean()))
    assert shares[2] == 1.0 and shares[0] == pytest.approx(0.2, abs=0.06) and shares[1] == pytest.approx(0.6, abs=0.06)


def test_mixed_play_is_as_published():
    family = BernoulliBandit(num_arms=4, episodes_per_trial=400)
    probs = Mixed(family, rng.key(0)).begin(4000)
    torch.testing.assert_close(probs.sum(1), torch.ones(4000))
    assert float(probs.min()) >= 0.0
    torch.testing.assert_close(probs.mean(0), torch.full((4,), 0.25), rtol=0, atol=0.02)
    single = (probs.max(1).values > 0.9999).float().mean()
    assert float(single) == pytest.approx(1 / 11, abs=0.02), "w is 1 in one trial of eleven"
    # Mean of the square: w² for the single action, and (1 - w)² times that of a Dirichlet (2 / 20), and between them.
    w = torch.arange(11) / 10
    expected = ((1 - w) ** 2 * 0.1 + 2 * w * (1 - w) * 0.25 * 0.25 + w**2 * 0.25).mean()
    assert float(probs[:, 0].square().mean()) == pytest.approx(float(expected), abs=0.01)
    assert torch.equal(Mixed(family, rng.key(0), uniform=True).begin(3), torch.full((3, 4), 0.25))
    (rollout,) = run_trial(player := Mixed(family, rng.key(0)), family, family.sample_tasks(rng.key(1), 6), rng.key(2))
    shares = torch.nn.functional.one_hot(rollout.acted.action, 4).float().mean(0)
    torch.testing.assert_close(shares, player.begin(6), rtol=0, atol=0.1)


def test_the_loss_is_the_cross_entropy_of_a_naive_loop():
    family = Corridor()
    agent = DAggerConfig(teacher="random", **SMALL).build(family, 0, torch.device("cpu"))
    rollout = played(agent, family, 6)
    labels = labels_of(rollout, agent.teacher, rng.key(3), greedy=False)
    raw, _ = agent.net.encoder.raw(rollout.step, agent.net.encoder.initial(6))
    loss, _ = agent._loss(raw, labels, rollout.mask)
    memory, total, count = agent.begin(6), 0.0, 0
    for t in range(len(rollout.mask)):
        policy, _, memory = agent.net.step(take(rollout.step, t), memory)
        log_prob = policy.log_prob(labels[t])
        for row in range(6):
            if rollout.mask[t, row] > 0:
                total, count = total - float(log_prob[row].detach()), count + 1
    assert float(loss.detach()) == pytest.approx(total / count, rel=1e-5)


def test_the_gradient_is_that_of_finite_differences():
    family = GridNavi(1)
    agent = DAggerConfig(teacher="optimal", memory="gru", **SMALL).build(family, 0, torch.device("cpu"))
    agent.net.double()
    rollout = played(agent.__class__(agent.config, family), family, 5)
    labels = labels_of(rollout, agent.teacher, rng.key(3), greedy=True)
    raw, _ = agent.net.encoder.raw(rollout.step, agent.net.encoder.initial(5))
    raw, mask = raw.double(), rollout.mask.double()
    loss, _ = agent._loss(raw, labels, mask)
    name, weight = next(item for item in agent._trained_parameters() if item[1].ndim == 2)
    (gradient,) = torch.autograd.grad(loss, weight)
    place, step = divmod(int(gradient.abs().argmax()), weight.shape[1]), 1e-5
    with torch.no_grad():
        ends = []
        for sign in (1.0, -1.0):
            weight[place] += sign * step
            ends.append(float(agent._loss(raw, labels, mask)[0]))
            weight[place] -= sign * step
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(gradient[place]), rel=1e-4), name


def chances(policy: Any) -> torch.Tensor:
    """The probabilities of GridNavi's five actions."""
    each = [policy.log_prob(torch.full(policy.mode().shape, action)) for action in range(5)]
    return torch.stack(each, dim=-1).detach().exp()


@pytest.mark.parametrize("memory", ["gru", "transformer"])
def test_a_context_by_episodes_knows_the_episodes_before_and_the_observation(memory: str):
    """The same policy step by step as in whole trials, and none of it depends on the current episode's rewards."""
    family = GridNavi(3)
    agent = DPTConfig(memory=memory, context="episode", transition_input=True, **SMALL).build(
        family, 0, torch.device("cpu")
    )
    agent.net.encoder.reward_size.fill_(1.0)
    for weight in agent.net.policy.parameters():
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    rollout = played(Mixed(family, rng.key(5)), family)

    def probabilities(step: Any) -> torch.Tensor:
        raw, _ = agent.net.encoder.raw(step, agent.net.encoder.initial(12))
        output, x, _ = agent.net.sequence(raw, None)
        policy, _ = agent.net.heads(output, x, None)
        return chances(policy)

    whole, before = probabilities(rollout.step), agent.begin(12)
    for t in range(len(rollout.mask)):
        policy, before = agent.policy(take(rollout.step, t), before)
        torch.testing.assert_close(chances(policy), whole[t], atol=1e-5, rtol=1e-4)
    reward = rollout.step.prev_reward.clone()
    reward[16:30] += 1.0  # in the second episode, but for its last step, which the third is the first to see
    other, n = probabilities(rollout.step._replace(prev_reward=reward)), family.horizon
    assert torch.equal(other[: 2 * n], whole[: 2 * n]) and not torch.equal(other[2 * n :], whole[2 * n :])


def test_nobody_starts_from_a_policy_with_a_context_by_episodes(tmp_path: Path):
    """Its head reads the memory of another step, so that the same weights would play another policy."""
    family, cpu = GridNavi(1), torch.device("cpu")
    rl2 = DPTConfig(memory="gru", **SMALL).network().build(family, 0, cpu)
    for context in ("step", "episode"):
        student = DPTConfig(memory="gru", context=context, **SMALL)
        (run := tmp_path / context).mkdir()
        (run / "config.yaml").touch()
        checkpoint.save(run, student.build(family, 0, cpu), Counters())
        if context == "step":
            checkpoint.start_from(str(run), rl2)
            continue
        for agent in (rl2, DPTConfig(memory="gru", **SMALL).build(family, 0, cpu)):
            with pytest.raises(ConfigError, match=r"'by_episode' is not part of the agent"):
                checkpoint.start_from(str(run), agent)
        checkpoint.start_from(str(run), student.build(family, 1, cpu))


def test_a_context_by_episodes_needs_a_memory():
    with pytest.raises(ValueError, match="context=episode needs a memory of earlier episodes, which memory=none lacks"):
        DPTConfig(context="episode", memory="none")


def test_learning_lowers_the_loss_and_counts_its_steps():
    family = BernoulliBandit(num_arms=2, episodes_per_trial=6)
    config = DPTConfig(memory="gru", meta_batch_size=256, hidden_size=16, lr=0.01)
    agent = config.build(family, 0, torch.device("cpu"))
    learned = [agent.learn("train", 0.0) for _ in range(30)]
    assert all(each.env_steps == 256 * 6 for each in learned)
    losses = [each.metrics["loss/cross_entropy"] for each in learned]
    assert losses[0] == pytest.approx(0.69, abs=0.05) and sum(losses[-5:]) < 0.93 * sum(losses[:5])
    assert learned[-1].metrics["loss/agreement"] > 0.6


def test_every_iteration_has_a_batch_of_its_own():
    agent, batches = RL2like(GridNavi(1)), []
    make = agent.training_batch
    agent.training_batch = lambda *given: batches.append(make(*given)) or batches[-1]  # type: ignore[method-assign]
    agent.learn("train")
    agent.learn("train")
    assert not torch.equal(batches[0].label, batches[1].label), "other tasks"


def test_rl2_goes_on_from_a_student():
    family = GridNavi(2)
    student = DAggerConfig(teacher="optimal", **SMALL).build(family, 3, torch.device("cpu"))
    student.learn("train", 0.0)
    rl2 = student.config.network()
    rl2.meta_batch_size = 8
    agent = RL2(rl2, family, seed=5)
    agent.start_from(student.state_dict())
    step = take(played(student, family).step, 0)
    mine, theirs = (each.action_distribution(each.begin(12), step) for each in (agent, student))
    torch.testing.assert_close(mine.log_prob(torch.zeros(12).long()), theirs.log_prob(torch.zeros(12).long()))


@pytest.mark.parametrize(
    ("make", "family", "sentence"),
    [
        (DPTConfig, "metarl/Pendulum-v0", "has no optimal_action"),
        (DPTConfig, "metarl/TabularMDP-v0", "has no optimal_action"),
        (DAggerConfig, "metarl/BernoulliBandit-v0", "Unknown baseline of BernoulliBandit as a teacher"),
    ],
)
def test_who_cannot_be_taught_is_told_so(make: Any, family: str, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        make(**SMALL).build(metarl.make(family), 0, torch.device("cpu"))


def exact_posterior(successes: torch.Tensor, failures: torch.Tensor) -> torch.Tensor:
    """The probability that each of two arms is the better one, by integration over their Beta posteriors."""
    p = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    density = torch.stack([
        torch.distributions.Beta(s.double() + 1, f.double() + 1).log_prob(p).exp() for s, f in zip(successes, failures)
    ])  # fmt: skip
    below = (density.cumsum(1) - 0.5 * density) / 4000
    first = (density[0] * below[1]).mean()
    return torch.stack([first, 1.0 - first])


@pytest.mark.slow
def test_dpt_learns_the_posterior_of_two_arms():
    """For two arms and four pulls every history can be enumerated: the policy is the posterior over the best arm."""
    family = BernoulliBandit(num_arms=2, episodes_per_trial=4)
    config = DPTConfig(meta_batch_size=512, hidden_size=32, lr=[(0.0, 0.003), (1.0, 0.0)], behaviour="uniform")
    agent = config.build(family, 0, torch.device("cpu"))
    for number in range(250):
        agent.learn("train", number / 250)
    rollout = played(Mixed(family, rng.key(9), uniform=True), family, 256, seed=7)
    memory, errors = agent.begin(256), []
    wins, losses = torch.zeros(256, 2), torch.zeros(256, 2)
    for t in range(4):
        step = take(rollout.step, t)
        policy, _, memory = agent.net.step(step, memory)
        learned = policy.log_prob(torch.zeros(256).long()).exp()
        exact = torch.stack([exact_posterior(w, f)[0] for w, f in zip(wins, losses, strict=True)])
        errors.append(float((learned - exact).abs().mean()))
        taken = torch.nn.functional.one_hot(rollout.acted.action[t], 2).float()
        paid = rollout.outcome.reward[t][:, None]
        wins, losses = wins + taken * paid, losses + taken * (1 - paid)
    assert max(errors) < 0.03, errors
