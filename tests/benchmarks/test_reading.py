"""How far a reader must go to follow an update: a bound on files, and on changes of file, that no change may break."""

from benchmarks.reading import ways


def test_an_update_is_read_in_few_files():
    found = ways()
    rl2, maml = found["RL²"], found["MAML with PPO"]
    assert len(rl2.files) <= 6 and rl2.changes <= 12, rl2.functions
    assert len(maml.files) <= 8 and maml.changes <= 16, maml.functions
    assert ("fast", "ppo_loss") in rl2.functions and ("fast", "gradient_through_steps") in maml.functions
