"""<run>/report.html: what a run did, stage by stage, and what came of it, in one page.

    python -m tools.report out/towns

It is made of the run's own files (config.json, log.jsonl, report.json, best_of_n.json,
results.json), so a run that was interrupted, or has one stage, gets a report of what is there. The
page asks for nothing from the network. make demo ends with it.
"""
import argparse
import html
import math
import os

from nanorlhf import InputError, figures, settings
from nanorlhf.checkpoints import write_atomically
from nanorlhf.preference_losses import REFERENCE_FREE
from tools import anatomy, doctor
from tools.run_files import read_json, read_stages

# {kind: (what it was to do, what to look for)}
KINDS = {
    "pretraining": ("The base model reads pages of the world, one token after the other. "
                    "Here it learns what it will ever know.",
                    "The loss falls all the way. Recall and knows come first; judged, the telling "
                    "of true from false, comes late and is what a reward model will need."),
    "instruction tuning": ("SFT imitates people's answers, with their filler "
                           "and their errors. The loss counts the answer's tokens alone.",
                           "The loss falls within the first steps. It stays well above 0: people "
                           "answer in many ways."),
    "reward model": ("It learns which of two answers people prefer. Bradley-Terry: the "
                     "difference of two scores is the log-odds of the preference.",
                     "The loss starts near ln 2 = 0.69. Accuracy on held-out pairs should be far "
                     "above one half, and cannot pass the ceiling that the labels' noise sets."),
    "outcome or process reward model": ("It says at every token whether the answer, "
                                        "or at the end of a step whether the step, is right.",
                                        "Accuracy must pass what one answer for all would reach."),
    "rejection sampling": ("SFT answers each prompt many times, and is trained on "
                           "the answers that the reward model likes best.",
                           "Proxy is what the reward model says, gold the truth. Where proxy goes "
                           "on and gold stops, more choice no longer helps."),
    "PPO": ("The policy answers, is scored, and moves towards what scored better than "
            "the critic expected. Beta is the price of a nat away from SFT.",
            "Score and gold should rise together while KL stays a few nats. A score that rises "
            "while gold falls is over-optimization."),
    "GRPO": ("The same without a critic: an answer is measured against the others to "
             "the same prompt.",
             "Score and gold should rise together. flat is the share of prompts whose answers all "
             "scored the same, and teach nothing."),
    "DPO": ("Straight from the pairs: the policy's log-ratios to the reference are the "
            "reward. No answer is sampled and no reward model is asked.",
            "The margin rises. Chosen and rejected log-ratios often both fall: it is their "
            "difference that is trained."),
    "online DPO": ("The same losses, on pairs that the policy samples and a judge labels "
                   "as training goes on.",
                   "The margin rises from 0 while the pairs themselves get better."),
    "distillation": ("The student learns a teacher's distribution of every next token, on answers "
                     "of its own or of the teacher's.",
                     "KL to the teacher falls, and gold comes near the teacher's. The loss of "
                     "--gradient reinforce is no distance: only its gradient counts."),
}
# {kind: panels}, a panel being (title, name of y, {column: its name})
PANELS = {
    "pretraining": [("Loss", "nats a token", {"loss": "loss"}),
                    ("What it knows", "share", {"recall": "recall", "knows": "knows",
                                                "says": "says the common error",
                                                "judged": "judged", "solved": "solved",
                                                "first": "first"})],
    "instruction tuning": [("Loss", "nats a token", {"loss": "in training",
                                                     "held_out": "held out"})],
    "reward model": [("Loss", "nats a pair", {"loss": "loss"}),
                     ("Accuracy in training", "share of pairs", {"accuracy": "accuracy"})],
    "outcome or process reward model": [("Loss", "nats a token", {"loss": "loss"}),
                                        ("Accuracy", "share of tokens", {"accuracy": "accuracy"})],
    "rejection sampling": [("Loss", "nats a token", {"loss": "loss"})],
    "PPO": [("Score and gold", "an answer", {"score": "score (reward model)", "gold": "gold"}),
            ("KL to SFT", "nats an answer", {"kl": "kl"}),
            ("Entropy", "nats a token", {"entropy": "entropy"})],
    "DPO": [("Loss", "nats a pair", {"loss": "loss"}),
            ("Chosen and rejected", "log-ratio, nats an answer", {"chosen": "chosen",
                                                                  "rejected": "rejected"}),
            ("Margin", "reward", {"margin": "margin"})],
    "distillation": [("Loss", "nats an answer", {"loss": "loss"}),
                     ("KL to the teacher", "nats an answer", {"kl": "kl"}),
                     ("Gold of the student", "an answer", {"gold": "gold"})],
}
PANELS["GRPO"], PANELS["online DPO"] = PANELS["PPO"], PANELS["DPO"]
COMPARED = ("PPO", "GRPO")      # the limits of their panels are the same


# ---- a stage ----

def limits(stages, keys):
    """(low, high) of these columns over all stages whose panels are compared."""
    values = [v for s in stages if s.kind in COMPARED for key in keys if key in s.log
              for v in s.log[key] if not math.isnan(v)]
    if not values:
        return None
    room = 0.05 * (max(values) - min(values) or 1)
    return min(values) - room, max(values) + room


def pictures(stage, stages):
    """The stage's learning curves -> [svg]"""
    made = []
    for title, y_name, columns in PANELS[stage.kind]:
        lines = {name: (stage.log["step"], stage.log[key]) for key, name in columns.items()
                 if key in stage.log}
        if not lines:
            continue
        if "gold" in columns and "gold" not in lines:
            title = "Score"
        if "chosen" in columns and stage.config.get("loss") in REFERENCE_FREE:
            y_name = "log-prob, nats an answer"
        level = None
        if stage.kind == "reward model" and "accuracy" in columns:
            ceiling = stage.report.get("noise_ceiling")
            level = (ceiling, "the labels' ceiling") if ceiling else (0.5, "a guess")
        shared = limits(stages, columns) if stage.kind in COMPARED else None
        made.append(figures.curves(title, y_name, lines, shared, level))
    if stage.curve:
        n = [row["n"] for row in stage.curve]
        known = {key: (n, [row[key] for row in stage.curve]) for key in ("proxy", "gold")
                 if stage.curve[0].get(key) is not None}
        made.append(figures.curves("Best of N", "an answer", known, x_name="N"))
    return made


def figure_row(stage):
    """A few figures of a stage in words."""
    said = []
    report = stage.report
    if "accuracy" in report:
        said.append(f"Held-out accuracy {report['accuracy']:.1%} of {report['pairs']} pairs")
        if report.get("noise_ceiling"):
            said[-1] += f"; the labels' noise allows {report['noise_ceiling']:.1%}"
        said[-1] += f"; preferring the longer answer reaches {report['longer_wins']:.1%}."
    if "judged_accuracy" in report:
        said.append(f"Held-out accuracy {report['judged_accuracy']:.1%} of {report['judged']} "
                    f"verdicts; one answer for all reaches {report['one_answer_for_all']:.1%}.")
    steps = int(stage.log["step"][-1]) if len(stage.log.get("step", ())) else 0
    took = "" if stage.ended else ", not finished"
    if stage.seconds >= 1:
        took += f", {stage.seconds:.0f} s"
    return " ".join([f"{steps} steps{took}.", *said])


def strip(run, answers=3):
    """Some answers of PPO's next step, each token coloured by its advantage -> html; "" where the
    run has no small PPO to take a step with."""
    state = f"{run}/ppo/state.pt"
    if not os.path.exists(state) or os.path.getsize(state) > 200e6:
        return ""
    try:
        step = anatomy.next_step(run)
    except InputError:          # what it was trained from is not there any more
        return ""
    rows = []
    for row in range(min(answers, len(step.ids))):
        table = dict(anatomy.columns_of(step, row))
        prompt = step.tokenizer.decode(step.ids[row, :int(table["t"][0])].tolist())
        tokens = []
        for i, text in enumerate(table["text"]):
            white = float(table["white A_t"][i])
            colour, much = "var(--good)" if white > 0 else "var(--bad)", min(1, abs(white) / 3)
            said = ", ".join(f"{name} {table[name][i]}" for name in
                             ("logp", "k1", "r_t", "V_t", "delta_t", "A_t", "R_t"))
            tokens.append(f'<span title="{html.escape(said)}" style="background: '
                          f'color-mix(in srgb, {colour} {much:.0%}, transparent)">'
                          f"{html.escape(text)}</span>")
        rows.append(f"<tr><th>score {step.scores[row]:.2f}</th><td>{html.escape(prompt)}<br>"
                    f"{''.join(tokens)}</td></tr>")
    return f"""<section id="anatomy"><h2>One grade, credit for every token</h2>
<p>Answers of PPO's next step. Green tokens are made likelier, red ones less likely. What each is
worth follows from the one score of its answer, the price of the KL, and what the critic expected.
docs/TUTORIAL.md goes through one; <code>python -m tools.anatomy {html.escape(run)}</code> has the
numbers.</p><table>{"".join(rows)}</table></section>"""


def doctors_word(stage, stages):
    found = doctor.examine(stage, stages)
    said = [f"{f.illness}: {f.seen}. Usually: {f.means}. Turn: {f.turn}." for f in found]
    said += [doctor.note(stage)] if doctor.note(stage) else []
    return " ".join(said or ["nothing found."])


def section(stage, stages):
    aim, look = KINDS[stage.kind]
    settings_said = "\n".join(f"{name} = {value!r}" for name, value in stage.config.items())
    return f"""<section id="{html.escape(stage.name)}">
<h2>{html.escape(stage.kind)} <code>{html.escape(stage.name)}</code></h2>
<p>{html.escape(aim)}</p>
<div class="panels">{"".join(pictures(stage, stages))}</div>
<p><b>What to look for.</b> {html.escape(look)}</p>
<p>{html.escape(figure_row(stage))}</p>
<p><b>The doctor</b> (<code>tools.doctor</code>): {html.escape(doctors_word(stage, stages))}</p>
<details><summary>settings</summary><pre>{html.escape(settings_said)}</pre></details>
</section>"""


# ---- what came of it ----

def outcome(results, stages):
    """The table as pictures -> html"""
    models = results.get("models", {})
    if not models:
        return ""
    made, said = [], ""
    first = next(iter(models.values()))
    if "gold" in first:
        made.append(figures.dots("Gold at temperature 1", "gold of an answer", {
            name: (row["gold"], row.get("gold_ci95")) for name, row in models.items()}))
        best = {name: (row["at_best"]["gold"], row["at_best"].get("gold_ci95"))
                for name, row in models.items() if row.get("at_best")}
        if best:
            made.append(figures.dots("Gold at each model's best temperature", "gold of an answer",
                                     best))
        lines = {}
        for name, row in models.items():
            along = row.get("gold_by_temperature", {})
            if len(along) > 1:
                lines[name] = ([float(t) for t in along], list(along.values()))
        if lines:
            made.append(figures.curves("Gold against temperature", "gold of an answer", lines,
                                       x_name="sampling temperature"))
        y_name, y = "gold of an answer", "gold"
        said = ("Gold is the true worth of an answer, which no training sees. Cooling an imitator "
                "is free, so a gain counts where it passes SFT at its best temperature.")
    elif "greedy" in first:
        for title, key in (("The likeliest answer is right", "greedy"),
                           ("Answers at temperature 1 are right", "accuracy"),
                           ("One of eight is right", "pass@8"),
                           ("The most frequent of eight is right", "majority@8")):
            if key in first:
                made.append(figures.dots(title, "share of questions", {
                    name: (row[key], row.get(f"{key}_ci95")) for name, row in models.items()}))
        y_name, y = "share right at temperature 1", "accuracy"
    else:
        made.append(figures.dots("Proxy", "the reward model's score", {
            name: (row["proxy"], row.get("proxy_ci95")) for name, row in models.items()}))
        made.append(figures.dots("Wins against SFT, by the reward model", "share", {
            name: (row["win_rate_vs_sft"], row.get("win_rate_ci95"))
            for name, row in models.items()}))
        y_name, y = "the reward model's score", "proxy"
        said = "The proxy flatters models that were trained on it."
    points = {name: (row["kl_to_sft"], row[y]) for name, row in models.items()
              if row.get("kl_to_sft") is not None and row.get(y) is not None}
    paths = {s.name: (s.log["kl"], figures.smooth(s.log["gold"], max(1, len(s.log["gold"]) // 10)))
             for s in stages if s.kind in COMPARED and "gold" in s.log and y == "gold"}
    if points:
        made.append(figures.plane("What a nat away from SFT buys", "KL to SFT, nats an answer",
                                  y_name, points, paths))
    return f"""<section id="results"><h2>What came of it</h2>
<p>{html.escape(said)}</p>
<div class="panels">{"".join(made)}</div></section>"""


def answer(text, parts):
    """An answer with each stretch coloured by what it earned -> html"""
    made, end = "", 0
    for start, stop, part in parts:
        made += html.escape(text[end:start])
        made += (f'<span class="{html.escape(part)}" '
                 f'title="{html.escape(part)}">{html.escape(text[start:stop])}</span>')
        end = stop
    return made + html.escape(text[end:])


def questions(results):
    """The same questions answered by every model -> html"""
    shown = results.get("samples_shown", [])
    if not shown:
        return ""
    blocks = []
    for sample in shown:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{answer(said['text'], said['parts'])}"
            f"<br><small>{html.escape(said['explained'])}</small></td></tr>"
            for name, said in sample["answers"].items())
        blocks.append(f"<h3>{html.escape(sample['question'])}</h3><table>{rows}</table>")
    kinds = {part for sample in shown for said in sample["answers"].values()
             for _, _, part in said["parts"]}
    key = " ".join(f'<span class="{html.escape(k)}">{html.escape(k)}</span>'
                   for k in sorted(kinds))
    return f"""<section id="answers"><h2>The same questions, answered by every model</h2>
<p>{key}</p>{"".join(blocks)}</section>"""


STYLE = """
:root { --ink: #333333; --grid: #dddddd; --paper: #ffffff; --soft: #f4f4f4;
  --good: #d5f0e2; --bad: #fbd9c8; --idle: #fdeec6; --polite: #d8eaf7; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --soft: #22252a; --good: #1d4a37;
  --bad: #6b2f17; --idle: #57431a; --polite: #1d4260; OF_FIGURES} }
@media print { :root { --paper: #ffffff; --ink: #000000; } section { break-inside: avoid; } }
body { background: var(--paper); color: var(--ink); margin: 0 auto; max-width: 62rem;
  padding: 1rem; font: 16px/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.25; } h2 { margin-top: 2.5rem; }
code, pre { font: 0.85em ui-monospace, monospace; background: var(--soft); padding: 0.1em 0.3em; }
pre { overflow-x: auto; padding: 0.6em; }
a { color: inherit; } nav a { margin-right: 0.8em; white-space: nowrap; }
.panels { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); align-items: start; }
.panels svg { width: 100%; max-width: 30rem; height: auto; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; vertical-align: top;
  padding: 0.4em 0.8em 0.4em 0; font-weight: normal; white-space: nowrap; }
td { padding: 0.4em 0; border-bottom: 1px solid var(--grid); overflow-wrap: anywhere; }
th { border-bottom: 1px solid var(--grid); } small { opacity: 0.75; }
.right, .correct { background: var(--good); } .wrong { background: var(--bad); }
.rambling, .boilerplate { background: var(--idle); } .manners { background: var(--polite); }
@media (max-width: 40rem) { th, td { display: block; border: 0; padding: 0.1em 0; }
  td { border-bottom: 1px solid var(--grid); } th { font-weight: bold; } }
""".replace("OF_FIGURES", figures.DARK)


def page(run):
    """-> the report's html"""
    stages, results = read_stages(run), read_json(f"{run}/results.json", {})
    if not stages and not results:
        raise InputError(f"{run}: no stage has left a log there; give a run's folder, such as "
                         "out/towns")
    links = [(s.name, s.name) for s in stages]
    if results:
        links += [("results", "what came of it"), ("answers", "answers")]
    nav = " ".join(f'<a href="#{html.escape(to)}">{html.escape(name)}</a>'
                  for to, name in links)
    title = html.escape(os.path.basename(os.path.normpath(run)))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: report</title><style>{STYLE}</style></head><body>
<h1>{title}: what the run did</h1>
<nav>{nav}</nav>
{"".join(section(stage, stages) for stage in stages)}
{outcome(results, stages)}
{questions(results)}
{strip(run)}
</body></html>
"""


def write(run):
    """Write <run>/report.html -> its path"""
    run = os.fspath(run)
    path, text = os.path.join(run, "report.html"), page(run)
    write_atomically(path, lambda f: f.write(text))
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the run's folder, such as out/towns")
    print(f"wrote {write(parser.parse_args().run)}")


if __name__ == "__main__":
    settings.script(main)
