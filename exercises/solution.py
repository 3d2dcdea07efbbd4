"""What stands in the tree: python -m exercises.solution gae; and of fault 3 the line."""
import sys

from exercises import copies, tasks
from nanorlhf import settings


def main():
    task = copies.find(sys.argv[1:])
    if isinstance(task, tasks.Exercise):
        source = (copies.ROOT / task.file).read_text(encoding="utf-8")
        print(copies.body_of(source, task.function))
    else:
        print(f"{task.file}, {task.function}: {task.wrong!r} must be {task.right!r}")


if __name__ == "__main__":
    settings.script(main)
