"""One story each of jobs that are after the same answer: one runs, the others follow it and get what it made."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from dspy_jobs import chores, names
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, gates, operations, recovery
from dspy_jobs.store.books import Bill
from dspy_jobs.store.flights import Answered, Flight, send_waiting, settle_answered
from dspy_jobs.store.operations import EXPIRED
from dspy_jobs.store.records import Claim, NotClaimed
from dspy_jobs.views import job_view
from tests.integration.store_scene import LIFETIMES, QUEUE, STEP, Scene

KEY = "a" * 40
#: Milliseconds after which a worker without a sign of life is lost; a job still starts in time after that.
LOST = 20_000


class Flights(Scene):
    """A scene whose jobs share answers."""

    def start(self, worker: str, job_id: str, flight: Flight | None = None, nonce: str = "") -> Claim | NotClaimed:
        """Claim a job that was taken, to make or get the answer of `KEY` unless told otherwise."""
        flight = flight or Flight(KEY, may_follow=True, may_lead=True)
        return self.store.run(
            operations.claim_job(worker, job_id, nonce or self.new("nonce"), now_ms=self.now, flight=flight)
        )

    def lead(self, worker: str = "w1", job_id: str = "", **fields: Any) -> Claim:
        """Start a job that others can follow."""
        job_id = job_id or self.submit(**fields)
        self.take(worker, job_id)
        claim = self.start(worker, job_id)
        assert isinstance(claim, Claim), claim
        return claim

    def follow(self, leader: str, *ids: str) -> list[str]:
        """Have jobs follow another, two of the test's own unless some are given."""
        followers = list(ids) or [self.submit(), self.submit()]
        for job_id in followers:
            assert self.take("w2", job_id) == [job_id]
            assert self.start("w2", job_id) == NotClaimed("following", leader=leader)
        return followers

    def follow_many(self, count: int) -> list[str]:
        """As many followers, put there without a claim each."""
        ids = [self.submit() for _ in range(count)]
        with self.store.redis.pipeline() as pipe:
            for job_id in ids:
                pipe.hset(names.job(job_id), "follows", KEY).rpush(names.followers(KEY), job_id)
            for step in (0, 3, 6):
                pipe.delete(names.queue_waiting(QUEUE, step), names.queue_list(QUEUE, step))
            pipe.execute()
        return ids

    def leaders(self, *ids: str) -> dict[str, str]:
        """Take jobs. Answers whose answer each is to have, '' for none."""
        return {taken.id: taken.leader for taken in self.store.run(operations.take_jobs("w2", ids, self.now))}

    def settle(self, *ids: str, worker: str = "w2", saved: int | None = 7) -> list[str]:
        """End taken jobs with an answer made before."""
        answered = [
            Answered(job_id, orjson.dumps({"status": "SUCCESS", "task_id": job_id}), "coalesced", saved)
            for job_id in ids
        ]
        return self.store.run(settle_answered(worker, answered, EXPIRED, self.now))

    def land(self) -> None:
        """Let the time pass in which a leader that succeeded is named."""
        self.store.redis.delete(names.flight(KEY))

    @property
    def leader(self) -> str | None:
        """Who is named as the leader."""
        raw = self.store.redis.get(names.flight(KEY))
        return raw.decode() if isinstance(raw, bytes) else None

    @property
    def following(self) -> list[str]:
        """Who stands in the list of followers."""
        return [job_id.decode() for job_id in self.store.redis.lrange(names.followers(KEY), 0, -1)]


@pytest.fixture
def scene(store: SyncStore) -> Flights:
    """A scene at an empty store."""
    return Flights(store)


# ---- following -------------------------------------------------------------------------------------------------


def test_a_second_equal_job_follows_the_first(scene: Flights) -> None:
    """It stays queued without a message or a holder, and shows that it waits for one job."""
    leader = scene.lead()
    follower = scene.follow(leader.id)[0]
    assert (scene.waiting(), scene.held("w2"), scene.leader) == ([], set(), leader.id)
    job = scene.job(follower)
    view = job_view(job)
    assert (view["status"], view["wait_reason"], view["behind"]) == ("queued", "behind_n_jobs", 1)
    assert "owner" not in job.fields
    assert [(q.queued, q.running) for q in scene.store.run(operations.read_queues([QUEUE]))] == [(2, 1)]


def test_a_message_that_comes_again_does_not_take_a_follower(scene: Flights) -> None:
    """Whoever received it before or receives it now leaves the follower where it is."""
    leader = scene.lead()
    follower = scene.follow(leader.id)[0]
    assert [scene.take(worker, follower) for worker in ("w1", "w2")] == [[], []]
    assert scene.start("w2", follower) == NotClaimed("gone")


def test_a_success_is_shared(scene: Flights) -> None:
    """Followers are sent again bearing the leader, and end with its answer without having run."""
    leader = scene.lead()
    followers = scene.follow(leader.id)
    assert scene.finish("w1", leader)
    assert scene.waiting() == followers
    assert scene.leaders(*followers) == dict.fromkeys(followers, leader.id)
    assert scene.settle(*followers) == ["finished"] * 2
    jobs = [scene.job(job_id) for job_id in followers]
    assert [(job.status, job.fields["attempt"]) for job in jobs] == [("succeeded", "1")] * 2
    assert not {"follows", "answer", "owner"} & jobs[0].fields.keys()
    assert scene.following == []


def test_what_was_shared_is_counted(scene: Flights) -> None:
    """On the batch: who shared, what it saved, and for how many that is not known."""
    leader = scene.lead()
    batch_id, ids = scene.batch(3)
    scene.follow(leader.id, *ids)
    scene.finish("w1", leader)
    scene.leaders(*ids)
    assert scene.settle(*ids[:2]) + scene.settle(ids[2], saved=None) == ["finished"] * 3
    fields = scene.read_batch(batch_id).fields
    counted = {name: int(fields[name]) for name in ("succeeded", "coalesced", "cached", "saved", "unsaved")}
    assert counted == {"succeeded": 3, "coalesced": 3, "cached": 3, "saved": 14, "unsaved": 1}
    assert (fields["status"], int(fields.get("calls", 0))) == ("ended", 0)


def test_settling_twice_is_settling_once(scene: Flights) -> None:
    """Repeated, or by somebody who does not hold the job, it is stale and changes nothing."""
    leader = scene.lead()
    follower, other = scene.follow(leader.id)
    scene.finish("w1", leader)
    scene.leaders(follower, other)
    assert scene.settle(follower) == ["finished"]
    before = {key: scene.store.redis.dump(key) for key in scene.store.redis.scan_iter()}
    assert scene.settle(follower) + scene.settle(other, worker="w1") == ["stale"] * 2
    assert {key: scene.store.redis.dump(key) for key in scene.store.redis.scan_iter()} == before


def test_a_job_named_twice_is_settled_once(scene: Flights) -> None:
    """Within one step, too."""
    job_id = scene.submit()
    scene.take("w2", job_id)
    assert scene.settle(job_id, job_id) == ["finished", "stale"]
    assert [(q.queued, q.running) for q in scene.store.run(operations.read_queues([QUEUE]))] == [(0, 0)]


def test_a_paused_queue_gives_no_answers(scene: Flights) -> None:
    """The job stays with its worker, which hands it back."""
    leader = scene.lead()
    followers = scene.follow(leader.id)
    scene.finish("w1", leader)
    scene.leaders(*followers)
    scene.store.run(gates.close_gate(QUEUE, WaitReason.PAUSED))
    assert scene.settle(*followers) == ["paused"] * 2
    assert scene.held("w2") == set(followers)
    assert scene.store.run(operations.hand_back("w2", followers, 2, scene.now)) == 2
    assert scene.leaders(*followers) == dict.fromkeys(followers, leader.id), "they still know whose answer is theirs"


def test_answers_come_through_a_closed_circuit(scene: Flights) -> None:
    """Only an operator's pause holds them back: they call nobody."""
    job_id = scene.submit()
    scene.take("w2", job_id)
    scene.store.run(gates.close_gate(QUEUE, WaitReason.CIRCUIT_OPEN))
    assert scene.settle(job_id) == ["finished"]


# ---- how a leader ends otherwise -------------------------------------------------------------------------------


def _fails(scene: Flights, leader: Claim) -> None:
    assert scene.finish("w1", leader, "failed")


def _is_canceled(scene: Flights, leader: Claim) -> None:
    scene.store.run(operations.cancel_job(leader.id, scene.now))
    assert scene.finish("w1", leader, "canceled")


def _retries_later(scene: Flights, leader: Claim) -> None:
    later = operations.retry_later("w1", leader, b"{}", 9, "retry_scheduled", Bill(), now_ms=scene.now)
    assert scene.store.run(later) == "delayed"


def _is_canceled_instead_of_retried(scene: Flights, leader: Claim) -> None:
    scene.store.run(operations.cancel_job(leader.id, scene.now))
    later = operations.retry_later("w1", leader, b"{}", 9, "retry_scheduled", Bill(), now_ms=scene.now)
    assert scene.store.run(later) == "canceled"


def _falls_back(scene: Flights, leader: Claim) -> None:
    later = operations.retry_later("w1", leader, b"{}", 0, "retry_scheduled", Bill(), "none", "slow", now_ms=scene.now)
    assert scene.store.run(later) == "delayed"


def _is_lost_too_often(scene: Flights, leader: Claim) -> None:
    scene.now += LOST
    assert scene.store.run(operations.recover_lost(1, now_ms=scene.now)) == (0, 1)


def _is_lost_then_canceled(scene: Flights, leader: Claim) -> None:
    scene.now += LOST
    assert scene.store.run(operations.recover_lost(3, now_ms=scene.now)) == (1, 0)
    assert scene.store.run(operations.cancel_job(leader.id, scene.now))[0] == "canceled"


def _is_lost_then_diverted(scene: Flights, leader: Claim) -> None:
    scene.now += LOST
    assert scene.store.run(operations.recover_lost(3, now_ms=scene.now)) == (1, 0)
    assert scene.take("w1", leader.id)
    assert scene.store.run(gates.divert_job("w1", leader.id, "slow", now_ms=scene.now)) == 1


def _is_lost_then_after_another_answer(scene: Flights, leader: Claim) -> None:
    scene.now += LOST
    assert scene.store.run(operations.recover_lost(3, now_ms=scene.now)) == (1, 0)
    assert scene.take("w1", leader.id)
    assert isinstance(scene.start("w1", leader.id, Flight("b" * 40, True, True)), Claim)
    assert scene.store.redis.get(names.flight("b" * 40)) == leader.id.encode()


def _is_surrendered_with_its_cancellation(scene: Flights, leader: Claim) -> None:
    scene.store.run(operations.cancel_job(leader.id, scene.now))
    assert scene.store.run(recovery.surrender_jobs("w1", now_ms=scene.now)) == 1


@pytest.mark.parametrize(
    "end",
    [
        _fails, _is_canceled, _retries_later, _is_canceled_instead_of_retried, _falls_back, _is_lost_too_often,
        _is_lost_then_canceled, _is_lost_then_diverted, _is_lost_then_after_another_answer,
        _is_surrendered_with_its_cancellation,
    ],
)  # fmt: skip
def test_without_an_answer_the_next_one_leads(scene: Flights, end: Any) -> None:
    """Followers are sent with nobody's answer; the first to start leads, the other follows it and gets its answer."""
    leader = scene.lead()
    first, second = scene.follow(leader.id)
    end(scene, leader)
    assert set(scene.waiting()) >= {first, second}
    assert scene.leaders(first, second) == {first: "", second: ""}
    claim = scene.start("w2", first)
    assert isinstance(claim, Claim)
    assert scene.start("w2", second) == NotClaimed("following", leader=first)
    assert scene.finish("w2", claim)
    assert scene.leaders(second) == {second: first}
    assert scene.settle(second) == ["finished"]


@pytest.mark.parametrize("lose", ["lose", "surrender"])
def test_a_lost_worker_does_not_end_a_flight(scene: Flights, lose: str) -> None:
    """The job goes on leading: its followers wait until another worker has run it."""
    leader = scene.lead()
    followers = scene.follow(leader.id)
    if lose == "surrender":
        assert scene.store.run(recovery.surrender_jobs("w1", now_ms=scene.now)) == 1
    else:
        scene.now += LOST
        assert scene.store.run(operations.recover_lost(3, now_ms=scene.now)) == (1, 0)
    assert (scene.waiting(), scene.leader, scene.following) == ([leader.id], leader.id, followers)
    late = scene.submit()
    scene.follow(leader.id, late)
    again = scene.lead("w3", leader.id)
    assert again.attempt == 2
    assert scene.finish("w1", leader) is False
    assert scene.following == [*followers, late]
    assert scene.finish("w3", again)
    assert scene.leaders(*followers, late) == dict.fromkeys([*followers, late], leader.id)


def test_a_lost_leader_may_be_answered_by_the_cache(scene: Flights) -> None:
    """Its followers get that answer through it."""
    leader = scene.lead()
    followers = scene.follow(leader.id)
    scene.now += LOST
    scene.store.run(operations.recover_lost(3, now_ms=scene.now))
    scene.take("w2", leader.id)
    assert scene.settle(leader.id) == ["finished"]
    assert scene.leaders(*followers) == dict.fromkeys(followers, leader.id)


def test_a_leader_parked_with_its_batch_leads_no_more(scene: Flights) -> None:
    """Its worker was lost and its batch is paused: followers of other batches do not wait for the resumption."""
    batch_id, ids = scene.batch(1)
    leader = scene.lead("w1", ids[0])
    first, second = scene.follow(leader.id)
    scene.store.run(operations.pause_batch(batch_id))
    scene.now += LOST
    scene.store.run(operations.recover_lost(3, now_ms=scene.now))
    assert scene.following == [first, second]
    assert scene.take("w1", leader.id) == []
    assert scene.leaders(first, second) == {first: "", second: ""}
    assert isinstance(scene.start("w2", first), Claim)


def test_a_leader_parked_for_its_client_leads_no_more(scene: Flights) -> None:
    """Its worker was lost and its client may spend no more: followers of other clients do not wait for that."""
    leader = scene.lead(client="a")
    first, _ = scene.follow(leader.id)
    scene.now += LOST
    scene.store.run(operations.recover_lost(3, now_ms=scene.now))
    scene.store.redis.hset(names.BUDGETS, mapping={"kept": 10**9, "limits": 1, "day a": 0})
    scene.take("w1", leader.id)
    assert scene.start("w1", leader.id) == NotClaimed("parked")
    assert scene.leaders(first) == {first: ""}
    assert isinstance(scene.start("w2", first), Claim)


# ---- many, and those who went elsewhere ------------------------------------------------------------------------


def test_housekeepers_send_those_whom_one_step_could_not(scene: Flights) -> None:
    """Whoever ended the leader may die: the rest is written down with whose answer is theirs."""
    leader = scene.lead()
    ids = scene.follow_many(1100)
    scene.finish("w1", leader)
    assert scene.waiting() == ids[:500]
    assert scene.store.redis.hgetall(names.LANDING) == {KEY.encode(): leader.id.encode()}
    assert scene.store.run(send_waiting(scene.now)) == 1
    assert scene.store.run(send_waiting(scene.now)) == 0
    assert sorted(scene.waiting()) == ids
    assert sum(len(message) for message in scene.messages(QUEUE)) == 1100
    assert scene.leaders(*ids) == dict.fromkeys(ids, leader.id)
    assert not scene.store.redis.exists(names.LANDING)


def test_one_round_of_housekeeping_sends_them_all(scene: Flights, write_config: Any) -> None:
    """However many steps that takes."""
    leader = scene.lead()
    ids = scene.follow_many(1600)
    scene.finish("w1", leader)
    scene.store.follow(chores.all_chores(write_config()))
    assert sorted(scene.waiting()) == ids


def test_a_rest_keeps_its_answer_whatever_becomes_of_the_next_leader(scene: Flights) -> None:
    """Somebody who wants a newer answer leads meanwhile and fails: the rest has the first one's all the same."""
    leader = scene.lead()
    ids = scene.follow_many(510)
    scene.finish("w1", leader)
    newer = scene.submit()
    scene.take("w1", newer)
    claim = scene.start("w1", newer, Flight(KEY, True, True, scene.now + 1))
    assert isinstance(claim, Claim)
    assert scene.finish("w1", claim, "failed")
    scene.store.run(send_waiting(scene.now))
    assert scene.leaders(*ids[500:]) == dict.fromkeys(ids[500:], leader.id)


def test_a_failed_leader_does_not_send_all_its_followers(scene: Flights) -> None:
    """A few, of which one leads; the others stay and follow that one, so that failures of many cost no square."""
    leader = scene.lead()
    ids = scene.follow_many(100)
    scene.finish("w1", leader, "failed")
    sent = scene.waiting()
    assert sent == ids[:25]
    scene.take("w1", *sent)
    claim = scene.start("w1", sent[0])
    assert isinstance(claim, Claim)
    assert scene.store.run(send_waiting(scene.now)) == 0
    assert (scene.waiting(), len(scene.following)) == ([], 75)
    assert not scene.store.redis.exists(names.LANDING)
    assert scene.finish("w1", claim)
    assert scene.leaders(*ids[25:]) == dict.fromkeys(ids[25:], sent[0])


def test_if_none_of_the_few_leads_more_are_sent(scene: Flights) -> None:
    """They were canceled on the way, so the housekeepers send the next ones."""
    leader = scene.lead()
    ids = scene.follow_many(60)
    scene.finish("w1", leader, "failed")
    for job_id in ids[:25]:
        scene.store.run(operations.cancel_job(job_id, scene.now))
    scene.store.run(send_waiting(scene.now))
    assert scene.waiting() == ids[25:50]


def test_a_failed_leader_finds_a_follower_behind_many_that_are_gone(scene: Flights) -> None:
    """A list of canceled ones is passed over at once."""
    leader = scene.lead()
    ids = scene.follow_many(80)
    for job_id in ids[:70]:
        scene.store.run(operations.cancel_job(job_id, scene.now))
    scene.finish("w1", leader, "failed")
    assert set(scene.waiting()) & set(ids) == {*ids[70:75]}


def test_followers_that_went_elsewhere_are_passed_over(scene: Flights) -> None:
    """Canceled, expired, erased: none is sent or counted again."""
    leader = scene.lead()
    canceled, erased, expired, left = scene.follow(leader.id, *(scene.submit() for _ in range(4)))
    for job_id in (canceled, erased):
        assert scene.store.run(operations.cancel_job(job_id, scene.now)) == ("canceled", "canceled")
    scene.store.run(operations.erase_job(erased))
    scene.store.redis.hset(names.job(left), "expires_at", scene.now + 10**9)
    scene.now += LIFETIMES.expires_in
    scene.store.run(recovery.expire_due(10, 0, [QUEUE], now_ms=scene.now))
    assert [scene.job(job_id).status for job_id in (canceled, expired, left)] == ["canceled", "expired", "queued"]
    scene.finish("w1", leader)
    assert scene.waiting() == [left]
    assert [(q.queued, q.running) for q in scene.store.run(operations.read_queues([QUEUE]))] == [(1, 0)]


def test_a_single_follower_expires_in_time(scene: Flights) -> None:
    """It has no message whose age would tell."""
    leader = scene.lead()
    followers = scene.follow(leader.id)
    scene.now += LIFETIMES.expires_in
    scene.store.run(recovery.expire_due(10, LIFETIMES.expires_in / 1000, [QUEUE], now_ms=scene.now))
    assert [scene.job(job_id).status for job_id in followers] == ["expired"] * 2
    assert scene.store.redis.zcard(names.EXPIRING) == 0


def test_a_follower_of_a_batch_expires_with_it(scene: Flights) -> None:
    """Its batch looks after it."""
    leader = scene.lead()
    batch_id, ids = scene.batch(2)
    scene.follow(leader.id, *ids)
    scene.now += LIFETIMES.expires_in
    scene.store.run(recovery.expire_due(10, LIFETIMES.expires_in / 1000, [QUEUE], now_ms=scene.now))
    assert scene.read_batch(batch_id).fields["ended_reason"] == "expired"
    assert scene.store.redis.zcard(names.EXPIRING) == 0


def test_a_follower_that_expired_on_its_way_back_is_not_answered(scene: Flights) -> None:
    """It is too late for it when its answer comes."""
    leader = scene.lead()
    followers = scene.follow(leader.id)
    scene.finish("w1", leader)
    scene.leaders(*followers)
    scene.now += LIFETIMES.expires_in
    assert scene.settle(*followers) == ["expired"] * 2
    assert scene.job(followers[0]).status == "expired"


def test_a_follower_that_was_canceled_and_retried_is_sent_once(scene: Flights) -> None:
    """Its old place in the list counts no more, whether it follows anew or waits."""
    leader = scene.lead()
    again, waits = scene.follow(leader.id)
    for job_id in (again, waits):
        scene.store.run(operations.cancel_job(job_id, scene.now))
    scene.store.run(operations.retry_jobs([again, waits], LIFETIMES, now_ms=scene.now))
    scene.follow(leader.id, again)
    scene.store.redis.delete(names.queue_list(QUEUE, STEP))
    scene.finish("w1", leader)
    assert sorted(scene.waiting()) == sorted([waits, again])
    assert scene.messages(QUEUE) == [[again]]


def test_a_paused_batch_keeps_its_followers(scene: Flights) -> None:
    """They are parked when they come back, and get the answer when the batch is resumed."""
    leader = scene.lead()
    batch_id, ids = scene.batch(2)
    scene.follow(leader.id, *ids)
    scene.store.run(operations.pause_batch(batch_id))
    assert job_view(scene.job(ids[0]))["wait_reason"] == "paused"
    scene.finish("w1", leader)
    assert scene.leaders(*ids) == {}
    scene.store.run(operations.resume_batch(batch_id, 5, now_ms=scene.now))
    assert scene.leaders(*ids) == dict.fromkeys(ids, leader.id)
    assert scene.settle(*ids) == ["finished"] * 2


def test_a_batch_paused_between_taking_and_settling_parks(scene: Flights) -> None:
    """The answer is kept for the resumption."""
    leader = scene.lead()
    batch_id, ids = scene.batch(1)
    scene.follow(leader.id, *ids)
    scene.finish("w1", leader)
    scene.leaders(*ids)
    scene.store.run(operations.pause_batch(batch_id))
    assert scene.settle(*ids) == ["parked"]
    assert scene.held("w2") == set()
    scene.store.run(operations.resume_batch(batch_id, 5, now_ms=scene.now))
    assert scene.leaders(*ids) == {ids[0]: leader.id}


def test_a_canceled_batch_takes_its_followers_along(scene: Flights) -> None:
    """The leader, which is another's, runs on; the batch has ended."""
    leader = scene.lead()
    batch_id, ids = scene.batch(2)
    scene.follow(leader.id, *ids)
    scene.store.run(operations.cancel_batch(batch_id, now_ms=scene.now))
    assert scene.read_batch(batch_id).fields["ended_reason"] == "canceled"
    assert scene.finish("w1", leader)
    assert scene.waiting() == []


def test_followers_return_to_their_own_places(scene: Flights) -> None:
    """Each to its own priority's list, those of a batch and single ones alike."""
    leader = scene.lead()
    urgent, low = scene.submit(step=0), scene.submit(step=6)
    _, ids = scene.batch(1)
    scene.follow(leader.id, low, urgent, *ids)
    scene.finish("w1", leader)
    found = [scene.store.redis.zrange(names.queue_waiting(QUEUE, step), 0, -1) for step in (0, 6)]
    assert found == [[urgent.encode()], [low.encode(), ids[0].encode()]]


def test_a_follower_of_another_queue_returns_there(scene: Flights) -> None:
    """Whatever its leader's queue is."""
    leader = scene.lead()
    other = scene.submit("dspy.slow", model="slow")
    scene.follow(leader.id, other)
    scene.finish("w1", leader)
    assert (scene.waiting(), scene.waiting("dspy.slow")) == ([], [other])


# ---- just before and just after --------------------------------------------------------------------------------


def test_a_job_that_looked_just_before_is_answered_just_after(scene: Flights) -> None:
    """The cache had nothing when it asked; the leader that ended meanwhile has. It stays with its worker."""
    leader = scene.lead()
    late = scene.submit()
    scene.take("w2", late)
    scene.finish("w1", leader)
    assert 29_000 < scene.store.redis.pttl(names.flight(KEY)) <= 30_000
    assert scene.start("w2", late) == NotClaimed("answered", leader=leader.id)
    assert scene.held("w2") == {late}
    assert scene.settle(late) == ["finished"]


def test_later_jobs_lead_anew(scene: Flights) -> None:
    """Once the leader is named no more, an answer must come from the cache."""
    scene.finish("w1", scene.lead())
    scene.land()
    late = scene.submit()
    scene.take("w2", late)
    assert isinstance(scene.start("w2", late), Claim)
    assert scene.leader == late


def test_an_older_answer_is_not_wanted(scene: Flights) -> None:
    """Who wants one newer than the leader's end leads itself, and may be followed."""
    scene.finish("w1", scene.lead())
    newer, other = scene.submit(), scene.submit()
    scene.take("w2", newer, other)
    assert isinstance(scene.start("w2", newer, Flight(KEY, True, True, scene.now + 1)), Claim)
    assert scene.start("w2", other, Flight(KEY, True, True, scene.now + 1)) == NotClaimed("following", leader=newer)


def test_an_erased_answer_answers_nobody(scene: Flights) -> None:
    """Its outcome is gone before the leader is forgotten."""
    leader = scene.lead()
    scene.finish("w1", leader)
    scene.store.run(operations.erase_job(leader.id))
    late = scene.submit()
    scene.take("w2", late)
    assert isinstance(scene.start("w2", late), Claim)


def test_a_refresh_runs_beside_a_leader(scene: Flights) -> None:
    """It neither follows nor takes the leader's place, and its end is none of the followers' business."""
    leader = scene.lead()
    followers = scene.follow(leader.id)
    refresh = scene.submit()
    scene.take("w3", refresh)
    claim = scene.start("w3", refresh, Flight(KEY, may_lead=True))
    assert isinstance(claim, Claim)
    assert scene.finish("w3", claim)
    assert (scene.leader, scene.following) == (leader.id, followers)


def test_a_refresh_leads_where_nobody_does(scene: Flights) -> None:
    """Others may follow it."""
    refresh = scene.submit()
    scene.take("w3", refresh)
    assert isinstance(scene.start("w3", refresh, Flight(KEY, may_lead=True)), Claim)
    scene.follow(refresh)


def test_who_takes_stored_answers_only_leads_nobody(scene: Flights) -> None:
    """It follows where there is somebody, and otherwise runs into its failure alone."""
    only = Flight(KEY, may_follow=True)
    first, second = scene.submit(), scene.submit()
    scene.take("w2", first, second)
    assert isinstance(scene.start("w2", first, only), Claim)
    assert scene.leader is None
    leader = scene.lead()
    assert scene.start("w2", second, only) == NotClaimed("following", leader=leader.id)


def test_one_without_a_key_shares_nothing(scene: Flights) -> None:
    """It runs beside whoever leads."""
    scene.lead()
    scene.claim("w2", scene.submit())
    scene.claim("w2", scene.submit())
    assert not scene.store.redis.exists(names.flight(""))


# ---- repeated requests -----------------------------------------------------------------------------------------


def test_a_claim_whose_answer_was_lost_is_claimed_again(scene: Flights) -> None:
    """The same attempt, still leading."""
    job_id = scene.submit()
    scene.take("w1", job_id)
    first = scene.start("w1", job_id, nonce="n")
    assert isinstance(first, Claim)
    assert scene.start("w1", job_id, nonce="n") == first
    assert scene.leader == job_id


def test_a_claim_that_followed_changes_nothing_when_repeated(scene: Flights) -> None:
    """It is the worker's no more: `gone`, and in the list once; also when the leader has ended meanwhile."""
    leader = scene.lead()
    follower = scene.submit()
    scene.take("w2", follower)
    scene.start("w2", follower, nonce="n")
    assert scene.start("w2", follower, nonce="n") == NotClaimed("gone")
    assert scene.following == [follower]
    scene.finish("w1", leader)
    assert scene.start("w2", follower, nonce="n") == NotClaimed("gone")
    assert scene.waiting() == [follower]


def test_a_claim_that_was_answered_is_answered_again(scene: Flights) -> None:
    """As long as the leader is named, and it stays taken."""
    scene.finish("w1", scene.lead())
    late = scene.submit()
    scene.take("w2", late)
    answers = [scene.start("w2", late, nonce="n") for _ in range(2)]
    assert answers[0] == answers[1]
    assert scene.held("w2") == {late}


def test_taking_twice_tells_the_leader_twice(scene: Flights) -> None:
    """The answer was lost on its way; another worker gets nothing."""
    leader = scene.lead()
    followers = scene.follow(leader.id)
    scene.finish("w1", leader)
    assert [scene.leaders(*followers) for _ in range(2)] == [dict.fromkeys(followers, leader.id)] * 2
    assert scene.take("w3", *followers) == []


# ---- lifetimes -------------------------------------------------------------------------------------------------


def test_nothing_of_a_flight_stays(scene: Flights) -> None:
    """While it leads the flight's key has no lifetime; afterwards thirty seconds, or it is gone with the failure."""
    leader = scene.lead()
    scene.follow(leader.id)
    assert scene.store.redis.ttl(names.flight(KEY)) == -1
    scene.finish("w1", leader)
    kept = {key.decode() for key in scene.store.redis.scan_iter("dj:flight:*")}
    assert kept == {names.flight(KEY)}
    assert scene.store.redis.ttl(names.flight(KEY)) > 0
    scene.land()
    scene.finish("w1", scene.lead(), "failed")
    assert not list(scene.store.redis.scan_iter("dj:flight:*"))
