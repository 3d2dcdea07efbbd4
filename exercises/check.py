"""Is it right? python -m exercises.check gae; python -m exercises.check fault 3"""
import sys

from exercises import copies
from nanorlhf import settings


def main():
    task = copies.find(sys.argv[1:])
    status = copies.run_tests(task)
    print("\nDone. It does what it should." if status == 0 else
          "\nNot yet: above, E marks what came out against what should.")
    sys.exit(status)


if __name__ == "__main__":
    settings.script(main)
