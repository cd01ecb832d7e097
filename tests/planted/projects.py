"""Bugs of projects: cascades, order, and their changes in the feed."""

from typing import Final

from tests.planted.bug import Bug

WRITE: Final = "task_service/migrations/0015_project_writes.sql"
CACHE: Final = "task_service/projects/cache.py"
SERVICE: Final = "task_service/projects/service.py"
FEED: Final = "task_service/feed/service.py"
CASCADES: Final = "tests/task_service/projects/test_cascades.py"
ORDER: Final = "tests/task_service/projects/test_order.py"
STREAMS: Final = "tests/task_service/feed/test_projects.py"

PROJECTS_BUGS: Final = (
    Bug(
        "a project takes its tasks to the bin without fences",
        CACHE,
        "        return await self._fences.write_fenced(actor.user_id, task_ids, write)\n",
        "        return await self._repository.write(actor, operation, idempotency)\n",
        (CASCADES, "-k", "no_reader"),
    ),
    Bug(
        "a project changes tasks that nobody has fenced",
        WRITE,
        """    v_ids := task.next_to_bin(p_user, p_op.id, CASE WHEN p_op.force THEN p_limit ELSE 1 END);
    IF v_ids <> '{}' AND p_op.force IS NOT TRUE THEN
        PERFORM task.refuse('TM022', 0);
    END IF;
    IF NOT v_ids <@ p_covered THEN""",
        """    v_ids := task.next_to_bin(p_user, p_op.id, CASE WHEN p_op.force THEN p_limit ELSE 1 END);
    IF v_ids <> '{}' AND p_op.force IS NOT TRUE THEN
        PERFORM task.refuse('TM022', 0);
    END IF;
    IF false THEN""",
        (CASCADES, "-k", "without_a_fence"),
    ),
    Bug(
        "a project goes to the bin before the last of its tasks",
        WRITE,
        "        o_more := EXISTS (SELECT FROM task.tasks WHERE user_id = p_user AND project_id = p_op.id AND deleted_at IS NULL);\n",
        "        o_more := cardinality(v_ids) = p_limit AND p_op.continues IS NOT TRUE;\n",
        (CASCADES, "-k", "go_first"),
    ),
    Bug(
        "a task goes to the bin before its subtasks",
        WRITE,
        "sub.deleted_at IS NULL AND sub.id <> ALL (v_ids))",
        "sub.deleted_at IS NULL AND false)",
        (CASCADES, "-k", "go_first"),
    ),
    Bug(
        "a project brings back tasks that were deleted before it",
        WRITE,
        "             WHERE t.user_id = p_user AND t.deleted_with = p_project AND t.id <> ALL (v_ids)\n",
        "             WHERE t.user_id = p_user AND t.project_id = p_project AND t.deleted_at IS NOT NULL AND t.id <> ALL (v_ids)\n",
        (CASCADES, "-k", "comes_back"),
    ),
    Bug(
        "a call that was cut off leaves its answer under the key",
        WRITE,
        "    IF p_key IS NOT NULL AND o_missing IS NULL AND NOT o_more THEN\n",
        "    IF p_key IS NOT NULL AND o_missing IS NULL THEN\n",
        (CASCADES, "-k", "continued"),
    ),
    Bug(
        "a repeated undeletion requires the new etag",
        WRITE,
        "(o_project.deleted_at IS NOT NULL OR o_project.version - 1 <> ALL (p_op.versions))",
        "true",
        (CASCADES, "-k", "undeletion_that_was_cut_off"),
    ),
    Bug(
        "the tasks of a deleted project are still counted",
        WRITE,
        "v_counts[v_task.status] := v_counts[v_task.status] - 1;",
        "v_counts[v_task.status] := v_counts[v_task.status];",
        (CASCADES, "-k", "numbers"),
    ),
    Bug(
        "a task comes back under a parent without room",
        WRITE,
        "    RETURN task.project_of_parent(p_user, v_parent, 1, 1, 0);\n",
        "    RETURN p_project;\n",
        (CASCADES, "-k", "without_room"),
    ),
    Bug("a cascade ends after its first write", SERVICE, "        while written.more:\n", "        while False:\n", (CASCADES, "-k", "go_first")),
    Bug(
        "projects in the bin count towards the limit",
        WRITE,
        "AND deleted_at IS NULL;\n    IF v_count >= 1000 THEN",
        ";\n    IF v_count >= 1000 THEN",
        ("tests/task_service/projects/test_repository.py", "-k", "thousand"),
    ),
    Bug(
        "a project moves next to a project in the bin",
        WRITE,
        "WHERE user_id = p_user AND id = v_sibling AND id <> p_op.id AND deleted_at IS NULL;",
        "WHERE user_id = p_user AND id = v_sibling AND id <> p_op.id;",
        (ORDER, "-k", "sibling"),
    ),
    Bug(
        "positions of projects grow without a limit",
        WRITE,
        "IF v_positions[1] IS NULL OR length(v_positions[1]) > 100 THEN",
        "IF v_positions[1] IS NULL THEN",
        (ORDER, "-k", "stay_short"),
    ),
    Bug(
        "a stream gets changes of projects that it did not ask for",
        FEED,
        "if show_projects or isinstance(change.subject, Task):",
        "if True:",
        (STREAMS, "-k", "passes"),
    ),
    Bug(
        "a stream does not pass the changes that it leaves out",
        FEED,
        """                        place = Place(place.epoch, change.seq)
                        page.sends(change)
""",
        """                        if show_projects or isinstance(change.subject, Task):
                            place = Place(place.epoch, change.seq)
                        page.sends(change)
""",
        (STREAMS, "-k", "passes"),
    ),
)
