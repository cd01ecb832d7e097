"""Arranges the tasks of a file as the API takes them: by levels of subtasks, each parent before its subtasks, within the limits of lists."""

from collections import Counter
from typing import Final

from task_manager_client.transfer.records import Content, TaskRecord
from task_manager_client.transfer.report import Report

LEVELS: Final = 5
CHILDREN: Final = 500


def by_levels(content: Content, report: Report) -> list[list[TaskRecord]]:
    """Returns the tasks of each level, those without a parent first, in the order of the file. Reports those that it moves elsewhere."""
    tasks = _by_key(content.tasks, report)
    projects = {project.key for project in content.projects}
    for task in tasks.values():
        if task.parent and task.parent not in tasks:
            report.note(task.place, task.title, "its parent is not in the file: it is no subtask now")
            task.parent = ""
        if task.project and task.project not in projects:
            report.note(task.place, task.title, "its project is not in the file: it is in the inbox now")
            task.project = ""
    levels = _levels(tasks, report)
    _limit_children(tasks, levels, report)
    arranged: list[list[TaskRecord]] = [[] for _ in range(LEVELS)]
    for key, task in tasks.items():
        arranged[levels[key]].append(task)
    for level in arranged[1:]:
        for task in level:
            _follow(task, tasks[task.parent], report)
    return [level for level in arranged if level]


def _by_key(tasks: list[TaskRecord], report: Report) -> dict[str, TaskRecord]:
    """Returns the tasks by their keys. A task without a key, or with the key of another one, gets one that no task names."""
    found: dict[str, TaskRecord] = {}
    for number, task in enumerate(tasks):
        if task.key in found:
            report.note(task.place, task.title, "another task has the same id: subtasks belong to the first of the two")
        if not task.key or task.key in found:
            task.key = f"\0{number}"
        found[task.key] = task
    return found


def _levels(tasks: dict[str, TaskRecord], report: Report) -> dict[str, int]:
    """Returns the level of each task, 0 at the top. Breaks cycles, and lifts what is too deep below the deepest parent that may have subtasks."""
    levels: dict[str, int] = {}
    for start in tasks:
        path: dict[str, TaskRecord] = {}
        key = start
        while key and key not in levels and key not in path:
            path[key] = tasks[key]
            key = tasks[key].parent
        if key in path:
            task = next(reversed(path.values()))
            report.note(task.place, task.title, "it is a subtask of its own subtask: it is no subtask now")
            task.parent = ""
        for each in reversed(path):
            _place(tasks, levels, each, report)
    return levels


def _place(tasks: dict[str, TaskRecord], levels: dict[str, int], key: str, report: Report) -> None:
    task = tasks[key]
    level = levels[task.parent] + 1 if task.parent else 0
    if level >= LEVELS:
        report.note(task.place, task.title, f"it is deeper than {LEVELS} levels: it is beside its parent now")
        while level >= LEVELS:
            task.parent = tasks[task.parent].parent
            level -= 1
    levels[key] = level


def _limit_children(tasks: dict[str, TaskRecord], levels: dict[str, int], report: Report) -> None:
    """Takes the subtasks beyond the limit out of their parent. They keep their own subtasks, one level higher."""
    counts: Counter[str] = Counter()
    lifted = set()
    for key, task in tasks.items():
        if not task.parent:
            continue
        counts[task.parent] += 1
        if counts[task.parent] > CHILDREN:
            report.note(task.place, task.title, f"its parent has more than {CHILDREN} subtasks: it is no subtask now")
            task.project, task.parent = tasks[_top(tasks, task.parent)].project, ""
            lifted.add(key)
    if lifted:
        for key, task in tasks.items():
            levels[key] = _depth(tasks, task)


def _top(tasks: dict[str, TaskRecord], key: str) -> str:
    while tasks[key].parent:
        key = tasks[key].parent
    return key


def _depth(tasks: dict[str, TaskRecord], task: TaskRecord) -> int:
    depth = 0
    while task.parent:
        task, depth = tasks[task.parent], depth + 1
    return depth


def _follow(task: TaskRecord, parent: TaskRecord, report: Report) -> None:
    """A subtask is in the project of its parent."""
    if task.project != parent.project and task.project:
        report.note(task.place, task.title, "it is in the project of its parent now, because it is a subtask")
    task.project = parent.project
