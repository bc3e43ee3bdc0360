"""MuJoCo for families: batches of Gymnasium's v5 robots, optionally with a separate model per row.

A row is nothing but its physics state, so a batch needs no simulator per row, and a row of a batch equals a batch of
one bit for bit: what the solver remembers of the step before (its warm start) is left out. That changes a step by less
than 1e-10, and by less than 1e-5 for the humanoid, whose XML asks for another solver. Rows are shared out among
`torch.get_num_threads()` threads.

MuJoCo runs on the CPU. Tensors that are elsewhere are copied there and back. A simulation that becomes unstable, or is
given controls that are not finite, shows in what it returns; MuJoCo's own warnings of it are not let out.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core.host.calls import on_host

Model = Any  # mujoco.MjModel


Data = Any  # mujoco.MjData


Reading = Callable[[Model, Data], np.ndarray]


ModelsOf = Callable[[Any], Sequence[Model]]
"""Makes one model per row from the numbers ``(B, D)`` that describe them."""


ROWS_PER_THREAD = 8
"""HalfCheetahs of 16 rows made 55 thousand steps/s with two threads on two idle cores, and 45 with one."""


class Physics(NamedTuple):
    """The state that MuJoCo needs to continue a row, and the values read from it."""

    state: Tensor  # (B, 1 + nq + nv) float64: time in seconds, positions and velocities of the joints
    reading: Tensor  # (B, R) float64: what the simulator's `reading` gives, at the time when Gymnasium looks


class Simulator:
    """Steps a robot of Gymnasium, ``xml`` in its assets, `frame_skip` simulation steps at a time.

    `reading` (model, data) gives numbers that are no function of positions and velocities, such as forces of contact.
    It is asked after a step as Gymnasium does: MuJoCo leaves these quantities as they were before its last simulation
    step, while positions and velocities are those after it. `timestep`: seconds of a simulation step, where not the
    XML's. Raises ValueError if MuJoCo is not installed.
    """

    def __init__(
        self, xml: str, frame_skip: int, reading: Reading | None = None, timestep: float | None = None
    ) -> None:
        self.xml, self.frame_skip, self.reading, self.timestep = xml, frame_skip, reading, timestep
        self.mujoco = _mujoco()
        self.model = load(xml)
        if timestep is not None:
            self.model = copy.copy(self.model)
            self.model.opt.timestep = timestep
        self._spec = self.mujoco.mjtState.mjSTATE_FULLPHYSICS
        self._pools: dict[int, _Pool] = {}

    def __reduce__(self) -> tuple[type[Simulator], tuple[str, int, Reading | None, float | None]]:
        # Threads and their data cannot be copied.
        return Simulator, (self.xml, self.frame_skip, self.reading, self.timestep)

    @property
    def dt(self) -> float:
        """Seconds between two actions."""
        return float(self.model.opt.timestep) * self.frame_skip

    def positions(self, physics: Physics) -> Tensor:
        """Positions of the joints: float64 ``(B, nq)``."""
        return physics.state[:, 1 : 1 + self.model.nq]

    def velocities(self, physics: Physics) -> Tensor:
        """Velocities of the joints: float64 ``(B, nv)``."""
        return physics.state[:, 1 + self.model.nq :]

    def start(self, positions: Tensor, velocities: Tensor) -> Physics:
        """Return rows at time 0 with these positions and velocities, ``(B, nq)`` and ``(B, nv)``."""
        state = torch.cat([torch.zeros_like(positions[:, :1]), positions, velocities], dim=1).double()
        if self.reading is None:
            return Physics(state, state.new_zeros(len(state), 0))
        _refuse_recording(state)
        return Physics(state, *on_host(self._looks, state))

    def advance(
        self, physics: Physics, control: Tensor, models: ModelsOf | None = None, numbers: Tensor | None = None
    ) -> Physics:
        """Return the rows after `frame_skip` simulation steps under the `control` ``(B, nu)``.

        Rows with separate models use those that ``models`` makes from the `numbers` ``(B, D)``.
        """
        _refuse_recording(control)
        given = () if numbers is None else (numbers,)
        return Physics(*on_host(functools.partial(self._stepped, models), physics.state, control, *given))

    def changed(self, factors: dict[str, np.ndarray]) -> Model:
        """Return a copy of the model with scaled fields, such as ``body_mass``, and updated derived values."""
        model = copy.copy(self.model)
        for field, factor in factors.items():
            getattr(model, field)[:] *= factor
        self.mujoco.mj_setConst(model, self._pool(1).data[0])
        return model

    def _looks(self, state: np.ndarray) -> tuple[np.ndarray]:
        """Read each row of a start."""
        data = self._pool(1).data[0]
        with quiet(self.mujoco):
            return (np.stack([self._look(data, row) for row in state]),)

    def _stepped(
        self, models_of: ModelsOf | None, state: np.ndarray, control: np.ndarray, numbers: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Step all rows; return their states and readings."""
        ctrl = np.ascontiguousarray(control, np.float64)
        models = [self.model] * len(state) if models_of is None else models_of(numbers)
        with quiet(self.mujoco):
            if self.reading is None:
                return self._rollout(models, state, ctrl), np.empty((len(state), 0))
            return self._loop(models, state, ctrl, self.reading)

    def _rollout(self, models: Sequence[Model], state: np.ndarray, ctrl: np.ndarray) -> np.ndarray:
        """Step with MuJoCo's thread pool, if no further values are read."""
        rows, steps = len(state), self.frame_skip
        threads = self._threads(rows)
        pool = self._pool(threads)
        states, controls = np.empty((rows, steps, state.shape[1])), np.empty((rows, steps, ctrl.shape[1]))
        controls[:] = ctrl[:, None]
        pool.rollout.rollout(
            models,
            pool.data,
            np.ascontiguousarray(state),
            controls,
            nstep=steps,
            initial_warmstart=np.zeros((rows, self.model.nv)),
            state=states,
            sensordata=np.empty((rows, steps, self.model.nsensordata)),
            skip_checks=True,
        )
        return states[:, -1].copy()

    def _loop(
        self, models: Sequence[Model], state: np.ndarray, ctrl: np.ndarray, reading: Reading
    ) -> tuple[np.ndarray, np.ndarray]:
        """Step row by row, as Gymnasium does: MuJoCo's pool gives no contact forces. Steps release the GIL."""
        mujoco, spec, after = self.mujoco, self._spec, np.empty_like(state)
        threads = self._threads(len(state))

        def part(data: Data, rows: range) -> list[np.ndarray]:
            read = []
            for row in rows:
                mujoco.mj_setState(models[row], data, state[row], spec)
                data.qacc_warmstart[:] = 0.0
                data.ctrl[:] = ctrl[row]
                mujoco.mj_step(models[row], data, self.frame_skip)
                mujoco.mj_rnePostConstraint(models[row], data)
                mujoco.mj_getState(models[row], data, after[row], spec)
                read.append(reading(models[row], data))
            return read

        pool = self._pool(threads)
        bounds = [len(state) * number // threads for number in range(threads + 1)]
        shares = [range(low, high) for low, high in itertools.pairwise(bounds)]
        map_ = map if pool.executor is None else pool.executor.map
        return after, np.stack([row for share in map_(part, pool.data, shares) for row in share])

    def _look(self, data: Data, state: np.ndarray) -> np.ndarray:
        """Read the values before the first step."""
        assert self.reading is not None
        self.mujoco.mj_setState(self.model, data, state, self._spec)
        data.qacc_warmstart[:], data.ctrl[:] = 0.0, 0.0
        self.mujoco.mj_forward(self.model, data)
        self.mujoco.mj_rnePostConstraint(self.model, data)
        return self.reading(self.model, data)

    def _threads(self, rows: int) -> int:
        return max(1, min(torch.get_num_threads(), rows // ROWS_PER_THREAD))

    def _pool(self, threads: int) -> _Pool:
        """The threads of a number, which are started once."""
        if threads not in self._pools:
            data = [self.mujoco.MjData(self.model) for _ in range(threads)]
            rollout = self.mujoco.rollout.Rollout(nthread=threads if threads > 1 else 0)
            self._pools[threads] = _Pool(data, rollout, ThreadPoolExecutor(threads) if threads > 1 else None)
        return self._pools[threads]


class _Pool(NamedTuple):
    data: list[Data]  # MuJoCo's scratch space, one per thread
    rollout: Any  # mujoco.rollout.Rollout
    executor: ThreadPoolExecutor | None


_LOUD = threading.Lock()


_inside = 0  # number of active calls that need MuJoCo to be quiet


_before: Any = None  # MuJoCo's warning handler before the first of them


@contextlib.contextmanager
def quiet(mujoco: Any, modern: bool = True) -> Iterator[None]:
    """Keep MuJoCo from printing warnings and from writing MUJOCO_LOG.TXT into the working directory.

    Both are process-wide settings, which are restored afterwards, since the user may run other simulations.
    `modern`: use the configuration of MuJoCo 4.0 and later, if it exists.
    """
    global _inside, _before
    with _LOUD:
        if not _inside:
            _before = _silence(mujoco, modern and hasattr(mujoco, "MjLogConfig"))
        _inside += 1
    try:
        yield
    finally:
        with _LOUD:
            _inside -= 1
            if not _inside:
                _before()


def _silence(mujoco: Any, modern: bool) -> Callable[[], None]:
    """Make MuJoCo silent; return a function that undoes it."""
    if not modern:
        handler = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(_ignore)
        return functools.partial(mujoco.set_mju_user_warning, handler)
    before, silent = mujoco.MjLogConfig.get(), mujoco.MjLogConfig.get()
    silent.logto_console = silent.logto_file = False
    silent.set()
    undo: Callable[[], None] = before.set
    return undo


def _ignore(message: str) -> None:
    """Ignore a warning."""


def _mujoco() -> Any:
    try:
        import mujoco
        import mujoco.rollout
    except ModuleNotFoundError as error:
        raise ValueError("MuJoCo is needed and not installed: pip install 'metarl[mujoco]'.") from error
    return mujoco


@functools.cache
def load(xml: str) -> Model:
    """Load Gymnasium's model with this file name. It is shared: change a copy (`copy.copy`)."""
    mujoco = _mujoco()
    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / xml
    text = path.read_text(encoding="utf-8")
    # Textures are nine tenths of a model, and are not needed.
    text = re.sub(r'<texture[^>]*>|\stexture="[^"]*"', "", text)
    # MuJoCo 4 warns of `settotalmass` at every load; what it advises instead gives the same model bit for bit.
    total = re.search(r'\ssettotalmass="([\d.]+)"', text)
    if total is None:
        return mujoco.MjModel.from_xml_string(text)
    model = mujoco.MjModel.from_xml_string(text.replace(total[0], ""))
    mujoco.mj_setTotalmass(model, float(total[1]))
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def _refuse_recording(tensor: Tensor) -> None:
    if not tensor.is_cpu and torch.cuda.is_current_stream_capturing():
        # Raise before the copy: a copy that synchronises would break more than the recording.
        raise RuntimeError("MuJoCo steps on the CPU, which cannot be recorded")
