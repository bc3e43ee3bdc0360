"""Colours: the same for the same kind in every figure, and no two alike in one."""

from metarl.evaluation.drawing.colours import KINDS, OPTIMUM, OTHERS, RANDOM, colour, colours


def test_a_kind_has_its_colour_whatever_else_is_shown():
    assert colour("RL2") == colour("rl2_gridnavi") == colour("RL²") == colours(["MAML", "RL2"])["RL2"]
    assert colour("random") == RANDOM and colour("oracle") == OPTIMUM
    assert colour("PPO, from scratch") == colour("ppo_gridnavi")
    assert colour("RecurrentSAC") == colour("sac_gridnavi") != colour("recurrent_ppo_gridnavi")
    assert colour("dagger_gridnavi_small") == colour("DAgger of bayes_optimal")


def test_no_two_are_alike_in_one_figure():
    names = ["RL2", "rl2_a", "rl2_b", "MAML", "PPO", "ppo_x", "random", "mine", "yours", "nobody's", "Thompson"]
    chosen = colours(names)
    assert list(chosen) == names and len(set(chosen.values())) == len(names)
    many = colours(str(number) for number in range(100))
    assert len(set(many.values())) >= len(set(OTHERS)), "beyond them they begin again"
    assert len(set(KINDS.values()) & set(OTHERS)) == 0
