"""How the process backend treats workers, shown with some that have no process."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
import structlog
from autoscaler_doubles import Clock, Drains, PlayedWorker, PlayedWorkers, scaled_object

from autoscaler.backends.local_worker import LocalWorker
from autoscaler.backends.process import EMPTY_SECONDS, SEARCH_SECONDS, Limits, ProcessBackend
from autoscaler.backends.registry import Registered
from autoscaler.backends.victims import Candidate, victims
from autoscaler.fleet import BackendError, Fleet, Misconfigured
from autoscaler.gauges import Gauges
from dspy_jobs.pid_files import ProcessMark

LIMITS = Limits(drain_seconds=300, stop_seconds=30, give_back_seconds=5, startup_seconds=20, memory_mib=200, starting=2)


class Scene:
    """A backend and its workers."""

    def __init__(self) -> None:
        self.clock, self.workers, self.drains, self.available_mib = Clock(), PlayedWorkers(), Drains(), 10_000.0
        self.backend = ProcessBackend(
            self.workers, self.workers, LIMITS, self.drains, lambda: self.available_mib, self.clock
        )

    def tend(self, seconds: float = 0.25) -> None:
        """Let time pass and the backend do what is due."""
        self.clock.pass_by(seconds)
        self.backend.tend()

    def bring_up(self, replicas: int, running: int = 0) -> list[PlayedWorker]:
        """So many workers that are ready, each with so many jobs."""
        self.backend.scale(replicas)
        while len(self.workers.started) < replicas:
            self.workers.come_up(running)
            self.tend()
        self.workers.come_up(running)
        self.tend()
        return self.workers.started

    def started(self) -> list[str]:
        """Names of all ever started."""
        return [worker.name for worker in self.workers.started]


@pytest.fixture
def scene() -> Scene:
    """No worker yet."""
    return Scene()


def test_no_more_start_at_once_than_there_are_cores(scene: Scene) -> None:
    """Further ones follow as the first ones come up."""
    scene.backend.scale(3)
    scene.tend()
    assert scene.started() == ["worker-1", "worker-2"]
    assert scene.backend.fleet() == Fleet(3, 0, 0)
    scene.workers.come_up()
    scene.tend()
    assert scene.started() == ["worker-1", "worker-2", "worker-3"]
    assert scene.backend.fleet() == Fleet(3, 2, 0)


def test_victims_are_chosen_by_what_their_end_costs() -> None:
    """First those not ready, then idle ones, then those with the fewest jobs, then the newest."""
    candidates = [
        Candidate("busy", True, 9, 1),
        Candidate("idle-old", True, 0, 2),
        Candidate("idle-new", True, 0, 3),
        Candidate("light", True, 1, 0),
        Candidate("starting", False, 0, 4),
    ]
    assert victims(candidates, 5) == ["starting", "idle-new", "idle-old", "light", "busy"]
    assert victims(candidates, 0) == []


def test_a_victim_is_asked_to_stop_and_is_no_capacity(scene: Scene) -> None:
    """The idlest goes; a bigger fleet later gets a new worker, never the draining one back."""
    one, two = scene.bring_up(2)
    scene.workers.registered = {one.mark.pid: Registered(0), two.mark.pid: Registered(5)}
    scene.backend.scale(1)
    assert (one.signals, two.signals) == ([signal.SIGTERM], [])
    assert scene.backend.fleet() == Fleet(1, 1, 1)
    scene.backend.scale(2)
    assert scene.started() == ["worker-1", "worker-2", "worker-3"]
    one.end(0)
    scene.tend(2)
    assert scene.drains.seconds == [2]


def test_a_drain_has_a_bound(scene: Scene) -> None:
    """A worker that does not end is killed once, after its own bound and the grace."""
    [worker] = scene.bring_up(1, running=3)
    scene.backend.scale(0)
    scene.tend(LIMITS.drain_seconds)
    assert worker.signals == [signal.SIGTERM]
    scene.tend(0.1)
    scene.tend(10)
    assert worker.signals == [signal.SIGTERM, signal.SIGKILL]
    assert scene.drains.killed == 1


def test_a_dead_worker_is_started_again_ever_more_slowly(scene: Scene) -> None:
    """The pause doubles with each death of the same replica; one that lived long begins anew."""
    scene.backend.scale(1)
    for pause in (1, 2, 4, 8):
        scene.workers.started[-1].end(1)
        scene.tend(0)
        number = len(scene.workers.started)
        scene.tend(pause - 0.1)
        assert len(scene.workers.started) == number
        scene.tend(0.2)
        assert len(scene.workers.started) == number + 1
    scene.workers.come_up()
    scene.tend(100)
    scene.workers.started[-1].end(1)
    scene.tend(0)
    scene.tend(1)
    assert len(scene.workers.started) == 6
    assert set(scene.started()) == {"worker-1"}


def test_the_pause_ends_somewhere(scene: Scene) -> None:
    """After many deaths it is five minutes, not hours."""
    scene.backend.scale(1)
    for _ in range(20):
        scene.workers.started[-1].end(1)
        scene.tend(0)
        scene.tend(301)
    assert len(scene.workers.started) == 21


def test_a_machine_without_room_for_a_process_is_asked_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that fails is told and tried again after a pause, not an end of the autoscaler."""

    def refuse(name: str, now: float) -> LocalWorker:
        raise OSError("out of processes")

    with monkeypatch.context() as patch:
        patch.setattr(scene.workers, "start", refuse)
        with pytest.raises(BackendError, match="worker-1"):
            scene.backend.scale(1)
    scene.tend(0.5)
    assert scene.started() == []
    scene.tend(0.6)
    assert scene.started() == ["worker-1"]


def test_others_do_not_wait_for_one_that_crashes(scene: Scene) -> None:
    """Each replica has a pause of its own."""
    scene.bring_up(1)
    scene.backend.scale(2)
    scene.workers.started[1].end(1)
    scene.tend(0)
    scene.backend.scale(3)
    assert scene.started()[-1] == "worker-3"


def test_a_misconfigured_worker_is_not_repeated(scene: Scene) -> None:
    """Exit code 2 ends the autoscaler with the worker's words."""
    scene.backend.scale(1)
    scene.workers.started[0].end(2)
    with pytest.raises(Misconfigured, match="no such factory"):
        scene.tend()


@pytest.mark.parametrize(("was_ready", "words"), [(True, "Killed"), (False, "")])
def test_a_program_may_end_its_worker_with_any_code(scene: Scene, was_ready: bool, words: str) -> None:
    """A worker that took jobs, or said nothing of a configuration, has died like any other and is replaced."""
    scene.backend.scale(1)
    if was_ready:
        scene.bring_up(1)
    scene.workers.last_words = words
    scene.workers.started[0].end(2)
    scene.tend()
    scene.tend(1)
    assert scene.started() == ["worker-1", "worker-1"]


def test_a_wrong_configuration_leaves_those_that_work(scene: Scene) -> None:
    """An edited file keeps new workers from starting, tried again ever more seldom, one at a time; the others go on."""
    scene.bring_up(1)
    scene.backend.scale(4)
    with structlog.testing.capture_logs() as events:
        for pause in (0, 2, 4, 8):  # two were on their way when it began
            scene.tend(pause)
            for worker in scene.workers.started[1:]:
                worker.end(2)
            scene.tend(0)
    assert scene.started() == ["worker-1", "worker-2", "worker-3", *["worker-2"] * 3]
    refusals = [event for event in events if event["event"] == "worker_misconfigured"]
    assert [event["restart_in_seconds"] for event in refusals] == [1, 2, 4, 8, 16]
    assert {event["reason"] for event in refusals} == {"no such factory"}
    assert scene.workers.started[0].signals == []
    assert scene.backend.fleet() == Fleet(4, 1)


def test_a_mended_configuration_is_seen_by_the_next_worker(scene: Scene) -> None:
    """As soon as one comes up, the others follow as if nothing had been."""
    scene.bring_up(1)
    scene.backend.scale(4)
    scene.workers.started[1].end(2)
    scene.workers.started[2].end(2)
    scene.tend()
    scene.tend(2)
    assert len(scene.started()) == 4
    scene.workers.come_up()
    scene.tend()
    assert len(scene.started()) == 6


def test_the_last_that_works_was_the_last_reason_to_stay(scene: Scene) -> None:
    """Once no worker is left with a good configuration, a wrong one is told."""
    [worker] = scene.bring_up(1)
    scene.backend.scale(2)
    worker.end(0)
    scene.workers.started[1].end(2)
    with pytest.raises(Misconfigured):
        scene.tend()


def test_a_worker_that_never_comes_up_is_killed(scene: Scene) -> None:
    """One that has not said that it lives within its time counts as dead."""
    scene.backend.scale(1)
    scene.tend(LIMITS.startup_seconds + 0.1)
    assert scene.workers.started[0].signals == [signal.SIGKILL]


def test_a_worker_is_not_killed_for_a_redis_that_lost_its_lease(scene: Scene) -> None:
    """Who came up once may be forgotten by Redis without harm, and who cannot be asked for is not judged."""
    [worker] = scene.bring_up(1)
    scene.workers.registered = {}
    scene.tend(1000)
    scene.workers.registered = None
    scene.tend(1000)
    assert worker.signals == []


def test_memory_is_kept_for_those_that_still_start(scene: Scene) -> None:
    """No worker is started without room for what it and the starting ones may come to need; it is logged once."""
    scene.available_mib = 399
    with structlog.testing.capture_logs() as events:
        scene.backend.scale(2)
        for _ in range(3):
            scene.tend()
    assert scene.started() == ["worker-1"]
    assert [event["event"] for event in events].count("memory_short") == 1
    scene.available_mib = 400
    scene.tend()
    assert scene.started() == ["worker-1", "worker-2"]


def test_workers_of_an_earlier_autoscaler_are_adopted(scene: Scene) -> None:
    """Their number is the size asked for; new ones get other names; draining ones are no capacity."""
    left = [PlayedWorker(f"worker-{n}", ProcessMark(n, 0.0), 0.0) for n in (1, 2, 3)]
    scene.workers.found = list(left)
    scene.workers.registered = {1: Registered(4), 2: Registered(0), 3: Registered(1, is_draining=True)}
    scene.backend.take_over()
    assert scene.backend.fleet() == Fleet(2, 2, 1)
    scene.backend.scale(3)
    assert scene.started() == ["worker-4"]


def test_taking_over_again_knows_ones_own_children(scene: Scene) -> None:
    """After a lost and regained lease nothing is started twice, and exit codes are still known."""
    scene.backend.scale(1)
    scene.backend.stand_by("here")
    scene.backend.take_over()
    scene.workers.started[0].end(2)
    with pytest.raises(Misconfigured):
        scene.tend()


@pytest.mark.parametrize("leader", [None, "here", ""])
def test_who_only_stands_by_leaves_the_workers(scene: Scene, leader: str | None) -> None:
    """While Redis is away they go on; a leader beside this one has them; a dry run is no reason to end anything."""
    [worker] = scene.bring_up(1, running=1)
    for _ in range(3):
        scene.backend.stand_by(leader)
        scene.clock.pass_by(SEARCH_SECONDS)
    assert worker.signals == []


def test_workers_that_the_leader_cannot_see_go(scene: Scene) -> None:
    """Another machine's autoscaler leads: workers here would be beyond its bounds. Their jobs end first."""
    workers = scene.bring_up(2, running=1)
    scene.backend.stand_by("there")
    scene.backend.stand_by("there")
    assert [worker.signals for worker in workers] == [[signal.SIGTERM]] * 2
    workers[0].end(0)
    scene.clock.pass_by(7)
    scene.backend.stand_by("there")
    assert scene.drains.seconds == [7]
    scene.backend.take_over()
    assert scene.backend.fleet() == Fleet(0, 0, 1)


def test_workers_of_a_predecessor_that_died_go_as_well(scene: Scene) -> None:
    """They are looked for after a while, in which another autoscaler here that led before has begun to drain them."""
    left = [PlayedWorker(f"worker-{n}", ProcessMark(n, 0.0), 0.0) for n in (1, 2)]
    scene.workers.found = list(left)
    scene.workers.registered = {1: Registered(4, is_draining=True), 2: Registered(4)}
    scene.backend.stand_by("there")
    scene.clock.pass_by(SEARCH_SECONDS - 0.1)
    scene.backend.stand_by("there")
    assert [worker.signals for worker in left] == [[], []]
    scene.clock.pass_by(0.1)
    scene.backend.stand_by("there")
    assert [worker.signals for worker in left] == [[], [signal.SIGTERM]]


def test_the_end_leaves_what_another_has_taken_over(scene: Scene) -> None:
    """Workers that a leader beside this one adopted are not this one's to end."""
    [worker] = scene.bring_up(1)
    scene.backend.stand_by("here")
    scene.backend.stand_by(None)
    assert scene.backend.stop()
    assert worker.signals == []


def test_the_end_takes_workers_along_while_nobody_leads(scene: Scene) -> None:
    """Redis is away, and so is whoever else could end them."""
    [worker] = scene.bring_up(1)
    scene.workers.registered = None
    scene.backend.stand_by(None)
    assert not scene.backend.stop()
    assert worker.signals == [signal.SIGTERM]


def test_a_worker_that_somebody_else_drains_is_replaced(scene: Scene) -> None:
    """A person's SIGTERM makes room for another worker at once, and is no death."""
    [worker] = scene.bring_up(1)
    scene.workers.registered = {worker.mark.pid: Registered(2, is_draining=True)}
    scene.tend()
    assert scene.started() == ["worker-1", "worker-2"]
    assert worker.signals == []


def test_the_end_drains_everything(scene: Scene) -> None:
    """All are asked once; a second request is passed on; it is over when the last has ended."""
    workers = scene.bring_up(2, running=1)
    assert not scene.backend.stop()
    assert not scene.backend.stop()
    assert {tuple(worker.signals) for worker in workers} == {(signal.SIGTERM,)}
    scene.backend.hurry()
    assert {tuple(worker.signals) for worker in workers} == {(signal.SIGTERM,) * 2}
    for worker in workers:
        worker.end(0)
    assert scene.backend.stop()


def test_the_end_is_bounded(scene: Scene) -> None:
    """Whoever waits for the autoscaler's end is not to wait as long as for a job: all is given back, then killed."""
    [worker] = scene.bring_up(1, running=1)
    scene.backend.stop()
    scene.clock.pass_by(LIMITS.stop_seconds - 0.1)
    scene.backend.stop()
    assert worker.signals == [signal.SIGTERM]
    scene.clock.pass_by(0.1)
    scene.backend.stop()
    scene.backend.hurry()
    assert worker.signals == [signal.SIGTERM] * 2
    scene.clock.pass_by(LIMITS.give_back_seconds + 0.1)
    scene.backend.stop()
    assert worker.signals == [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL]


def test_a_worker_that_was_draining_before_the_end_is_hurried_with_the_others(scene: Scene) -> None:
    """It was asked to go long ago, and still has its job."""
    [worker] = scene.bring_up(1, running=1)
    scene.backend.scale(0)
    scene.tend(LIMITS.stop_seconds + 1)
    scene.backend.stop()
    assert worker.signals == [signal.SIGTERM]
    scene.clock.pass_by(LIMITS.stop_seconds)
    scene.backend.stop()
    assert worker.signals == [signal.SIGTERM] * 2


def test_an_empty_worker_does_not_drain_for_as_long_as_a_job(scene: Scene) -> None:
    """Nothing runs there any more, but a program that never returns keeps the process: it is told again."""
    [worker] = scene.bring_up(1, running=1)
    scene.backend.scale(0)
    pid = worker.mark.pid
    for running, seconds, signals in ((1, 100, 1), (0, 0, 1), (0, EMPTY_SECONDS, 1), (0, 0.1, 2)):
        scene.workers.registered = {pid: Registered(running, is_draining=True)}
        scene.tend(seconds)
        assert len(worker.signals) == signals


def test_deaths_and_what_keeps_workers_from_starting_are_told(scene: Scene) -> None:
    """Each death, and each reason once as it begins to hold; that others start first is none."""
    scene.backend.scale(4)
    for worker in scene.workers.started:
        worker.end(1)
    for _ in range(3):
        scene.tend()
    assert (scene.drains.deaths, scene.drains.blocked) == (2, ["crash_loop"])
    scene.workers.come_up()
    scene.available_mib = 0
    for _ in range(3):
        scene.tend(2)
    assert scene.drains.blocked == ["crash_loop", "memory"]
    scene.available_mib = 10_000
    scene.tend()
    scene.workers.come_up()
    scene.available_mib = 0
    scene.backend.scale(9)
    assert scene.drains.blocked == ["crash_loop", "memory", "memory"]


def test_workers_that_are_refused_are_told(scene: Scene) -> None:
    """They died, and no further one is started for a while."""
    scene.bring_up(1)
    scene.backend.scale(2)
    scene.workers.started[-1].end(2)
    for _ in range(3):
        scene.tend()
    assert (scene.drains.deaths, scene.drains.blocked) == (1, ["configuration"])


def test_prometheus_is_told_of_deaths_and_blocked_starts() -> None:
    """Each reason has its series from the beginning, or the first time would not be seen as an increase."""
    gauges = Gauges(scaled_object())

    def value(name: str, **labels: str) -> float | None:
        return gauges.registry.get_sample_value(f"dspy_autoscaler_{name}", labels)

    assert value("starts_blocked_total", reason="memory") == value("starts_blocked_total", reason="crash_loop") == 0
    gauges.worker_died()
    gauges.start_blocked("memory")
    assert (value("worker_deaths_total"), value("starts_blocked_total", reason="memory")) == (1, 1)


@pytest.mark.parametrize(
    ("was_ready", "shows_content", "is_told"), [(False, False, True), (True, False, False), (True, True, True)]
)
def test_last_lines_of_a_worker_that_had_jobs_are_content(was_ready: bool, shows_content: bool, is_told: bool) -> None:
    """Native code may have written there what a caller gave; of one that never came up they say why it did not."""
    scene = Scene()
    scene.backend = ProcessBackend(
        scene.workers,
        scene.workers,
        replace(LIMITS, shows_content=shows_content),
        scene.drains,
        lambda: 1e4,
        scene.clock,
    )
    scene.workers.last_words = "native write SECRETINPUT"
    scene.backend.scale(1)
    scene.tend()
    if was_ready:
        scene.workers.come_up()
        scene.tend()
    with structlog.testing.capture_logs() as events:
        scene.workers.started[0].end(-9)
        scene.tend()
    (died,) = [event for event in events if event["event"] == "worker_died"]
    assert ("last_lines" in died) == is_told
