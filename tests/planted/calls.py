"""Bugs of the path of a call: its limits, its admission, its meters and its line in the log."""

from typing import Final

from tests.planted.bug import Bug

LIMITS: Final = "servicekit/rpc/time_limits.py"
LIMITS_TESTS: Final = ("tests/servicekit/rpc/test_time_limits.py",)
PIPELINE: Final = "servicekit/rpc/pipeline.py"
BUDGET_TESTS: Final = ("tests/servicekit/rpc/test_budget.py",)
RECEIVING_TESTS: Final = ("tests/servicekit/rpc/test_receiving.py",)
GATEWAY: Final = "gateway/envoy.yaml.j2"
UPLOADS: Final = "gateway/uploads.py"
UPLOADS_TESTS: Final = ("tests/gateway/test_uploads.py",)
PIPELINE_TESTS: Final = ("tests/servicekit/rpc/test_pipeline.py",)

CALLS_BUGS: Final = (
    Bug("an earlier time limit does not move the timer", LIMITS, "if at < self._timer_at:", "if self._timer is None:", LIMITS_TESTS),
    Bug(
        "a time limit hides a cancellation from elsewhere",
        LIMITS,
        "elif task.uncancel() <= self._cancellations and kind is asyncio.CancelledError:",
        "elif kind is asyncio.CancelledError:",
        LIMITS_TESTS,
    ),
    Bug("cleaning drops running time limits", LIMITS, "if entry[2].runs]", "if not entry[2].runs]", LIMITS_TESTS),
    Bug(
        "a token that was verified before is accepted after it has expired",
        "servicekit/access/tokens.py",
        "if identity.expires_at <= time.time() or not",
        "if not",
        ("tests/servicekit/access/test_tokens.py",),
    ),
    Bug(
        "the session of a token that was verified before is not checked",
        "servicekit/access/tokens.py",
        "        self._sessions.check(identity)\n",
        "",
        ("tests/servicekit/access/test_tokens.py",),
    ),
    Bug(
        "a large answer does not count until it is read",
        "servicekit/rpc/answers.py",
        "if len(data) <= LARGE_BYTES:",
        "if data is not None:",
        ("tests/servicekit/rpc/test_answers.py",),
    ),
    Bug(
        "the answer of a write is rejected after the write",
        "servicekit/rpc/answers.py",
        "if method.only_reads:",
        "if method is not None:",
        ("tests/servicekit/rpc/test_answers.py",),
    ),
    Bug(
        "large answers over REST follow each other as fast as over gRPC",
        "servicekit/rpc/answers.py",
        "is_json = ORIGINAL_PATH in call.metadata",
        "is_json = False",
        ("tests/servicekit/rpc/test_answers.py",),
    ),
    Bug(
        "the turns of a user's large answers end together",
        "servicekit/rpc/answers.py",
        "self._until.get(user_id, now) + _seconds",
        "now + _seconds",
        ("tests/servicekit/rpc/test_answers.py",),
    ),
    Bug(
        "the error of a rejected answer keeps the answer",
        "servicekit/rpc/answers.py",
        '                answer, data = None, b""\n',
        "",
        ("tests/servicekit/rpc/test_answers.py",),
    ),
    Bug(
        "the gateway keeps an unread answer",
        GATEWAY,
        "      stream_flush_timeout: 30s",
        "      # stream_flush_timeout: 30s",
        ("tests/gateway/test_connections.py",),
    ),
    Bug("a large upload over REST counts no more than small ones", UPLOADS, "{_LENGTH} * {_TIMES})%", "{_LENGTH})%", UPLOADS_TESTS),
    Bug("each access token has a limit on uploads of its own", GATEWAY, "{key: sub}]}", "{key: jti}]}", UPLOADS_TESTS),
    Bug("uploads without a length do not count", GATEWAY, "                  upload_limit.read: {{ enabled }}\n", "", UPLOADS_TESTS),
    Bug(
        "an upload without a length may be as large as any",
        GATEWAY,
        '{{ "" }}                  body_size_limit.undeclared: {{ enabled }}\n                  upload',
        '{{ "" }}                  upload',
        UPLOADS_TESTS,
    ),
    Bug(
        "the gateway stops reading at the exchange of an API token",
        UPLOADS,
        "CONNECTION_BYTES: Final = 64 ",
        "CONNECTION_BYTES: Final = 1024 ",
        UPLOADS_TESTS,
    ),
    Bug("a method without a body reads one", GATEWAY, '{{ "rest" if body else "bodiless" }}', "rest", UPLOADS_TESTS),
    Bug("a rejected upload is read", GATEWAY, "                  upload_limit.declared: {{ enabled }}\n", "", UPLOADS_TESTS),
    Bug(
        "large requests are not counted for their user",
        "servicekit/rpc/budget.py",
        "(taken and taken + size > self._user_bytes) or ",
        "",
        BUDGET_TESTS,
    ),
    Bug(
        "large requests run without the byte budget",
        PIPELINE,
        "                    if call.request_bytes > LARGE_BYTES:",
        "                    if False:",
        BUDGET_TESTS,
    ),
    Bug("any number of requests is received at once", "servicekit/rpc/receiving.py", "if self._free > 0:", "if True:", RECEIVING_TESTS),
    Bug(
        "grpc keeps as much of a request as its client sends",
        "servicekit/rpc/server.py",
        """                ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
                ("grpc.http2.bdp_probe", 0),
""",
        "",
        RECEIVING_TESTS,
    ),
    Bug(
        "an error keeps its large request in memory",
        PIPELINE,
        "                traceback.clear_frames(error.__traceback__)\n",
        "                pass\n",
        BUDGET_TESTS,
    ),
    Bug(
        "a large request keeps its bytes after its end",
        PIPELINE,
        "        call.at_end += (partial(self.budget.give_back, user_id, size),)\n",
        "",
        BUDGET_TESTS,
    ),
    Bug(
        "a call runs before its token is verified",
        PIPELINE,
        """                    if waiting is not None:
                        await waiting
                    data""",
        """                    if waiting is not None:
                        waiting.close()
                    data""",
        PIPELINE_TESTS,
    ),
    Bug(
        "over REST a method's own checks are skipped",
        "servicekit/rpc/admission.py",
        "        if check is not None and is_checked:\n",
        "        if check is not None and is_checked and ORIGINAL_PATH not in call.metadata:\n",
        ("tests/contract/test_differential.py",),
    ),
    Bug(
        "a method's own check has the name of no RPC",
        "task_service/tasks/checks.py",
        "def check_list_tasks(",
        "def check_lists_tasks(",
        ("tests/contract/test_checks.py",),
    ),
    Bug(
        "a request id is written to the log as it is",
        "servicekit/rpc/call_log.py",
        '"request_id":{_json(call.request_id)}',
        '"request_id":"{call.request_id}"',
        ("tests/servicekit/rpc/test_call_log.py",),
    ),
    Bug(
        "a histogram counts a value in the bucket below its own",
        "servicekit/meters.py",
        "bisect_left(self.bounds, value)",
        "bisect_left(self.bounds, value) - 1",
        ("tests/servicekit/test_meters.py",),
    ),
)
