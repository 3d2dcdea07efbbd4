"""bench.py's rows beside the same steps of TRL's trainers: same sizes, random weights, batches and
token counts, on a CPU.

In an environment that has nanorlhf's own requirements, from the repository's root:

    pip install trl==1.16.0 transformers==5.24.0 accelerate==1.15.0 datasets==5.2.0
    python -m tools.beside_trl          SFT, RM and DPO: a table, and beside_trl.json

TRL 1.12 is the last with a PPOTrainer, and on a CPU its SFT and DPO are faster than 1.16's. It
goes beside the other, and in front of it:

    pip install --no-deps --target out/trl-1.12 trl==1.12.0
    PYTHONPATH=out/trl-1.12 python -m tools.beside_trl --out beside_trl_1.12.json       PPO too

tokens/s   as bench.py counts: prompts and answers, once each. The median over --repeats steps
           after one that is not counted, and of those the median over --rounds; ours and TRL's
           alternate, each in a process of its own
ratio      ours over TRL's
peak       memory of the process beyond what imports took
whole      memory of the process

TRL runs without what we don't do either: bf16 and gradient checkpointing, which are its defaults,
GPT-2's dropout, logs, evaluations, checkpoints, progress bars; and with torch's GELU, as ours,
where GPT-2's own config asks for the same function written out in Python.
--defaults leaves it these three (bf16, checkpointing, GELU): TRL as it comes. Rows are as long as
each other, so nothing is padded, and DPO's reference log-probs are there already. A step is what
lies between the trainer's on_step_begin and on_step_end; collating the batch does not, as bench.py
makes its batch once. PPOTrainer has only the latter, so there it is from end to end. It always
answers in full, where ours stop at an end token, which random weights seldom say; it does not clip
gradients. What a trainer does in its step and can't be told not to (SFT's entropy and accuracy,
everyone's statistics) is in its time.
"""
import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import random
import statistics
import tempfile
import time
import warnings

import torch

from nanorlhf import InputError, checkpoints, settings
from tools import bench

ROWS = {"towns": ("sft", "rm", "dpo", "ppo"), "gpt2": ("sft", "dpo")}


def texts(size, count):
    """(tokenizer, count pairs of a prompt and two answers): a word is a token, and an answer lacks
    the end token, which TRL adds."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    cfg, _, prompt, answer, _ = bench.SIZES[size]
    words = ["<end>", "<pad>", "<unk>"] + [f"w{i}" for i in range(3, cfg.vocab_size)]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    draw = random.Random(0)
    say = lambda length: " ".join(draw.choices(words[3:], k=length))
    return (
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>", unk_token="<unk>"
        ),
        [(say(prompt), " " + say(answer - 1), " " + say(answer - 1)) for _ in range(count)],
    )


def trainer_of(size, kind, repeats, folder, clock, defaults):
    """(TRL's trainer of this kind with one batch of data, the tokens of that batch, the tokens that
    a step is counted as)."""
    import trl
    from datasets import Dataset
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel
    cfg, rows, prompt, answer, rollouts = bench.SIZES[size]
    tokenizer, data = texts(
        size, rollouts if kind == "ppo" else rows if kind == "sft" else rows // 2
    )
    config = GPT2Config(
        vocab_size=cfg.vocab_size,
        n_positions=cfg.block_size,
        n_layer=cfg.n_layer,
        n_head=cfg.n_head,
        n_embd=cfg.n_embd,
        activation_function="gelu_new" if defaults else "gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        num_labels=1,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    common = dict(
        output_dir=folder,
        per_device_train_batch_size=len(data),
        max_steps=repeats + 1,
        learning_rate=1e-5,
        use_cpu=True,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **({} if defaults else {"bf16": False, "gradient_checkpointing": False}),
    )
    plain = dict(processing_class=tokenizer, callbacks=[clock])
    if kind == "sft":
        data = Dataset.from_list([{"prompt": p, "completion": a} for p, a, _ in data])
        trainer = trl.SFTTrainer(
            GPT2LMHeadModel(config), args=trl.SFTConfig(**common), train_dataset=data, **plain
        )
    elif kind == "ppo":
        from trl.experimental.ppo import PPOConfig, PPOTrainer
        data = Dataset.from_list([{"input_ids": tokenizer(p)["input_ids"]} for p, _, _ in data])
        # 64 rows "per device" and no accumulation: two minibatches of 32, each followed by an
        # update
        args = PPOConfig(
            **common,
            total_episodes=rollouts * (repeats + 1),
            num_ppo_epochs=2,
            num_mini_batches=2,
            response_length=answer,
            local_rollout_forward_batch_size=rollouts,
            num_sample_generations=0,
            temperature=1.0,
            kl_coef=0.1,
        )
        policy, ref = GPT2LMHeadModel(config), GPT2LMHeadModel(config)
        reward_model, critic = (
            GPT2ForSequenceClassification(config),
            GPT2ForSequenceClassification(config),
        )
        trainer = PPOTrainer(
            args,
            model=policy,
            ref_model=ref,
            reward_model=reward_model,
            value_model=critic,
            train_dataset=data,
            eval_dataset=data,
            **plain,
        )
        return trainer, rollouts * prompt, rollouts * (prompt + answer)
    else:
        data = Dataset.from_list([{"prompt": p, "chosen": a, "rejected": b} for p, a, b in data])
        if kind == "rm":
            trainer = trl.RewardTrainer(
                GPT2ForSequenceClassification(config),
                args=trl.RewardConfig(**common),
                train_dataset=data,
                **plain,
            )
        else:
            args = trl.DPOConfig(**common, precompute_ref_log_probs=True)
            trainer = trl.DPOTrainer(
                GPT2LMHeadModel(config), args=args, train_dataset=data, **plain
            )
    return trainer, rows * (prompt + answer), rows * (prompt + answer)


def ours(size, kind, repeats):
    """bench.py's row, less its share of the machine, and the memory of the whole process."""
    row = bench.measure(size, kind, "cpu", repeats, rate=1.0)
    return {key: row[key] for key in ("seconds", "tokens_per_second", "peak_mb")} | {
        "whole_mb": bench.memory(torch.device("cpu"))
    }


def theirs(size, kind, repeats, defaults):
    """TRL's row, a dict like that of ours."""
    # read on import
    os.environ.update(
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        TQDM_DISABLE="1",
        TRL_EXPERIMENTAL_SILENCE="1",
    )
    warnings.simplefilter("ignore", FutureWarning)
    import datasets
    import transformers
    import trl
    from transformers.trainer_callback import PrinterCallback
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()

    class Clock(transformers.TrainerCallback):
        """Seconds of each step."""
        def __init__(self):
            self.times = []

        def on_train_begin(self, *args, **kwargs):
            self.start = time.perf_counter()
        on_step_begin = on_train_begin

        def on_step_end(self, *args, **kwargs):
            now = time.perf_counter()
            self.times.append(now - self.start)
            self.start = now

    # These packages import a name when it is asked for: asked for here, it counts as an import.
    # torch._dynamo as for ours
    assert all(
        (
            trl.SFTTrainer,
            trl.RewardTrainer,
            trl.DPOTrainer,
            transformers.GPT2LMHeadModel,
            transformers.GPT2ForSequenceClassification,
        )
    )
    importlib.import_module("torch._dynamo")
    device, clock = torch.device("cpu"), Clock()
    before = bench.memory(device)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer, expected, tokens = trainer_of(size, kind, repeats, folder, clock, defaults)
        trainer.remove_callback(PrinterCallback)
        ids = next(iter(trainer.get_train_dataloader()))["input_ids"]
        assert ids.numel() == expected, (
            f"a batch of {ids.numel()} tokens instead of {expected}: not a fair comparison"
        )
        trainer.train()
    assert len(clock.times) == repeats + 1
    median, whole = statistics.median(clock.times[1:]), bench.memory(device)
    return {
        "seconds": median,
        "tokens_per_second": tokens / median,
        "peak_mb": whole - before,
        "whole_mb": whole,
        "trl": trl.__version__,
        "transformers": transformers.__version__,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--sizes", nargs="+", choices=ROWS, default=list(ROWS), help="model sizes (default: all)"
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=ROWS["towns"],
        help="kinds of steps (default: all this TRL has; gpt2 has sft, dpo)",
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="steps measured, after one that is not (default: 5)"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="processes of either for a row (default: 3)"
    )
    parser.add_argument(
        "--defaults",
        action="store_true",
        help="TRL as it comes: bf16, gradient checkpointing, GPT-2's own GELU",
    )
    parser.add_argument(
        "--out", default="beside_trl.json", help="file for the figures (default: beside_trl.json)"
    )
    args = parser.parse_args()
    # without importing it: a child's peak starts from what this process took
    found = importlib.util.find_spec("trl")
    if not found:
        raise InputError(
            "TRL is not installed here; see the top of tools/beside_trl.py for what to install"
        )
    has_ppo = os.path.isdir(
        os.path.join(found.submodule_search_locations[0], "experimental", "ppo")
    )
    if "ppo" in (args.kinds or ()) and not has_ppo:
        raise InputError(
            "this TRL has no PPOTrainer; see the top of tools/beside_trl.py for how to run the "
            "last one that has"
        )
    version = importlib.metadata.version("trl")
    print(
        f"cpu, {torch.get_num_threads()} threads, torch {torch.__version__}, trl "
        f"{version}{' as it comes' if args.defaults else ''}; medians of {args.repeats} steps, "
        f"{args.rounds} rounds"
    )
    print(f"{'':14}{'tokens/s':>18}{'':8}{'peak MB':>15}{'whole MB':>16}")
    print(
        f"{'size':8}{'step':6}{'ours':>9}{'TRL':>9}{'ratio':>8}"
        f"{'ours':>8}{'TRL':>7}{'ours':>9}{'TRL':>7}"
    )
    rows = []
    for size in args.sizes:
        for kind in ROWS[size]:
            if kind not in (args.kinds or ROWS[size]) or kind == "ppo" and not has_ppo:
                continue
            measured = {ours: [], theirs: []}
            for _ in range(args.rounds):
                for measure, results in measured.items():
                    results.append(
                        bench.alone(
                            measure,
                            size,
                            kind,
                            args.repeats,
                            *([args.defaults] if measure is theirs else []),
                        )
                    )
            keys = ("tokens_per_second", "peak_mb", "whole_mb")
            speed, peak, whole = (
                [statistics.median(r[key] for r in results) for results in measured.values()]
                for key in keys
            )
            ratio = speed[0] / speed[1]
            rows.append(
                {
                    "size": size,
                    "kind": kind,
                    "ratio": ratio,
                    "ours": measured[ours],
                    "trl": measured[theirs],
                }
            )
            print(
                f"{size:8}{kind:6}{speed[0]:9,.0f}{speed[1]:9,.0f}{ratio:8.2f}"
                f"{peak[0]:8,.0f}{peak[1]:7,.0f}{whole[0]:9,.0f}{whole[1]:7,.0f}",
                flush=True,
            )
    checkpoints.write_atomically(args.out, lambda f: json.dump(rows, f, indent=1))


if __name__ == "__main__":
    settings.script(main)
