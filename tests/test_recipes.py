"""The recipe for GPT-2 from its first command to its table, on weights that a test can make."""
import json
import os
import subprocess
import sys


from test_gpt2 import made_up, needs_gpt2, write
from test_scripts import ROOT, read_log


@needs_gpt2
def test_gpt2_hh_from_weights_to_table(tmp_path):
    """A flag that a script does not know, a stage that starts from the wrong one, a recipe that begins anew when it is called again."""
    weights = write(tmp_path / "gpt2", *made_up(50257, 1024, 0.02))

    def transcript(i, said):
        return f"\n\nHuman: What is {i}?\n\nAssistant: A number.\n\nHuman: And {i} and {i}?\n\nAssistant: {said}"

    for name, numbers in (("train", range(40)), ("test", range(40, 80))):
        rows = [{"chosen": transcript(i, f"It is {2 * i}."), "rejected": transcript(i, "Who knows?")} for i in numbers]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {"INIT": weights, "TRAIN": str(tmp_path / "train.jsonl"), "TEST": str(tmp_path / "test.jsonl"), "RUN": str(tmp_path / "hh"),
                "STEPS": "1", "ANSWER": "8", "GB": "12", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def recipe(**more):
        return subprocess.run(["bash", "runs/gpt2_hh.sh"], cwd=ROOT, env={**os.environ, **settings, **more}, text=True, capture_output=True, timeout=600)

    done = recipe()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads((tmp_path / "hh/results.json").read_text(encoding="utf-8"))
    assert set(results["models"]) == {"sft", "ppo", "dpo"} and results["pairs"] == results["prompts"] == 40
    logs = {stage: read_log(tmp_path / "hh" / stage) for stage in ("sft", "rm", "ppo", "dpo")}
    assert {stage: len(rows) for stage, rows in logs.items()} == dict.fromkeys(logs, 1)
    assert recipe(GB="16").stderr == "GB is 12, 24 or 80, the GPU's memory, not 16\n"
