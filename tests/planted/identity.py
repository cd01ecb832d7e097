"""Bugs of accounts, keys, tokens, sessions and logins."""

from typing import Final

from tests.planted.bug import Bug

KEY_RING: Final = "auth_service/keys/ring.py"
KEY_POLICY: Final = "auth_service/keys/domain.py"
KEY_REPOSITORY: Final = "auth_service/keys/repository.py"
ROTATION: Final = "auth_service/keys/service.py"
REPOSITORY: Final = "auth_service/sessions/repository.py"
SESSIONS: Final = "auth_service/sessions/tokens.py"
PASSWORDS: Final = "auth_service/passwords/hasher.py"
PASSWORD: Final = "auth_service/passwords/domain.py"
HANDLER: Final = "auth_service/sessions/handler.py"
GUARD: Final = "auth_service/passwords/login_guard.py"
IDENTITY: Final = "auth_service/migrations/0002_identity.sql"
JWKS: Final = "servicekit/access/jwks.py"
TOKENS: Final = "servicekit/access/tokens.py"
REVOCATIONS: Final = "servicekit/access/revocations.py"
RATE_LIMIT: Final = "servicekit/access/rate_limit.py"
RIGHTS: Final = "servicekit/stores/rights.py"
WRITES: Final = "task_service/migrations/0006_write_cost.sql"
AUTH_EVENTS: Final = "task_service/accounts/auth_events.py"
DELETED_ACCOUNTS: Final = "task_service/accounts/service.py"
REMOVALS: Final = "task_service/migrations/0009_account_removals.sql"
GATEWAY: Final = "gateway/envoy.yaml.j2"

KEY_ROTATION: Final = "tests/e2e/test_key_rotation.py"
REFRESH: Final = "tests/e2e/test_refresh.py"
REVOCATION: Final = "tests/e2e/test_revocation.py"
LIMITS: Final = "tests/e2e/test_login_limits.py"
DELETION: Final = "tests/e2e/test_account_deletion.py"
BAD_TOKENS: Final = "tests/contract/test_tokens.py"
FOREIGN: Final = "tests/contract/test_foreign_objects.py"

_KEYS: Final = (
    Bug(
        "a new signing key signs at once",
        KEY_POLICY,
        "timedelta(seconds=self.lead_seconds if stored.keys else 0)",
        "timedelta(seconds=0)",
        (KEY_ROTATION, "-k", "under_load"),
    ),
    Bug(
        "a signing key is withdrawn before its last token has expired",
        KEY_POLICY,
        "timedelta(seconds=self.token_seconds + self.lead_seconds)",
        "timedelta(seconds=self.lead_seconds)",
        (KEY_ROTATION, "-k", "under_load"),
    ),
    Bug(
        "a signing key signs before it was published long enough",
        KEY_RING,
        "if signing else due\n",
        "if not stored.keys else due\n",
        ("tests/auth_service/keys/test_ring.py", "-k", "published_in_time"),
    ),
    Bug(
        "signing keys are created without the lock",
        KEY_REPOSITORY,
        "            await connection.execute(LOCK)\n",
        "",
        ("tests/auth_service/keys/test_service.py", "-k", "at_once"),
    ),
    Bug(
        "a replica with a wrong key encryption key creates a signing key",
        ROTATION,
        "        if stored.active is not None:\n            self._seal.open(stored.active)\n",
        "",
        (KEY_ROTATION, "-k", "refused"),
    ),
    Bug(
        "a token stays valid after its key is withdrawn",
        TOKENS,
        "if identity.expires_at <= time.time() or not self._keys.holds(kid):",
        "if identity.expires_at <= time.time():",
        (KEY_ROTATION, "-k", "replacing"),
    ),
    Bug(
        "an unknown key id does not cause a fetch of the key set",
        JWKS,
        "        if key is None:\n            await self._fetched()\n            key = self._keys.get(kid)\n",
        "        if not self._keys:\n            await self._fetched()\n            key = self._keys.get(kid)\n",
        (KEY_ROTATION, "-k", "under_load"),
    ),
    Bug(
        "made-up key ids cause any number of fetches of the key set",
        JWKS,
        "interval = MIN_FETCH_INTERVAL_SECONDS if self._keys else self._first_interval_seconds",
        "interval = 0.0",
        ("tests/servicekit/access/test_jwks.py", "-k", "made_up"),
    ),
    Bug(
        "the key set is discarded while auth_service is unavailable",
        JWKS,
        "            self._last_error = type(error).__name__\n",
        "            self._last_error, self._keys = type(error).__name__, {}\n",
        ("tests/servicekit/access/test_jwks.py", "-k", "last_good_set"),
    ),
)

_SESSIONS: Final = (
    Bug(
        "a repeated refresh is treated as a theft",
        IDENTITY,
        "ELSIF v_token.used_at > v_now - p_grace AND",
        "ELSIF v_token.used_at > v_now AND",
        (REFRESH, "-k", "at_once_get_one_successor"),
    ),
    Bug(
        "the grace period is twice as long",
        IDENTITY,
        "ELSIF v_token.used_at > v_now - p_grace AND",
        "ELSIF v_token.used_at > v_now - 2 * p_grace AND",
        (REFRESH, "-k", "end_of_the_grace"),
    ),
    Bug(
        "a refresh token is used without a lock on its session",
        IDENTITY,
        "     WHERE token.token_hash = p_hash FOR UPDATE OF session;\n",
        "     WHERE token.token_hash = p_hash;\n",
        (REFRESH, "-k", "at_once_get_one_successor"),
    ),
    Bug(
        "the reuse of a refresh token does not end its session",
        IDENTITY,
        "        PERFORM auth.end_sessions(v_session.user_id, ARRAY[v_session.id]);\n",
        "",
        (REFRESH, "-k", "after_the_grace"),
    ),
    Bug(
        "a refresh token is stored unhashed",
        SESSIONS,
        "return hashlib.sha256(token.encode()).digest()",
        "return token.encode()",
        ("tests/auth_service/sessions/test_tokens.py",),
    ),
    Bug(
        "the sealed successor of a refresh token is never removed",
        REPOSITORY,
        "(Removal(REMOVE_SUCCESSORS), Removal(REMOVE_SESSIONS), Removal(REMOVE_NETWORKS))",
        "(Removal(REMOVE_SESSIONS), Removal(REMOVE_NETWORKS))",
        (REFRESH, "-k", "only_hashes"),
    ),
    Bug(
        "a session has no maximum lifetime while it is used",
        IDENTITY,
        "v_session.expires_at := least(v_now + p_idle, v_session.ends_at);",
        "v_session.expires_at := v_now + p_idle;",
        (REFRESH, "-k", "time_is_over"),
    ),
    Bug(
        "an access token expires after its session",
        SESSIONS,
        "seconds = max(1, min(self._ttl_seconds, int(session_expires_at.timestamp()) - issued_at))",
        "seconds = self._ttl_seconds",
        (REFRESH, "-k", "time_is_over"),
    ),
    Bug(
        "the number of a user's sessions is not limited",
        IDENTITY,
        "    PERFORM auth.end_sessions(p_user, v_surplus);\n",
        "",
        (REFRESH, "-k", "one_session_too_many"),
    ),
    Bug(
        "a password change does not end the other sessions",
        IDENTITY,
        "    PERFORM auth.end_sessions(p_user, ARRAY(SELECT id FROM auth.sessions"
        " WHERE user_id = p_user AND ended_at IS NULL AND id <> p_session));\n",
        "",
        (REVOCATION, "-k", "change_of_password"),
    ),
    Bug(
        "any user can end a session by its id",
        REPOSITORY,
        "SELECT auth.end_sessions($1, ARRAY[id]) FROM auth.sessions WHERE id = $2 AND user_id = $1",
        "SELECT auth.end_sessions(user_id, ARRAY[id]) FROM auth.sessions WHERE id = $2 AND $1::uuid IS NOT NULL",
        (FOREIGN, "-k", "RevokeSession"),
    ),
)

_REVOCATION: Final = (
    Bug(
        "a channel that is replaced continues to connect",
        AUTH_EVENTS,
        "        with contextlib.suppress(grpc.aio.AioRpcError):\n            return await self._try(request, first)\n",
        "        try:\n            return await self._try(request, first)\n"
        "        except grpc.aio.AioRpcError as error:\n            failed = error\n",
        ("tests/task_service/accounts/test_rollout.py",),
    ),
    Bug(
        "task_service asks the DNS rarely for the replicas of auth_service",
        AUTH_EVENTS,
        '("grpc.dns_min_time_between_resolutions_ms", 1000)',
        '("grpc.dns_min_time_between_resolutions_ms", 30_000)',
        ("tests/task_service/accounts/test_rollout.py",),
    ),
    Bug(
        "access tokens stay valid after their session has ended",
        REVOCATIONS,
        "        if identity.session_id in self._ended or identity.user_id in self._ended:\n            raise TokenInvalid\n",
        "",
        (REVOCATION, "-k", "every_replica and there"),
    ),
    Bug(
        "replicas learn of ended sessions only through Redis",
        REVOCATIONS,
        "POLL_SECONDS: Final = 1.0",
        "POLL_SECONDS: Final = 60.0",
        (REVOCATION, "-k", "every_replica and killed"),
    ),
    Bug(
        "an unresponsive replica delays the end of sessions",
        AUTH_EVENTS,
        "TIMEOUTS_SECONDS: Final = (0.5, 2.0)",
        "TIMEOUTS_SECONDS: Final = (2.0, 2.0)",
        ("tests/task_service/accounts/test_auth_events.py", "-k", "died_without_a_word"),
    ),
    Bug(
        "a replica accepts tokens before it has read which sessions have ended",
        REVOCATIONS,
        '        if self._after is None:\n            raise DependencyUnavailable("auth_service")\n        if identity',
        "        if identity",
        (REVOCATION, "-k", "who_is_out"),
    ),
)

_LOGINS: Final = (
    Bug(
        "failed logins of strangers lock the owner out",
        GUARD,
        "        if known:\n            await self._on_account",
        "        if known and not key:\n            await self._on_account",
        (LIMITS, "-k", "lock_the_owner_out"),
    ),
    Bug(
        "the client address is taken from a header that the client sets",
        GATEWAY,
        "xff_num_trusted_hops: {{ settings.trusted_hops }}",
        "xff_num_trusted_hops: {{ settings.trusted_hops + 1 }}",
        (REVOCATION, "-k", "listed_as_they_are"),
    ),
    Bug(
        "the login limit is off while Redis is down",
        RATE_LIMIT,
        "            return self._local.take(key, limit, holder)\n",
        "            return Wait(0.0, 0.0)\n",
        (LIMITS, "-k", "without_valkey"),
    ),
    Bug(
        "a login under way counts as failed",
        GUARD,
        "        if wait.least_seconds > 0:\n",
        "        if wait.seconds > 0:\n",
        (LIMITS, "-k", "told_to_wait_shortly"),
    ),
    Bug(
        "logins at once are not limited",
        GUARD,
        "        if wait.seconds > 0:\n            raise AttemptsUnderWay\n",
        "",
        (LIMITS, "-k", "wrong_passwords_at_once"),
    ),
    Bug(
        "a registration counts as a failed login",
        GUARD,
        "give_back=self._for_failure, spend=self._for_success)",
        "give_back=[], spend=self._for_success)",
        (LIMITS, "-k", "limit_of_their_own"),
    ),
    Bug(
        "each address of an IPv6 network has its own login limit",
        GUARD,
        "return str(ip.ipv4_mapped or ipaddress.ip_network((ip, IPV6_PREFIX_BITS), strict=False))",
        "return str(ip.ipv4_mapped or ip)",
        (LIMITS, "-k", "ipv6_customer"),
    ),
    Bug(
        "a login fails faster if there is no account",
        PASSWORDS,
        "        matches = await self._run(lambda: _verify(password, password_hash or self._nobody, self._cost))\n",
        "        matches = password_hash is not None and await self._run(lambda: _verify(password, password_hash, self._cost))\n",
        ("tests/identity/test_login_timing.py", "-k", "as_long_for_an_account"),
    ),
    Bug(
        "a rehash overwrites a changed password",
        REPOSITORY,
        "UPDATE auth.users SET password_hash = $3 WHERE id = $1 AND password_version = $2",
        "UPDATE auth.users SET password_hash = $3 WHERE id = $1 AND $2::int IS NOT NULL",
        ("tests/auth_service/users/test_repository.py", "-k", "hash or change"),
    ),
    Bug(
        "only the first 72 bytes of a password are hashed",
        PASSWORDS,
        "return base64.b64encode(hmac.digest(LABEL, normalize(password).encode(), hashlib.sha256))",
        "return normalize(password).encode()[:72]",
        ("tests/identity/test_arbitrary_credentials.py", "-k", "alike"),
    ),
    Bug(
        "a password is not normalized to NFC",
        PASSWORD,
        '    return unicodedata.normalize("NFC", password)\n',
        "    return password\n",
        ("tests/identity/test_arbitrary_credentials.py", "-k", "two_ways"),
    ),
)

_ACCOUNTS: Final = (
    Bug(
        "a token can write after its account was deleted",
        WRITES,
        "DO UPDATE SET last_seq = c.last_seq + p_count WHERE c.closed_at IS NULL\n",
        "DO UPDATE SET last_seq = c.last_seq + p_count\n",
        ("tests/task_service/tasks/test_writes.py", "-k", "a_closed_account_is_answered_nothing_not_even_once_more"),
    ),
    Bug(
        "an account deletion is recorded as done before it is done",
        REMOVALS,
        "    INSERT INTO task.account_removals (user_id) SELECT unnest(p_users) ON CONFLICT DO NOTHING;\n",
        "    DELETE FROM task.account_removals WHERE user_id = ANY (p_users);\n",
        ("tests/task_service/accounts/test_service.py", "-k", "at_least_once"),
    ),
    Bug(
        "an account counts as removed when a batch removed no row",
        REMOVALS,
        "    IF o_removed = 0\n        AND NOT EXISTS",
        "    IF o_removed = 0\n        OR NOT EXISTS",
        ("tests/task_service/accounts/test_certainty.py", "-k", "sweep"),
    ),
    Bug(
        "an account that fails delays the others",
        DELETED_ACCOUNTS,
        "            self._failed.add(user_id)\n            return error\n",
        "            self._failed.add(user_id)\n            raise\n",
        ("tests/task_service/accounts/test_certainty.py", "-k", "delays_no_other"),
    ),
    Bug(
        "an account deletion logs no event",
        IDENTITY,
        "    PERFORM auth.log_event(2::smallint, p_user, NULL);\n",
        "",
        (DELETION, "-k", "goes_with_all"),
    ),
)

_TOKENS: Final = (
    Bug("a token of any type is accepted", TOKENS, ' or str(header.get("typ", "")).lower() != TOKEN_TYPE', "", (BAD_TOKENS, "-k", "bad_token")),
    Bug(
        "a token that was issued in the future is accepted",
        TOKENS,
        " or issued_at > time.time() + CLOCK_SKEW_SECONDS:",
        ":",
        (BAD_TOKENS, "-k", "bad_token"),
    ),
    Bug(
        "an access token in the query is accepted",
        GATEWAY,
        '                from_headers: [{name: authorization, value_prefix: "Bearer "}]\n',
        '                from_headers: [{name: authorization, value_prefix: "Bearer "}]\n                from_params: [access_token]\n',
        ("tests/gateway/test_access.py", "-k", "query"),
    ),
)

_SECRETS: Final = (
    Bug(
        "a password is written to the log",
        HANDLER,
        '        """Login."""\n',
        "        print(f'{request.email} {request.password}', flush=True)\n",
        ("tests/identity/test_canary.py", "-k", "log_tells"),
    ),
    Bug(
        "a service can read the other service's tables",
        RIGHTS,
        "        REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC, {role};\n        GRANT SELECT, INSERT",
        "        GRANT USAGE ON SCHEMA {schema} TO PUBLIC; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO PUBLIC;\n        GRANT SELECT, INSERT",
        ("tests/e2e/test_least_privilege.py",),
    ),
    Bug(
        "a service can truncate its tables",
        RIGHTS,
        "        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};\n",
        "        GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role};\n",
        ("tests/e2e/test_least_privilege.py",),
    ),
)

IDENTITY_BUGS: Final = (*_KEYS, *_SESSIONS, *_REVOCATION, *_LOGINS, *_ACCOUNTS, *_TOKENS, *_SECRETS)
