"""Scores of jobs: what callers thought of an output, as a number, to compare a program's variants by."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.admission import read_submission
from api.answers import json_answer
from api.jobs import find_job
from api.reading import json_body, query
from api.resources import resources_of
from dspy_jobs.problems import ProblemError, fail
from dspy_jobs.store.scores import MOST_NAMES, MOST_SCORES, score_job
from dspy_jobs.submissions import ScoreSubmission

#: Bytes of a score's body, with room to spare.
_LARGEST_BODY = 10_000


async def post_score(request: Request) -> Response:
    """Give an ended job a score; the same name again replaces it."""
    resources = resources_of(request)
    query(request, ())
    score = read_submission(ScoreSubmission, await json_body(request, _LARGEST_BODY, "A score"))
    job = await find_job(resources, request.path_params["job_id"])
    answer = await resources.store.run(score_job(job.id, score.name, score.value))
    if answer == "missing":
        job = await find_job(resources, job.id)  # erased since: this says so
    if answer != "scored":
        raise _refused(answer, score.name, job.fields["program"])
    program, variant = job.fields["program"], job.fields.get("variant")
    shown = {"job_id": job.id, "program": program, "variant": variant, "name": score.name, "value": score.value}
    return json_answer({"object": "score", **shown})


def _refused(answer: str, name: str, program: str) -> ProblemError:
    if answer == "too_many":
        return fail("conflict", f"The program {program!r} has scores of {MOST_NAMES} names already; use one of them.")
    if answer == "full":
        return fail("conflict", f"{MOST_SCORES} jobs of this variant have a score {name!r} already; that is enough.")
    return fail("conflict", f"The job is {answer}; score it when it has ended.")
