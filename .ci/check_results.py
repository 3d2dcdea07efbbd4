"""Did the demo reach what it should on any machine? gold: base < sft < rejection, ppo, dpo; win rates against sft at least 0.65."""
import json
import sys

models = json.load(open(sys.argv[1], encoding="utf-8"))["models"]
gold = {name: row["gold"] for name, row in models.items()}
checks = {"gold: base < sft": gold["base"] < gold["sft"]}
for name in ("rejection", "ppo", "dpo"):
    checks[f"gold: sft < {name}"] = gold["sft"] < gold[name]
for name in ("best_of_16", "ppo", "dpo"):
    checks[f"win rate of {name} >= 0.65"] = models[name]["win_rate_vs_sft"] >= 0.65
for what, ok in checks.items():
    print("ok  " if ok else "FAIL", what)
print(f"{sum(checks.values())} passed, {len(checks) - sum(checks.values())} failed")
sys.exit(not all(checks.values()))
