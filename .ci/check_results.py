"""Did the demo reach what it should on any machine? gold: base < sft < each trained further; win rates against sft at least 0.65.

Another machine adds floats in another order: figures move by a few hundredths, and these bounds leave room for that.
"""
import json
import sys

with open(sys.argv[1], encoding="utf-8") as f:
    models = json.load(f)["models"]
gold = {name: row["gold"] for name, row in models.items()}
checks = {"gold: base < sft": gold["base"] < gold["sft"]}
for name in ("rejection", "ppo", "grpo", "dpo"):
    checks[f"gold: sft < {name}"] = gold["sft"] < gold[name]
for name, least in (("best_of_16", 0.65), ("ppo", 0.65), ("dpo", 0.65), ("rejection", 0.6)):
    checks[f"win rate of {name} >= {least}"] = models[name]["win_rate_vs_sft"] >= least
for what, ok in checks.items():
    print("ok  " if ok else "FAIL", what)
print(f"{sum(checks.values())} passed, {len(checks) - sum(checks.values())} failed")
sys.exit(not all(checks.values()))
