"""A hint: python -m exercises.hint gae; python -m exercises.hint fault 3"""
import sys

from exercises import copies, tasks
from nanorlhf import settings


def main():
    task = copies.find(sys.argv[1:])
    if isinstance(task, tasks.Exercise):
        print(task.hint)
    else:
        print(f"In the curves: {task.symptom}. The file is {task.file}.")


if __name__ == "__main__":
    settings.script(main)
