"""Bugs of API tokens and scopes."""

from typing import Final

from tests.planted.bug import Bug

ADMISSION: Final = "servicekit/rpc/admission.py"
SCOPES: Final = "servicekit/scopes.py"
TOKENS: Final = "servicekit/access/tokens.py"
TABLE: Final = "auth_service/migrations/0005_api_tokens.sql"
EXCHANGE: Final = "auth_service/api_tokens/exchange.py"
REPOSITORY: Final = "auth_service/api_tokens/repository.py"
TEXT: Final = "auth_service/api_tokens/tokens.py"
ENDPOINT: Final = "auth_service/api_tokens/endpoint.py"
CONDITIONS: Final = "gateway/conditions.py"
GATEWAY: Final = "gateway/envoy.yaml.j2"
GATEWAY_KEEPS: Final = "gateway/api_tokens.lua"
NAMES: Final = "task_service/migrations/0018_actor_name.sql"
RESTORE: Final = "helm/task-manager/charts/backup/files/after-restore.sql"

EACH_SCOPE: Final = ("tests/contract/test_scopes.py", "-k", "each_scope or changes_nothing")
IN_POSTGRES: Final = "tests/auth_service/api_tokens/test_service.py"
KEPT: Final = "tests/auth_service/api_tokens/test_exchange.py"
AT_THE_GATEWAY: Final = "tests/gateway/test_api_tokens.py"
KEPT_THERE: Final = "tests/gateway/test_kept_access_tokens.py"

API_TOKEN_BUGS: Final = (
    Bug("an API token calls a method that takes only sessions", ADMISSION, "        raise SessionRequired\n", "        return\n", EACH_SCOPE),
    Bug("an API token calls a method without its scope", ADMISSION, "    if scope not in granted:\n", "    if not granted:\n", EACH_SCOPE),
    Bug(
        "the first call with an access token is not checked for its scope",
        ADMISSION,
        "if call.caller.scopes is not None:",
        "if call.caller is None:",
        EACH_SCOPE,
    ),
    Bug(
        "the scope of a token that was verified before is not checked",
        ADMISSION,
        "if identity.scopes is not None:",
        "if identity is None:",
        ("tests/contract/test_scopes.py", "-k", "changes_nothing"),
    ),
    Bug(
        "a scope that reads also writes",
        SCOPES,
        '"tasks:read": frozenset({"tasks:read"})',
        '"tasks:read": frozenset({"tasks:read", "tasks:write"})',
        ("tests/contract/test_scopes.py", "-k", "changes_nothing or no_write"),
    ),
    Bug(
        "a scope of another type counts as none",
        TOKENS,
        """_scopes(claims["scope"]) if "scope" in claims else None""",
        """_scopes(claims["scope"]) if isinstance(claims.get("scope"), str) else None""",
        ("tests/contract/test_tokens.py", "-k", "scope"),
    ),
    Bug(
        "the deletion of an API token is no event",
        TABLE,
        "    PERFORM auth.log_event(1::smallint, p_user, deleted) FROM unnest(v_deleted) AS deleted;\n",
        "",
        (IN_POSTGRES, "-k", "is_an_event"),
    ),
    Bug(
        "a session that has ended creates an API token",
        TABLE,
        "AND user_id = p_user AND ended_at IS NULL AND expires_at > v_now FOR SHARE",
        "AND user_id = p_user FOR SHARE",
        (IN_POSTGRES, "-k", "has_ended or at_once_none"),
    ),
    Bug(
        "API tokens are created without a lock on their user",
        TABLE,
        "    PERFORM FROM auth.users WHERE id = p_user FOR UPDATE;\n",
        "",
        (IN_POSTGRES, "-k", "at_most_50"),
    ),
    Bug(
        "an access token is given out although its API token was deleted",
        EXCHANGE,
        "            if self._verifier.known(kept.access_token) is None:\n",
        "            if not kept.access_token:\n",
        (KEPT, "-k", "event_is_read"),
    ),
    Bug("an access token is given out until it expires", EXCHANGE, "self._now() + seconds / 2", "self._now() + seconds", (KEPT, "-k", "half_of")),
    Bug(
        "every use of an API token is stored",
        REPOSITORY,
        " AND (last_used_at IS NULL OR last_used_at <= now() - $2::interval)",
        "",
        (KEPT, "-k", "five_minutes"),
    ),
    Bug(
        "a repeated unknown API token is looked up and counted again",
        EXCHANGE,
        "if self._unknown.get(token_hash, 0.0) > self._now():",
        "if self._unknown.get(token_hash, 0.0) > self._now() + 1e9:",
        (KEPT, "-k", "one_look_up_and"),
    ),
    Bug(
        "the checksum of an API token is not checked",
        TEXT,
        " and token[-CHECKSUM_DIGITS:] == _checksum(token[:-CHECKSUM_DIGITS])",
        "",
        ("tests/auth_service/api_tokens/test_tokens.py", "-k", "typo or looks_like"),
    ),
    Bug(
        "of two authorization headers the first is an API token",
        ENDPOINT,
        "if len(values) == 1 else",
        "if values else",
        ("tests/contract/test_scopes.py", "-k", "two_headers"),
    ),
    Bug(
        "every request asks for an exchange",
        CONDITIONS,
        '{"prefix": "Bearer tm_"}',
        '{"prefix": "Bearer "}',
        (AT_THE_GATEWAY, "-k", "asks_for_no_exchange"),
    ),
    Bug(
        "a wrong API token fails a public method",
        GATEWAY,
        '{% set without_token = {"api_tokens": disabled} %}',
        "{% set without_token = {} %}",
        (AT_THE_GATEWAY, "-k", "public"),
    ),
    Bug(
        "the client's path goes to the exchange",
        GATEWAY,
        "                  path_override: /exchange  #",
        "                  path_prefix: /exchange  #",
        (AT_THE_GATEWAY, "-k", "not_the_request"),
    ),
    Bug(
        "the gateway keeps an access token until its end", GATEWAY_KEEPS, " and os.time() - found.at < SECONDS", "", (KEPT_THERE, "-k", "for_seconds")
    ),
    Bug(
        "the gateway keeps an access token that a service has refused",
        GATEWAY_KEEPS,
        'headers:get(":status") == "401"',
        "false",
        (KEPT_THERE, "-k", "exchanged_anew"),
    ),
    Bug("the gateway keeps all access tokens", GATEWAY_KEEPS, "if count == MOST then", "if false then", (KEPT_THERE, "-k", "has_a_bound")),
    Bug(
        "a task that an API token changed was changed by a session",
        "task_service/tasks/handler.py",
        ", by_api_token=identity.by_api_token",
        "",
        ("tests/client/test_api_tokens.py", "-k", "history"),
    ),
    Bug(
        "a project that an API token changed was changed by a session",
        "task_service/projects/handler.py",
        ", by_api_token=identity.by_api_token",
        "",
        ("tests/client/test_api_tokens.py", "-k", "history"),
    ),
    Bug(
        "a change has no name of the API token that made it",
        "task_service/tasks/handler.py",
        ", name=identity.api_token_name",
        "",
        ("tests/client/test_api_tokens.py", "-k", "history"),
    ),
    Bug(
        "the name of an API token outlives its transaction",
        NAMES,
        "set_config('task.actor_name', coalesce(p_name, ''), true)",
        "set_config('task.actor_name', coalesce(p_name, ''), false)",
        ("tests/task_service/feed/test_names.py", "-k", "code_from_before"),
    ),
    Bug(
        "a write that is sent with others has no name of its API token",
        NAMES,
        "v_write.actor_name),\n",
        "NULL),\n",
        ("tests/task_service/tasks/test_joined.py", "-k", "no_gap_after_writes_that"),
    ),
    Bug("a restore keeps API tokens", RESTORE, "DELETE FROM auth.api_tokens;\n", "", ("tests/deploy/test_restore.py", "-k", "other_means")),
)
