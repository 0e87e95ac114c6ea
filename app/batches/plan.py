"""Which deployment answers which lines of a batch: each is one part, a batch of its own at one provider."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.access.authenticate import Caller
from app.deployments import Deployment, Deployments
from app.errors import BadRequest, Forbidden
from app.formats.batch_lines import ModelLines

LINES_PARAM = "input_file_id"


@dataclass(frozen=True, slots=True)
class Part:
    """The lines of one deployment; `line_models` are what stands as `model` in them."""

    deployment: Deployment
    lines: int
    line_models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a batch file asks for (`facts`, as its inspection found it), for whom. `targets` are the model names that it
    was uploaded for; `model` is the one that all lines are to run on, whatever they name."""

    deployments: Deployments
    caller: Caller
    facts: Mapping[str, Any]
    targets: Sequence[str]
    model: str | None = None
    _chosen: dict[str, Deployment] = field(default_factory=dict)

    def parts(self) -> list[Part]:
        """The parts. Raises BadRequest or Forbidden that names the lines that no deployment may answer."""
        parts: dict[int, Part] = {}
        for line_model, found in self.facts["models"].items():
            lines = ModelLines(found["lines"], found["first"])
            deployment = self._deployment(self._model_name(line_model, lines), lines)
            known = parts.get(id(deployment), Part(deployment, 0))
            line_models = (*known.line_models, line_model)
            parts[id(deployment)] = replace(known, lines=known.lines + lines.lines, line_models=line_models)
        for part in parts.values():
            _check_limits(part)
        return list(parts.values())

    def _model_name(self, line_model: str, lines: ModelLines) -> str:
        """The model name that a line's `model` stands for: its own, or that of the provider's model."""
        wanted = self.model or line_model
        if self.deployments.of(wanted):
            return wanted
        for names in (self.targets, self.deployments.names(self.caller.models)):
            serving = [name for name in names if self._serves(name, wanted)]
            if len(serving) > 1:
                reason = f"{wanted!r} is served by several model names ({', '.join(serving)}): write one of them"
                raise BadRequest(f"{lines}: {reason}", param=LINES_PARAM, code="ambiguous_model")
            if serving:
                return serving[0]
        usable = ", ".join(self.deployments.names(self.caller.models)) or "none"
        reason = f"there is no model name {wanted[:200]!r}; your key may use: {usable}"
        raise BadRequest(f"{lines}: {reason}", param=LINES_PARAM, code="model_not_found")

    def _serves(self, model_name: str, provider_model: str) -> bool:
        return any(
            provider_model in (one.provider_model, f"{one.account.provider_name}/{one.provider_model}")
            for one in self.deployments.of(model_name)
        )

    def _deployment(self, model_name: str, lines: ModelLines) -> Deployment:
        """One of the model name's deployments that runs such batches; always the same in one plan."""
        if not self.caller.may_use(model_name):
            reason = f"{lines}: this key may not use the model name {model_name!r}"
            raise Forbidden(reason, param=LINES_PARAM, code="model_name_not_allowed")
        if model_name not in self._chosen:
            able = [one for one in self.deployments.of(model_name) if _runs(one, self.facts["endpoint"])]
            if not able:
                raise self._cannot(model_name, lines)
            self._chosen[model_name] = random.choice(able)  # noqa: S311  spreads the load, no secret
        return self._chosen[model_name]

    def _cannot(self, model_name: str, lines: ModelLines) -> BadRequest:
        providers = ", ".join(sorted({one.account.provider_name for one in self.deployments.of(model_name)}))
        reason = f"{providers}, behind {model_name!r}, runs no batches of {self.facts['endpoint']}"
        return BadRequest(f"{lines}: {reason}", param=LINES_PARAM, code="batch_not_supported")


def _runs(deployment: Deployment, endpoint: str) -> bool:
    capabilities = deployment.provider.capabilities
    return capabilities.batch_input != "none" and endpoint in capabilities.batch.endpoints


def _check_limits(part: Part) -> None:
    limits, account = part.deployment.provider.capabilities.batch, part.deployment.account
    name = part.deployment.model_name
    if part.lines < limits.min_lines:
        reason = (
            f"{account.provider_name} runs no batch of fewer than {limits.min_lines} lines; {part.lines} name {name!r} "
            "(if the account's quota is another: batch_min_lines in its parameters)"
        )
        raise BadRequest(reason, param=LINES_PARAM, code="batch_too_small")
    if part.lines > limits.max_lines:
        reason = f"{account.provider_name} takes at most {limits.max_lines} lines; {part.lines} name {name!r}"
        raise BadRequest(reason, param=LINES_PARAM, code="too_many_tasks")


def model_names(parts: Iterable[Part]) -> list[str]:
    """The model names that a batch runs on."""
    return sorted({part.deployment.model_name for part in parts})
