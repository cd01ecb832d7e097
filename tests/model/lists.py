"""A model of projects, subtasks and their order in memory, written from the contract. It uses no code of the service.

The model takes ids from the server's answers. It does not know positions: it keeps the order of each list, and where an undeletion brings a task back
into a list, it forgets that list's order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

MAX_LEVELS = 5
OK = ""


@dataclass(slots=True)
class Project:
    """A project. `is_binned`: it is in the bin."""

    is_archived: bool = False
    is_binned: bool = False


@dataclass(slots=True)
class Task:
    """A task. `taken_by` is what took it to the bin, if it did not go alone."""

    project: str = ""
    parent: str = ""
    is_binned: bool = False
    taken_by: str = ""


@dataclass(slots=True)
class Lists:
    """The lists of one user. Each method of a write returns the reason of its refusal, which changed nothing, or OK."""

    projects: dict[str, Project] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    # By project and parent: the tasks in their order, or None if the model does not know it.
    order: dict[tuple[str, str], list[str] | None] = field(default_factory=dict)

    def may_create(self, project: str, parent: str) -> str:
        """Whether a task can be created there."""
        if parent:
            return self._of_parent(parent, 1)
        return self._of_project(project)

    def created(self, task_id: str, project: str, parent: str) -> None:
        """A task was created."""
        self.tasks[task_id] = Task(self.tasks[parent].project if parent else project, parent)
        self._append(task_id)

    def move(self, task_id: str, project: str | None, parent: str | None, before: str, after: str) -> str:
        """MoveTask. None: as it is."""
        task = self.tasks.get(task_id)
        if task is None or task.is_binned:
            return "TASK_NOT_FOUND"
        new_parent = parent if parent is not None else ("" if project is not None else task.parent)
        new_project = project if project is not None else task.project
        is_elsewhere = new_parent != task.parent or new_project != task.project
        if is_elsewhere and new_parent and new_parent in (task_id, *self.below(task_id)):
            return "PARENT_CYCLE"
        if new_parent != task.parent and new_parent and (refused := self._of_parent(new_parent, 1 + self._levels(task_id), is_move=True)):
            return refused
        if new_parent:
            new_project = self.tasks[new_parent].project
        if new_project != task.project and (refused := self._of_project(new_project)):
            return refused
        sibling = self.tasks.get(before or after)
        if (before or after) and (
            sibling is None or sibling.is_binned or (before or after) == task_id or (sibling.project, sibling.parent) != (new_project, new_parent)
        ):
            return "SIBLING_NOT_FOUND"
        self._remove(task_id)
        task.project, task.parent = new_project, new_parent
        for each in self.below(task_id):
            self._retarget(each, new_project)
        self._insert(task_id, before, after)
        return OK

    def delete(self, task_id: str) -> str:
        """DeleteTask."""
        task = self.tasks.get(task_id)
        if task is None or task.is_binned:
            return "TASK_NOT_FOUND"
        for each in self.below(task_id):
            self._bin(each, task_id)
        self._bin(task_id, "")
        return OK

    def undelete(self, task_id: str) -> str:
        """UndeleteTask."""
        task = self.tasks.get(task_id)
        if task is None:
            return "TASK_NOT_FOUND"
        if not task.is_binned:
            return "TASK_NOT_DELETED"
        if task.parent and self.tasks[task.parent].is_binned:
            return "PARENT_DELETED"
        if not task.parent and task.project and self.projects[task.project].is_binned:
            return "PROJECT_DELETED"
        family = list(self._taken(task_id))
        if task.parent and self._depth(task.parent) + 1 + self._levels(task_id, taken_by=task_id) > MAX_LEVELS:
            return "TOO_DEEP"
        project = self.tasks[task.parent].project if task.parent else task.project
        for each in (task_id, *family):
            self._unbin(each, project)
        return OK

    def delete_project(self, project_id: str, *, force: bool) -> str:
        """DeleteProject."""
        project = self.projects.get(project_id)
        if project is None or project.is_binned:
            return "PROJECT_NOT_FOUND"
        tasks = [task_id for task_id, task in self.tasks.items() if task.project == project_id and not task.is_binned]
        if tasks and not force:
            return "PROJECT_NOT_EMPTY"
        for each in tasks:
            self._bin(each, project_id)
        project.is_binned = True
        return OK

    def undelete_project(self, project_id: str) -> str:
        """UndeleteProject."""
        project = self.projects.get(project_id)
        if project is None:
            return "PROJECT_NOT_FOUND"
        if not project.is_binned:
            return "PROJECT_NOT_DELETED"
        project.is_binned = False
        for task_id, task in self.tasks.items():
            if task.is_binned and task.taken_by == project_id:
                self._unbin(task_id, project_id)
        return OK

    def archive(self, project_id: str, *, is_archived: bool) -> str:
        """ArchiveProject and UnarchiveProject."""
        project = self.projects.get(project_id)
        if project is None or project.is_binned:
            return "PROJECT_NOT_FOUND"
        project.is_archived = is_archived
        return OK

    def below(self, task_id: str) -> Iterator[str]:
        """Yields the subtasks at all levels that are not in the bin."""
        for each, task in self.tasks.items():
            if task.parent == task_id and not task.is_binned:
                yield each
                yield from self.below(each)

    def seen(self) -> Mapping[str, tuple[str, str, bool]]:
        """Returns project, parent and whether it is in the bin, by task."""
        return {task_id: (task.project, task.parent, task.is_binned) for task_id, task in self.tasks.items()}

    def _of_project(self, project_id: str) -> str:
        if not project_id:
            return OK
        project = self.projects.get(project_id)
        if project is None or project.is_binned:
            return "PROJECT_NOT_FOUND"
        return "PROJECT_ARCHIVED" if project.is_archived else OK

    def _of_parent(self, parent: str, levels: int, *, is_move: bool = False) -> str:
        task = self.tasks.get(parent)
        if task is None or task.is_binned:
            return "PARENT_NOT_FOUND"
        if self._depth(parent) + levels > MAX_LEVELS:
            return "TOO_DEEP"
        return OK if is_move else self._of_project(task.project)

    def _depth(self, task_id: str) -> int:
        parent = self.tasks[task_id].parent
        return 1 + (self._depth(parent) if parent else 0)

    def _levels(self, task_id: str, taken_by: str = "") -> int:
        found = [
            each for each, task in self.tasks.items() if task.parent == task_id and (task.taken_by == taken_by if taken_by else not task.is_binned)
        ]
        return max((1 + self._levels(each, taken_by) for each in found), default=0)

    def _taken(self, task_id: str) -> Iterator[str]:
        return (each for each, task in self.tasks.items() if task.is_binned and task.taken_by == task_id)

    def _bin(self, task_id: str, taken_by: str) -> None:
        self._remove(task_id)
        self.tasks[task_id].is_binned, self.tasks[task_id].taken_by = True, taken_by

    def _unbin(self, task_id: str, project: str) -> None:
        task = self.tasks[task_id]
        task.is_binned, task.taken_by, task.project = False, "", project
        self.order[task.project, task.parent] = None

    def _retarget(self, task_id: str, project: str) -> None:
        task = self.tasks[task_id]
        if (task.project, task.parent) in self.order and project != task.project:
            self.order[project, task.parent] = self.order.pop((task.project, task.parent))
        task.project = project

    def _append(self, task_id: str) -> None:
        self._insert(task_id, "", "")

    def _insert(self, task_id: str, before: str, after: str) -> None:
        task = self.tasks[task_id]
        line = self.order.setdefault((task.project, task.parent), [])
        if line is not None:
            at = line.index(before) if before else line.index(after) + 1 if after else len(line)
            line.insert(at, task_id)

    def _remove(self, task_id: str) -> None:
        line = self.order.get((self.tasks[task_id].project, self.tasks[task_id].parent))
        if line is not None and task_id in line:
            line.remove(task_id)
