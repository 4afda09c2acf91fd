"""Which variant of its program a job runs, on which model, and for which client."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.requests import Request

from api.catalogue import Mistake, Program
from api.reading import bad_parameter, header, listed, shortened
from dspy_jobs.problems import ProblemError, fail
from dspy_jobs.settings import Settings
from dspy_jobs.store.operations import Route
from dspy_jobs.submissions import BatchSubmission, JobSubmission
from dspy_jobs.variants import assigned, unit_of

#: A client's name is a part of keys and fields, and of what an operator writes in budgets.
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


def client_of(request: Request, settings: Settings) -> str:
    """Who a request is of, as the trusted proxy says; `default` where nobody does.

    Raises:
        ProblemError: the header holds something that cannot be a name.
    """
    name = settings.api.client_header
    given = header(request, name.lower().encode()) if name else ""
    if given and not _CLIENT.match(given):
        raise bad_parameter(
            str(name), f"{name} must be 1 to 64 letters, digits or _.- and begin with a letter or digit."
        )
    return given or "default"


@dataclass(frozen=True, slots=True)
class Routing:
    """What a submission asks of the way its jobs go."""

    program: Program
    client: str
    model: str | None
    """Asked for by the submission; it goes before the variant's."""
    variant: str | None

    @classmethod
    def of(
        cls, settings: Settings, program: Program, submission: JobSubmission | BatchSubmission, client: str
    ) -> Routing:
        """The routing of a submission.

        Raises:
            ProblemError: there is no such model or variant.
        """
        routing = cls(program, client, submission.model, submission.variant)
        if submission.model is not None and submission.model not in settings.models:
            known = listed(settings.models)
            detail = f"There is no model {shortened(submission.model)!r}; there are: {known}."
            raise _refused({"param": "model", "code": "unknown_model", "detail": detail})
        if mistake := routing.unknown(submission.variant):
            raise _refused(mistake)
        return routing

    @property
    def default_model(self) -> str:
        """The model shown for a whole batch: the one asked for, else the program's."""
        return self.model or self.program.description.model

    @property
    def models(self) -> list[str]:
        """Every model its jobs may be sent to."""
        arms = () if self.model else self.program.description.variants.values()
        return list(dict.fromkeys(arm.model for arm in arms)) or [self.default_model]

    def unknown(self, variant: str | None) -> Mistake | None:
        """What is wrong with asking for a variant, if anything is."""
        variants = self.program.description.variants
        if variant is None or variant in variants:
            return None
        name = self.program.description.name
        detail = f"The program {name!r} has no variant {shortened(variant)!r}; there are: {listed(variants)}."
        return {"param": "variant", "code": "unknown_variant", "detail": detail}

    def route(self, job_id: str, request_id: str | None, custom_id: str | None, variant: str | None = None) -> Route:
        """Where a job goes: the variant asked for (its own before the submission's), else the assigned one."""
        description = self.program.description
        if not description.variants:
            return Route("", self.default_model)
        chosen = variant or self.variant
        if chosen is None:
            weights = {name: arm.weight for name, arm in description.variants.items()}
            unit = unit_of(job_id, request_id, custom_id, self.client)
            chosen = assigned(description.name, weights, unit)
        return Route(chosen, self.model or description.variants[chosen].model)

    def version(self, variant: str) -> str:
        """The version of the program that a variant runs."""
        description = self.program.description
        return description.variants[variant].version if variant else description.version


def _refused(mistake: Mistake) -> ProblemError:
    return fail(mistake["code"], mistake["detail"], errors=[mistake])
