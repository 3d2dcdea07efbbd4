"""Did the demo reach what it should on any machine?

At its best temperature each trained model must beat SFT cooled and SFT on tidy demonstrations, in
gold and in truth, tell the truth where labelers judged a common error, and not do so by silence.
Another machine adds floats in another order: these bounds leave room for that.
"""
import json
import os
import sys

with open(sys.argv[1], encoding="utf-8") as f:
    models = json.load(f)["models"]
best = {name: row["at_best"] for name, row in models.items()}
sft = models["sft"]["facts_by_temperature"]
checks = {"gold at temperature 1: base < sft": models["base"]["gold"] < models["sft"]["gold"]}
for temperature in ("0", "0.3", "0.5", "0.7"):
    facts = [sft[temperature][kind] for kind in ("judged", "unjudged")]
    told = sum(f[verdict] for f in facts for verdict in ("right", "error", "other"))
    checks[f"sft at {temperature}: at least 0.4 of the common errors are told as the error"] = (
        sum(f["error"] for f in facts) >= 0.4 * told)
for name in ("rejection", "ppo", "grpo", "dpo"):
    for other in ("sharpened", "tidy"):
        for what in ("gold", "truth"):
            gain = best[name][f"{what}_over_{other}"]
            checks[f"{name}: {what} over {other} sft >= 0.3"] = gain >= 0.3
    right = best[name]["right_of_told_judged"]
    checks[f"{name}: right of told, errors judged >= 0.8"] = right >= 0.8
    checks[f"{name}: told >= 0.65"] = best[name]["told"] >= 0.65
    checks[f"{name}: wins against sft at 1 >= 0.6"] = models[name]["win_rate_vs_sft"] >= 0.6
checks["best of 16 beats a random one of 16"] = (
    models["best_of_16"]["gold"] > models["random_of_16"]["gold"] + 0.5)
checks["rejection beats its random control"] = (
    best["rejection"]["gold"] > best["rejection_control"]["gold"] + 0.3)
with open(os.path.join(os.path.dirname(sys.argv[1]), "report.html"), encoding="utf-8") as f:
    report = f.read()
checks["the report has every stage and asks for nothing"] = (
    all(f'<section id="{part}">' in report for part in ("base", "sft", "rm", "ppo", "grpo", "dpo",
                                                        "results", "answers", "anatomy"))
    and len(report) < 3e6 and "<script" not in report)
for what, ok in checks.items():
    print("ok  " if ok else "FAIL", what)
print(f"{sum(checks.values())} passed, {len(checks) - sum(checks.values())} failed")
sys.exit(not all(checks.values()))
