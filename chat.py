"""Talk to one or more checkpoints side by side.

    python chat.py out/towns/sft out/towns/ppo      type a question; an empty line or Ctrl-D ends
    echo "Who is the mayor of Marlow?" | python chat.py out/towns/sft
    echo "347+285=" | python chat.py out/sums/sft out/sums/grpo

Each question stands alone: no memory of the last. A question of a made-up world also shows what
each answer is worth.
"""
import argparse
import sys

from nanorlhf import InputError, checkpoints, devices, seeds, settings, worlds
from nanorlhf.rollout import answer_texts, generate


def stream(model, tokenizer, question, max_new_tokens, temperature, generator):
    """Print the answer as it is written -> (text, finished)."""
    ids, shown = [], 0

    def on_token(_, new):
        nonlocal shown
        ids.extend(i for i in new if i != tokenizer.end)
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):             # the rest of a character is still to come
            print(text[shown:], end="", flush=True)
            shown = len(text)

    prompt = tokenizer.prompt(question)[-(model.cfg.block_size - max_new_tokens):]
    out = generate(model, [prompt], max_new_tokens, tokenizer.end, temperature, generator=generator,
                   pad=tokenizer.pad, on_token=on_token)
    finished = bool(out.finished[0])
    print("" if finished else " [cut off]")
    return answer_texts(out, tokenizer)[0], finished


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+",
                        help="folders of checkpoints, such as out/towns/sft")
    parser.add_argument("--temperature", type=float, default=0.7,
                        help="0 always takes the likeliest token (default: 0.7)")
    parser.add_argument("--max_new_tokens", type=int, default=64,
                        help="longest answer (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="of the answers (default: 0)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto",
                        help="auto takes a CUDA GPU where there is one")
    args = parser.parse_args()
    if args.temperature < 0:
        raise InputError(f"--temperature {args.temperature}: it must be 0 or more")
    device = devices.pick(args.device)
    models = [(path, *checkpoints.load_checkpoint(path, device)) for path in args.checkpoints]
    for path, model, _ in models:
        if not 0 < args.max_new_tokens < model.cfg.block_size:
            raise InputError(f"--max_new_tokens {args.max_new_tokens}: {path} has a block of "
                             f"{model.cfg.block_size} for prompt and answer")
    generators = [seeds.generator(args.seed, "chat", device) for _ in models]

    # None: a vocabulary of real text
    known = [worlds.of(tokenizer) if tokenizer.name in worlds.names() else None
             for _, _, tokenizer in models]
    if sys.stdin.isatty() and known[0]:
        print(f'Ask away, for example: {" / ".join(q.text for q in known[0].SHOWN)}')
    while True:
        try:
            question = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            break
        if not question:
            break
        for (path, model, tokenizer), world, generator in zip(models, known, generators,
                                                              strict=True):
            print(f"{path}: ", end="", flush=True)
            text, finished = stream(model, tokenizer, question, args.max_new_tokens,
                                    args.temperature, generator)
            if world and (asked := world.find(question)):
                print(f"    {world.explain(asked, text, finished)}")


if __name__ == "__main__":
    settings.script(main)
