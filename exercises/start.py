"""Begin an exercise, in a copy of the tree.

    python -m exercises.start               the list
    python -m exercises.start gae           write the body of a function
    python -m exercises.start fault 3       find the line that is wrong
"""
import sys

from exercises import copies, tasks
from nanorlhf import settings


def say_all():
    for exercise in tasks.EXERCISES:
        print(f"  {exercise.name:18} chapter {exercise.chapter:>2}, {exercise.minutes} minutes: "
              f"{exercise.task}")
    print(f"  fault 1 to {len(tasks.FAULTS)}: find the line that is wrong")


def main():
    if not sys.argv[1:]:
        say_all()
        return
    task = copies.find(sys.argv[1:])
    file = copies.make(task)
    words = " ".join(sys.argv[1:])
    if isinstance(task, tasks.Exercise):
        print(f"{task.task}\n\nWrite the body of {task.function} in\n    {file}\n\nIt is done when "
              f"this passes:\n    python -m exercises.check {words}\n\nIts tests:")
        for test in task.tests:
            print(f"    tests/{test}")
    else:
        print(f"One line of {copies.folder(task)} is wrong. It shows in a minute of training, on a "
              f"copy of the demo's run:\n\n    cd {copies.folder(task)}\n    cp -r "
              f"{copies.ROOT}/out/towns out-towns\n    {task.command.format(run='out-towns')}\n"
              "    python -m tools.doctor out-towns/fault\n\nFind the line and put it right. "
              f"Then:\n    python -m exercises.check {words}")
    print(f"\nA hint: python -m exercises.hint {words}. What stands here: python -m "
          f"exercises.solution {words}.")


if __name__ == "__main__":
    settings.script(main)
