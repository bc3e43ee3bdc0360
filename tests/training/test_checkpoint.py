"""Saving and loading lose nothing, are never torn, and say in a sentence what is wrong."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from registered_families import PRESETS_ELSEWHERE
from toy import TOY, Guess, write_config

import metarl
from metarl.cli import train
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.rollout import run_trial
from metarl.training import checkpoint, run_folder, state_file
from metarl.training.checkpoint import Counters
from metarl.training.config import parsing as config
from metarl.training.config.errors import ConfigError


def improve(agent: LearningAgent, iteration: int) -> None:
    key = rng.fold(rng.key(3), iteration)
    tasks = agent.family.sample_tasks(key, 16)
    agent.update(run_trial(agent, agent.family, tasks, key), 0.1)


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, LearningAgent]:
    """A run directory with its agent after two updates."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    write_config(run_dir)
    read = config.read(run_dir / "config.yaml")
    agent = read.agent.build(read.family, read.seed, torch.device("cpu"))
    for iteration in range(2):
        improve(agent, iteration)
    checkpoint.save(run_dir, agent, Counters(2, 192, 1.5))
    return run_dir, agent


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_loaded_is_what_was_saved(run: tuple[Path, LearningAgent]):
    run_dir, agent = run
    loaded = metarl.load(run_dir)
    assert same(loaded.state_dict(), agent.state_dict())
    assert checkpoint.load_state(run_dir)[1] == Counters(2, 192, 1.5)
    assert isinstance(loaded.family, Guess) and loaded.config == agent.config


def test_a_loaded_agent_learns_on_as_the_saved_one_would(run: tuple[Path, LearningAgent]):
    run_dir, agent = run
    loaded = metarl.load(run_dir)
    improve(agent, 2)
    improve(loaded, 2)
    assert same(loaded.state_dict(), agent.state_dict())


def flip_bits(run_dir: Path, count: int) -> dict[str, int]:
    """Flip single bits anywhere in the file; return how many files were refused, and how many read as they were."""
    path = run_dir / checkpoint.CHECKPOINT
    whole, before = path.read_bytes(), checkpoint.load_state(run_dir)
    found = {"refused": 0, "equal": 0}
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(8 * len(whole), (count,), generator=generator).tolist():
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << (place % 8)
        path.write_bytes(bytes(damaged))
        try:
            state, counters = checkpoint.load_state(run_dir)
        except ConfigError as error:
            assert len(str(error).replace(str(run_dir), "")) < 300 and "\n" not in str(error), error
            found["refused"] += 1
        else:
            assert same(state, before[0]) and counters == before[1], place
            found["equal"] += 1
    path.write_bytes(whole)
    return found


def test_a_flipped_bit_is_noticed(run: tuple[Path, LearningAgent]):
    """Anywhere in the file: in the weights, where it would still be a number, and in the header."""
    found = flip_bits(run[0], 400)
    assert found["refused"] > 390, found


@pytest.mark.slow
def test_many_flipped_bits_are_noticed(run: tuple[Path, LearningAgent]):
    found = flip_bits(run[0], 7200)
    assert found["refused"] > 7150, found


def test_every_bit_of_the_length_of_the_header_is_noticed(run: tuple[Path, LearningAgent]):
    path = run[0] / checkpoint.CHECKPOINT
    whole = path.read_bytes()
    for bit in range(64):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bytes(damaged))
        with pytest.raises(ConfigError):
            checkpoint.load_state(run[0])


def rewritten(run_dir: Path, state: dict[str, torch.Tensor], exact: bool = True) -> None:
    """Replace the checkpoint by one of other tensors with a valid checksum, or as an earlier version, without one."""
    counters = checkpoint.load_state(run_dir)[1]
    content = state_file.pack(state, counters)
    if not exact:
        content = safetensors.torch.save(state, {"format": "1", "counters": json.dumps(dataclasses.asdict(counters))})
    (run_dir / checkpoint.CHECKPOINT).write_bytes(content)


def broken(state: dict[str, torch.Tensor]) -> dict[str, tuple[dict[str, torch.Tensor], str]]:
    """States that do not fit the agent, and what the sentence names."""
    weight = next(name for name in state if name.startswith("net.") and state[name].dim() == 2)
    moment = f"optimizer.{weight.removeprefix('net.')}.exp_avg"
    step = moment.replace("exp_avg", "step")
    without = {name: value for name, value in state.items() if name != weight}
    return {
        "missing weight": (without, weight),
        "missing counter": ({name: value for name, value in state.items() if name != "updates"}, "updates"),
        "missing moment": ({name: value for name, value in state.items() if name != moment}, "exp_avg"),
        "extra": (state | {"net.more": torch.zeros(2)}, "net.more"),
        "many extra": (state | {f"extra.{'x' * 200}.{n}": torch.zeros(1) for n in range(50)}, "49 more"),
        "shape": (state | {weight: torch.zeros(3, 5)}, weight),
        "transposed": (state | {weight: state[weight].T.contiguous()}, weight),
        "shape that broadcasts": (state | {"return_mean": torch.zeros(1)}, "return_mean"),
        "dtype": (state | {weight: state[weight].double()}, weight),
        "whole numbers": (state | {weight: state[weight].long()}, weight),
        "half": (state | {moment: state[moment].half()}, moment),
        "moment of another shape": (state | {moment: torch.zeros(2, 2)}, moment),
        "updates below zero": (state | {"updates": torch.tensor(-3)}, "updates"),
        "updates of two": (state | {"updates": torch.tensor([3, 4])}, "updates"),
        "updates as a fraction": (state | {"updates": torch.tensor(3.5)}, "updates"),
        "steps that are nan": (state | {step: torch.tensor(float("nan"))}, step),
    }


@pytest.mark.parametrize("exact", [True, False])
def test_tensors_that_do_not_fit_the_agent_are_named(exact: bool, run: tuple[Path, LearningAgent]):
    run_dir, agent = run
    state = {name: value.clone() for name, value in agent.state_dict().items()}
    for kind, (other, named) in broken(state).items():
        if not exact and kind in ("extra", "many extra", "missing moment"):  # earlier versions had others
            continue
        rewritten(run_dir, other, exact)
        with pytest.raises(ConfigError) as caught:
            metarl.load(run_dir)
        sentence = str(caught.value)
        assert named in sentence or "cannot be read" in sentence, (kind, sentence)
        assert len(sentence.replace(str(run_dir), "")) <= 300 and "\n" not in sentence, sentence
    rewritten(run_dir, state, exact)
    assert same(metarl.load(run_dir).state_dict(), state)


def test_init_from_an_agent_that_does_not_fit_is_refused(run: tuple[Path, LearningAgent]):
    run_dir, agent = run
    state = {name: value.clone() for name, value in agent.state_dict().items()}
    read = config.read(run_dir / "config.yaml")
    for kind, (other, named) in broken(state).items():
        if "moment" in kind or named.startswith(("optimizer.", "updates")) or kind == "half":  # these begin anew
            continue
        rewritten(run_dir, other)
        with pytest.raises(ConfigError, match="init_from must name") as caught:
            checkpoint.start_from(str(run_dir), read.agent.build(read.family, 1, torch.device("cpu")))
        assert named in str(caught.value), (kind, caught.value)
        assert len(str(caught.value).replace(str(run_dir), "")) <= 300
    rewritten(run_dir, state)
    fresh = read.agent.build(read.family, 1, torch.device("cpu"))
    checkpoint.start_from(str(run_dir), fresh)
    assert same(_net(fresh), _net(agent))


COUNTERS = {
    "iteration": (-1, 2**60, 1.5, True, None, "3"),
    "env_steps": (-1, 10**400, 0.5, False, None),
    "seconds": (-0.1, float("nan"), float("inf"), 1e300, True, None, "1"),
    "best_score": (float("nan"), float("-inf"), True, "1", [1.0]),
    "best_iteration": (-1, 3, 0.0, True, None),
}


@pytest.mark.parametrize("name", COUNTERS)
def test_counters_out_of_their_range_are_refused(name: str, run: tuple[Path, LearningAgent]):
    run_dir, agent = run
    state = {key: value.clone() for key, value in agent.state_dict().items()}
    good = dataclasses.asdict(Counters(2, 192, 1.5, 0.5, 1))
    texts = [json.dumps(good | {name: value}) for value in COUNTERS[name]]
    texts += [json.dumps({key: value for key, value in good.items() if key != name})] * (name[:4] != "best")
    texts += ["[]", "null", "[" * 100_000, json.dumps(good | {"of_the_future": 1})]
    for text in texts:
        content = safetensors.torch.save(state, {"format": "1", "counters": text})
        (run_dir / checkpoint.CHECKPOINT).write_bytes(content)
        with pytest.raises(ConfigError, match="its counters are damaged"):
            checkpoint.load_state(run_dir)


def test_a_file_from_before_there_were_checksums_is_read(run: tuple[Path, LearningAgent], tmp_path: Path):
    state, counters = checkpoint.load_state(run[0])
    header = {"format": "1", "counters": json.dumps(dataclasses.asdict(counters))}
    safetensors.torch.save_file(state, tmp_path / checkpoint.CHECKPOINT, header)
    (tmp_path / "config.yaml").write_text((run[0] / "config.yaml").read_text())
    assert checkpoint.load_state(tmp_path)[1] == counters


def test_the_optimiser_is_saved_too(run: tuple[Path, LearningAgent]):
    assert any(name.startswith("optimizer.") for name in checkpoint.load_state(run[0])[0])


def test_a_failure_in_writing_keeps_the_checkpoint_before(
    run: tuple[Path, LearningAgent], monkeypatch: pytest.MonkeyPatch
):
    run_dir, agent = run
    before = checkpoint.load_state(run_dir)
    improve(agent, 2)

    def fail(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(run_dir, agent, Counters(3))
    after = checkpoint.load_state(run_dir)
    assert same(before[0], after[0]) and before[1] == after[1]
    assert sorted(path.name for path in run_dir.iterdir()) == ["checkpoint.safetensors", "config.yaml"]


def kept(run_dir: Path) -> list[int]:
    return sorted(int(path.stem.partition("_")[2]) for path in run_dir.glob("checkpoint_*.safetensors"))


def test_the_last_checkpoints_are_kept(run: tuple[Path, LearningAgent]):
    run_dir, agent = run
    states = {}
    for iteration in (4, 6, 8, 10):
        improve(agent, iteration)
        states[iteration] = {name: value.clone() for name, value in agent.state_dict().items()}
        checkpoint.save(run_dir, agent, Counters(iteration), keep=3)
    assert kept(run_dir) == [6, 8, 10]
    for iteration in kept(run_dir):
        loaded = metarl.load(run_dir, which=iteration)
        assert same(loaded.state_dict(), states[iteration]) and loaded.trained["iteration"] == iteration
    assert same(metarl.load(run_dir).state_dict(), states[10])
    with pytest.raises(ConfigError, match="no checkpoint of iteration 4: it has those of 10, 8, 6"):
        metarl.load(run_dir, which=4)
    checkpoint.save(run_dir, agent, Counters(8), keep=2)
    assert 10 in kept(run_dir) and kept(run_dir)[:2] == [6, 8], "what a later part of the run left is not counted"


def test_the_checkpoint_before_a_damaged_one_is_taken_on_a_resume(run: tuple[Path, LearningAgent]):
    run_dir, agent = run
    states = {}
    for iteration in (4, 6, 8):
        improve(agent, iteration)
        states[iteration] = {name: value.clone() for name, value in agent.state_dict().items()}
        checkpoint.save(run_dir, agent, Counters(iteration), keep=3)
    read, said = config.read(run_dir / "config.yaml"), list[str]()
    fresh = read.agent.build(read.family, read.seed, torch.device("cpu"))
    assert checkpoint.restore_last_good(run_dir, fresh, said.append) == Counters(8) and not said
    for name, then in (("checkpoint", 8), ("checkpoint_8", 6), ("checkpoint_6", 4)):
        path = run_dir / f"{name}.safetensors"
        path.write_bytes(path.read_bytes()[:-5])
        fresh = read.agent.build(read.family, read.seed, torch.device("cpu"))
        assert checkpoint.restore_last_good(run_dir, fresh, said.append) == Counters(then)
        assert same(fresh.state_dict(), states[then])
        assert "checkpoint.safetensors" in said[-1] and f"'checkpoint_{then}.safetensors' instead" in said[-1]
    (run_dir / "checkpoint_4.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"checkpoint\.safetensors.* cannot be read"):
        checkpoint.restore_last_good(run_dir, fresh, said.append)


def test_tensors_that_share_memory_are_saved(tmp_path: Path, run: tuple[Path, LearningAgent]):
    class Flat(LearningAgent):
        def state_dict(self) -> dict[str, torch.Tensor]:
            flat = torch.arange(6.0)
            return {"a": flat[:4], "b": flat[2:], "c": flat.reshape(2, 3).T}

    flat = Flat()
    checkpoint.save(tmp_path, flat, Counters())
    assert same(checkpoint.load_state(tmp_path)[0], flat.state_dict())


def test_a_trained_agent_in_the_package(
    run: tuple[Path, LearningAgent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run_dir, agent = run
    monkeypatch.setattr(checkpoint, "PRETRAINED", tmp_path / "pretrained")
    arguments = [str(run_dir), "toy_guess"]
    assert checkpoint.main(arguments) == 2, "a run without an evaluation has no curve to show"
    metarl.evaluate(agent, agent.family, tasks=8).save(run_dir / "evaluation" / "test")
    folder = checkpoint.export_pretrained(run_dir, "toy_guess", tmp_path / "pretrained")
    loaded = metarl.load("pretrained:toy_guess")
    saved = agent.state_dict()
    assert same({k: v for k, v in saved.items() if k.startswith("net.")}, _net(loaded))
    kept = safetensors.torch.load_file(folder / "agent.safetensors")
    assert not [name for name in kept if name.startswith("optimizer.")]
    assert json.loads((folder / "curve.json").read_text())["test"]["summary"]["tasks"] == 8
    with pytest.raises(ConfigError, match="Did you mean 'pretrained:toy_guess'"):
        metarl.load("pretrained:toy_gues")


def _net(agent: LearningAgent) -> dict[str, torch.Tensor]:
    return {k: v for k, v in agent.state_dict().items() if k.startswith("net.")}


def test_shipped_agents_load():
    for name in checkpoint.pretrained():
        if name.removeprefix("pretrained:") not in PRESETS_ELSEWHERE:
            assert metarl.load(name).family is not None


def test_what_is_wrong_with_a_run_is_said_in_a_sentence(run: tuple[Path, LearningAgent], tmp_path: Path):
    run_dir, _ = run

    def sentence() -> str:
        with pytest.raises(ConfigError) as caught:
            metarl.load(run_dir)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    with pytest.raises(ConfigError, match="no run directory"):
        metarl.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"has no config\.yaml"):
        metarl.load(tmp_path)
    whole_config = (run_dir / "config.yaml").read_text()
    (run_dir / "config.yaml").write_text(whole_config.replace("hidden_size: 8", "hidden_size: 9"))
    assert "does not fit its config.yaml" in sentence() and "but the agent's is" in sentence()
    assert len(sentence().replace(str(run_dir), "")) < 300
    (run_dir / "config.yaml").write_text("of_the_future: 1\n" + whole_config)
    assert "cannot be loaded" in sentence() and "of_the_future" in sentence()
    (run_dir / "config.yaml").write_text(whole_config)
    file = run_dir / checkpoint.CHECKPOINT
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in sentence()
    safetensors.torch.save_file({"a": torch.zeros(1)}, file, {"format": "999"})
    assert "format 999" in sentence()
    for counters in ({}, {"counters": "no JSON"}, {"counters": '{"of_the_future": 1}'}):
        safetensors.torch.save_file({"a": torch.zeros(1)}, file, {"format": "1"} | counters)
        assert "its counters are damaged" in sentence()
    file.unlink()
    assert "has no checkpoint yet" in sentence()


def test_a_score_that_is_no_number_is_never_the_best(run: tuple[Path, LearningAgent]):
    run_dir, agent = run
    good = metarl.evaluate(agent, agent.family, "valid", tasks=8)
    bad = dataclasses.replace(good, returns=good.returns * float("nan"))
    done = run_folder.keep_best(run_dir, agent, Counters(3), {"valid": bad})
    assert done == Counters(3) and not (run_dir / checkpoint.BEST).exists()
    done = run_folder.keep_best(run_dir, agent, Counters(4), {"valid": good})
    assert done.best_iteration == 4 and checkpoint.load_state(run_dir, which="best")[1] == done


def test_a_run_that_goes_on_from_the_checkpoint_before_a_damaged_one_ends_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)
    args = ["--config", "toy.yaml", "--keep_checkpoints", "3", "--total_iterations", "9"]
    assert train.main([*args, "--run_dir", "run"]) == 0
    shutil.copytree("run", "whole")
    for name in ("checkpoint.safetensors", "checkpoint_9.safetensors", "checkpoint_8.safetensors"):
        damaged = bytearray(Path("run", name).read_bytes())
        damaged[-1] ^= 1
        Path("run", name).write_bytes(bytes(damaged))
    capsys.readouterr()
    assert train.main(["--resume", "run"]) == 0
    error = capsys.readouterr().err
    assert "'run/checkpoint.safetensors' is damaged" in error and "'checkpoint_6.safetensors' instead" in error
    (state, counters), (expected, other) = (checkpoint.load_state(name) for name in ("run", "whole"))
    assert same(state, expected) and counters.iteration == other.iteration == 9
    numbers, others = (
        [json.loads(line) for line in Path(name, "metrics.jsonl").read_text().splitlines()] for name in ("run", "whole")
    )
    assert [line["iteration"] for line in numbers] == [*range(1, 10)]
    assert [line["train/return"] for line in numbers] == [line["train/return"] for line in others]
    assert kept(Path("run")) == kept(Path("whole")) == [6, 8, 9]


def test_a_damaged_checkpoint_without_one_before_it_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)
    assert train.main(["--config", "toy.yaml", "--run_dir", "run"]) == 0
    path = Path("run/checkpoint.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    capsys.readouterr()
    assert train.main(["--resume", "run", "--total_iterations", "9"]) == 2
    assert "'run/checkpoint.safetensors' cannot be read" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in Path("run").iterdir()}
