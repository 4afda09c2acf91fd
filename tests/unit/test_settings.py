"""The configuration is read as a whole, and every mistake in it is named with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.routing import _CLIENT
from dspy_jobs.settings import ConfigurationError, Settings, environment_secrets, load_settings, secret, service_url

MODEL = '[models.fast]\nmodel = "openai/m"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Where a test writes its configuration."""
    return tmp_path / "dspy-jobs.toml"


def _load(config: Path, text: str, **environ: str) -> Settings:
    config.write_text(text)
    return load_settings(config, environ)


def _mistakes(config: Path, text: str, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        _load(config, text, **environ)
    return str(raised.value)


# ---- what counts -------------------------------------------------------------------------------------------------


def test_everything_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without file and environment the settings are whole."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings(environ={})
    assert (settings.api.port, settings.worker.concurrency, settings.models, settings.source) == (8080, 128, {}, None)
    assert settings.data_dir == tmp_path / ".dspy-jobs"


@pytest.mark.parametrize(
    ("variable", "value", "path", "expected"),
    [
        ("DSPY_JOBS_API_PORT", "1234", "api.port", 1234),
        ("DSPY_JOBS_WORKER_HOLD_SECONDS", "0.5", "worker.hold_seconds", 0.5),
        ("DSPY_JOBS_JOBS_MAX_ATTEMPTS", "7", "jobs.max_attempts", 7),
        ("DSPY_JOBS_LIMITS_QUEUED_JOBS", "9", "limits.queued_jobs", 9),
        ("DSPY_JOBS_LOG_FORMAT", "json", "log_format", "json"),
        ("DSPY_JOBS_LOG_CONTENT", "true", "log_content", True),
        ("DSPY_JOBS_LOG_LEVELS", "dspy=debug, kombu=info", "log_levels", {"dspy": "debug", "kombu": "info"}),
        ("DSPY_JOBS_REDIS_URL", "redis://a", "redis_url", "redis://a"),
        ("REDIS_URL", "redis://a", "redis_url", "redis://a"),
    ],
)
def test_the_environment_overrides_the_file(config: Path, variable: str, value: str, path: str, expected: Any) -> None:
    """What the environment says counts over what the file says."""
    text = 'redis_url = "redis://file"\n[api]\nport = 1\n[worker]\nhold_seconds = 1\n[jobs]\nmax_attempts = 1\n'
    found: Any = _load(config, text, **{variable: value})
    for part in path.split("."):
        found = getattr(found, part)
    assert found == expected


def test_what_the_environment_leaves_open_the_file_decides(config: Path) -> None:
    """A variable changes one setting, not its section."""
    settings = _load(config, "[api]\nport = 1\nhost = 'h'\n", DSPY_JOBS_API_PORT="2")
    assert (settings.api.port, settings.api.host) == (2, "h")


def test_empty_addresses_in_the_environment_are_none(config: Path) -> None:
    """`REDIS_URL=` does not hide the file's address."""
    assert _load(config, 'redis_url = "redis://file"', REDIS_URL="").redis_url == "redis://file"


@pytest.mark.parametrize(
    ("written", "environ", "read"),
    [
        ("${NAME}", {"NAME": "v"}, "v"),
        ("a ${NAME} b ${OTHER:-d} c", {"NAME": "v"}, "a v b d c"),
        ("${NAME:-d}", {"NAME": "v"}, "v"),
        ("${NAME:-}", {}, ""),
        ("$NAME ${not a name}", {}, "$NAME ${not a name}"),
        ("${NAME}", {"NAME": "${OTHER}", "OTHER": "x"}, "${OTHER}"),
    ],
)
def test_variables_in_strings_are_replaced(config: Path, written: str, environ: dict[str, str], read: str) -> None:
    """`${NAME}` and `${NAME:-default}`, anywhere in a string, once."""
    assert _load(config, f'[api]\nhost = "{written}"\n', **environ).api.host == read


def test_variables_are_replaced_in_tables_and_lists(config: Path) -> None:
    """However deep a string lies in the file."""
    text = f"default_model = 'fast'\n{MODEL}" + 'parameters = {stop = ["${WORD}"]}\n'
    assert _load(config, text, WORD="w").models["fast"].parameters == {"stop": ["w"]}


def test_a_variable_that_is_not_set_is_named_with_its_place(config: Path) -> None:
    """The file, the path in it and the variable."""
    mistakes = _mistakes(config, '[models.fast]\nmodel = "${NAME}"\n')
    assert mistakes == f"{config}: models: fast: model: ${{NAME}} is not set in the environment"


def test_the_file_is_the_nearest_one_upwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's file counts in all folders below it; `DSPY_JOBS_CONFIG` counts over that."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "dspy-jobs.toml").write_text("[api]\nport = 1\n")
    (tmp_path / "other.toml").write_text("[api]\nport = 2\n")
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert load_settings(environ={}).api.port == 1
    assert load_settings(environ={"DSPY_JOBS_CONFIG": str(tmp_path / "other.toml")}).api.port == 2


def test_folders_are_relative_to_the_file(config: Path) -> None:
    """`data_dir` means the same wherever the command is run."""
    settings = _load(config, 'data_dir = "data"\n')
    assert settings.data_dir == config.parent / "data"
    assert settings.source == config


# ---- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[api]\nprot = 1\n", "api.prot: there is no such setting; see docs/configuration.md"),
        ("[apii]\nport = 1\n", "apii: there is no such setting; see docs/configuration.md"),
        ("[api]\nport = 70000\n", "api.port: Input should be less than or equal to 65535"),
        ("[api]\nport = 'x'\n", "api.port: Input should be a valid integer"),
        ("[worker]\nconcurrency = 0\n", "worker.concurrency: Input should be greater than or equal to 1"),
        ("[worker]\nchunk_size = 201\n", "worker.chunk_size: Input should be less than or equal to 200"),
        ("[jobs]\ntimeout_seconds = 0\n", "jobs.timeout_seconds: Input should be greater than 0"),
        ("[jobs]\nretention_seconds = inf\n", "jobs.retention_seconds: Input should be a finite number"),
        ("[jobs]\nretention_seconds = 1e300\n", "jobs.retention_seconds: Input should be less than or equal to"),
        ("[costs]\nretention_days = 3661\n", "costs.retention_days: Input should be less than or equal to 3660"),
        ("[worker]\nlease_seconds = 1\n", "worker.lease_seconds: Input should be greater than or equal to 2"),
        (
            "default_model = 'f'\n[models.f]\nmodel = 'm'\nbase_url = 'not a url'\n",
            "models.f.base_url: String should match",
        ),
        ("log_levels = {dspy = 'loud'}\n", "log_levels.dspy: Input should be 'debug', 'info', 'warning' or 'error'"),
        ("log_level = 'loud'\n", "log_level: Input should be 'debug', 'info', 'warning' or 'error'"),
        ("[models.fast]\n", "models.fast.model: Field required"),
        (
            "default_model = 'bad name'\n[models.'bad name']\nmodel = 'm'\n",
            "models.bad name: String should match pattern",
        ),
        (MODEL + "[models.fast.breaker]\nfailure_rate = 2\n", "models.fast.breaker.failure_rate: Input should be less"),
        (MODEL + "engine = 'x'\n", "models.fast.engine: Input should be 'lm15' or 'litellm'"),
        (MODEL + "input_cost_per_1k = -1\noutput_cost_per_1k = 1\n", "models.fast.input_cost_per_1k: Input should be"),
        (
            MODEL + "input_cost_per_1k = 1\n",
            "models.fast: give both input_cost_per_1k and output_cost_per_1k, or neither",
        ),
        ("[programs.qa]\n", "programs.qa: give exactly one of `signature` and `factory`"),
        ("[programs.qa]\nsignature = 'a -> b'\nfactory = 'm:f'\n", "programs.qa: give exactly one of"),
        ("[programs.qa]\nfactory = 'm.f'\n", "programs.qa.factory: String should match pattern"),
        ("[programs.qa]\nfactory = 'm:f'\ninstructions = 'x'\n", "programs.qa: `instructions` go with `signature`"),
        ("[programs.qa]\nfactory = 'm:f'\nstate = 's.json'\n", "programs.qa: give `state` and `state_sha256` together"),
        ("[programs.qa]\nsignature = 'a -> b'\nmodle = 'm'\n", "programs.qa.modle: there is no such setting"),
    ],
)
def test_a_mistake_is_named_with_its_path(config: Path, text: str, mistake: str) -> None:
    """The file, the path in it, and what is wrong."""
    mistakes = _mistakes(config, f"{'' if 'models.' in text else 'default_model = ' + repr('sandbox')}\n{text}")
    assert mistakes.startswith(f"{config}: the configuration is wrong:\n")
    assert f"\n  {mistake}" in mistakes


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (MODEL, "default_model: there is no model 'sandbox'; add [models.sandbox] or use one of: fast"),
        (
            f"default_model = 'fast'\n{MODEL}[programs.qa]\nsignature = 'a -> b'\nmodel = 'slow'\n",
            "programs.qa.model: there is no model 'slow'; add [models.slow] or use one of: fast",
        ),
        (
            f"default_model = 'fast'\n{MODEL}fallbacks = ['fast', 'slow']\n",
            "models.fast.fallbacks[1]: there is no model 'slow'; add [models.slow] or use one of: fast",
        ),
        ("[jobs]\ntimeout_seconds = 5000\n", "jobs.timeout_seconds exceeds jobs.max_timeout_seconds"),
        ("[jobs]\nbackoff_seconds = 61\n", "jobs.backoff_seconds exceeds jobs.max_backoff_seconds"),
        ("[limits]\nitem_bytes = 2\nbatch_bytes = 1\n", "limits.item_bytes exceeds limits.batch_bytes"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(config: Path, text: str, mistake: str) -> None:
    """Relations are checked too, and the mistake names both sides."""
    assert mistake in _mistakes(config, text)


QA = "[programs.qa]\nsignature = 'a -> b'\n"
V1 = f"[programs.qa.versions.v1]\nstate = 's.json'\nstate_sha256 = '{'0' * 64}'\n"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (QA + "version = 'v1'\n", "programs.qa.version: there is no version 'v1'; the versions are: none"),
        (QA + "version = 'v2'\n" + V1, "programs.qa.version: there is no version 'v2'; the versions are: v1"),
        (QA + V1, "programs.qa.version is missing: which of the versions runs (v1)"),
        (
            QA + V1 + "[programs.qa.variants]\na = {version = 'v1'}\nb = {}\n",
            "programs.qa.version is missing: which of the versions runs (v1)",
        ),
        (
            QA + "version = 'v1'\n" + V1 + "[programs.qa.variants]\na = {version = 'v9'}\n",
            "programs.qa.variants.a.version: there is no version 'v9'; the versions are: v1",
        ),
        (
            QA + f"state = 's.json'\nstate_sha256 = '{'0' * 64}'\nversion = 'v1'\n" + V1,
            "programs.qa.state goes without versions; make it one of them",
        ),
        (
            QA + "[programs.qa.variants]\na = {model = 'slow'}\n",
            "programs.qa.variants.a.model: there is no model 'slow'; add [models.slow] or use one of: none",
        ),
        *(
            (
                QA + f"[programs.qa.variants]\na = {{weight = {w}}}\nb = {{}}\n",
                "programs.qa.variants.a.weight: a weight",
            )
            for w in ("-1", "9.9e-7", "5e-324", "1.1e6", "inf", "nan")
        ),
        (
            QA + "[programs.qa.variants]\na = {weight = 0}\nb = {weight = 0}\n",
            "programs.qa.variants: at least one needs a weight above 0",
        ),
    ],
)
def test_versions_and_variants_must_fit(config: Path, text: str, mistake: str) -> None:
    """Each names what is there; nothing is chosen that is not."""
    assert mistake in _mistakes(config, text)


def test_weights_may_differ_a_million_million_times(config: Path) -> None:
    """From one end of what they may be to the other, and no weight at all."""
    text = QA + "[programs.qa.variants]\na = {weight = 0}\nb = {weight = 1e-6}\nc = {weight = 1_000_000}\n"
    weights = {name: arm.weight for name, arm in _load(config, text).programs["qa"].variants.items()}
    assert weights == {"a": 0, "b": 1e-6, "c": 1e6}


@pytest.mark.parametrize("name", ["*", "a|b", "a b", "", "-a", "x" * 65, "ü"])
def test_budgets_are_for_names_that_a_client_can_have(config: Path, name: str) -> None:
    """`*` would be everybody's budget, and a part of a field in the books ends with `|`."""
    assert not _CLIENT.match(name)
    assert f"budgets.clients.{name}: " in _mistakes(config, f'[budgets.clients."{name}"]\nday_usd = 1\n')


def test_a_budget_may_have_any_name_that_a_client_can_have(config: Path) -> None:
    """Such as the header's pattern lets through."""
    for name in ("default", "7", "a", "Team-1.eu_x", "x" * 64):
        clients = _load(config, f'[budgets.clients."{name}"]\nday_usd = 1\n').budgets.clients
        assert list(clients) == [name]
        assert _CLIENT.match(name)


def test_a_program_whose_variants_all_name_a_version_needs_none_itself(config: Path) -> None:
    """Then nothing runs that has no version."""
    text = QA + V1 + "[programs.qa.variants]\na = {version = 'v1'}\nb = {version = 'v1', weight = 0}\n"
    assert _load(config, text).programs["qa"].version is None


def test_all_mistakes_are_named_at_once(config: Path) -> None:
    """Nobody has to start the service once for each mistake."""
    text = "log_level = 'loud'\n[api]\nport = -1\nprot = 1\n[jobs]\nmax_attempts = 0\n[models.fast]\n[programs.qa]\n"
    mistakes = _mistakes(config, text)
    for path in ("log_level", "api.port", "api.prot", "jobs.max_attempts", "models.fast.model", "programs.qa"):
        assert f"\n  {path}: " in mistakes


def test_all_contradictions_are_named_at_once(config: Path) -> None:
    """As many relations as are broken."""
    mistakes = _mistakes(config, MODEL + "[jobs]\ntimeout_seconds = 5000\nbackoff_seconds = 61\n")
    for part in ("default_model", "jobs.timeout_seconds", "jobs.backoff_seconds"):
        assert part in mistakes


@pytest.mark.parametrize(
    ("variable", "value", "mistake"),
    [
        ("DSPY_JOBS_API_PORT", "x", "api.port: Input should be a valid integer"),
        ("DSPY_JOBS_API_PROT", "1", "api.prot: there is no such setting"),
        ("DSPY_JOBS_NONSENSE", "1", "DSPY_JOBS_NONSENSE: there is no such setting; see docs/configuration.md"),
        ("DSPY_JOBS_MODELS", "{}", "DSPY_JOBS_MODELS: there is no such setting"),
        ("DSPY_JOBS_SOURCE", "x", "DSPY_JOBS_SOURCE: there is no such setting"),
        ("DSPY_JOBS_API", "x", "DSPY_JOBS_API: there is no such setting"),
    ],
)
def test_a_mistake_in_the_environment_is_named(config: Path, variable: str, value: str, mistake: str) -> None:
    """A misspelled variable is not silently ignored."""
    assert mistake in _mistakes(config, "", **{variable: value})


def test_a_section_that_is_no_table_is_named(config: Path) -> None:
    """The path is the section's name."""
    assert "\n  api: " in _mistakes(config, "api = 1\n")


@pytest.mark.parametrize(
    ("text", "environ", "path"),
    [
        ("api = 1\n", {"DSPY_JOBS_API_PORT": "1"}, "api"),
        ("data_dir = 1\n", {}, "data_dir"),
        ("source = 'x'\n", {}, "source"),
    ],
)
def test_what_is_looked_at_before_the_check_is_named_too(
    config: Path, text: str, environ: dict[str, str], path: str
) -> None:
    """A wrong type or name is a mistake like any other wherever the reader itself uses the value."""
    assert path in _mistakes(config, text, **environ)


@pytest.mark.parametrize(("content", "mistake"), [(b"[api", "is not valid TOML"), (b"\xff", "is not valid TOML")])
def test_a_file_that_is_not_toml_is_named(config: Path, content: bytes, mistake: str) -> None:
    """With the reason."""
    config.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"{config}: {mistake}"):
        load_settings(config, {})


def test_a_file_that_is_not_there_is_named(config: Path) -> None:
    """With the reason the system gives."""
    with pytest.raises(ConfigurationError, match=f"{config}: cannot be read: No such file"):
        load_settings(config, {})


# ---- secrets and addresses ----------------------------------------------------------------------------------------


def test_a_secret_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable itself counts over the file that its `_FILE` names; neither is no secret."""
    (tmp_path / "key").write_text("from file\n")
    assert secret("TEST_KEY") is None
    monkeypatch.setenv("TEST_KEY_FILE", str(tmp_path / "key"))
    assert secret("TEST_KEY") == "from file"
    monkeypatch.setenv("TEST_KEY", "from environment")
    assert secret("TEST_KEY") == "from environment"


def test_values_of_telling_variables_are_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that only say where a secret is."""
    monkeypatch.setenv("ACME_API_KEY", "a")
    monkeypatch.setenv("ACME_TOKEN_FILE", "b")
    monkeypatch.setenv("ACME_KEYS_PATH", "c")
    found = environment_secrets()
    assert "a" in found
    assert not {"b", "c"} & set(found)


def test_a_secrets_file_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable and the path, never what a secret holds."""
    monkeypatch.setenv("TEST_KEY_FILE", str(tmp_path / "absent"))
    with pytest.raises(ConfigurationError, match=r"TEST_KEY_FILE: .*absent cannot be read"):
        secret("TEST_KEY")


@pytest.mark.parametrize(
    ("text", "environ", "url"),
    [
        ("", {"DSPY_JOBS_URL": "http://there"}, "http://there"),
        ("[api]\nport = 9\n", {}, "http://127.0.0.1:9"),
        ("[api]\nport = 9\nhost = '0.0.0.0'\n", {}, "http://127.0.0.1:9"),
        ("[api]\nport = 9\nhost = '::'\n", {}, "http://[::1]:9"),
    ],
)
def test_clients_find_the_api(config: Path, text: str, environ: dict[str, str], url: str) -> None:
    """At the address given, else where the configuration makes it listen."""
    config.write_text(text)
    assert service_url({"DSPY_JOBS_CONFIG": str(config), **environ}) == url


def test_a_port_left_to_chance_is_no_address(config: Path) -> None:
    """The message says how to give the address."""
    config.write_text("[api]\nport = 0\n")
    with pytest.raises(ConfigurationError, match="set DSPY_JOBS_URL"):
        service_url({"DSPY_JOBS_CONFIG": str(config)})
