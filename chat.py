"""Talk to one or more checkpoints side by side.

    python chat.py out/towns/sft out/towns/ppo      type a question; an empty line or Ctrl-D ends,
                                                    Ctrl-C stops an answer
    echo "Who is the mayor of Marlow?" | python chat.py out/towns/sft
    echo "347+285=" | python chat.py out/sums/sft out/sums/grpo

Each question stands alone: no memory of the last. A question of a made-up world also shows what
each answer is worth.
"""
import argparse
import contextlib
import sys

from nanorlhf import InputError, checkpoints, devices, seeds, settings, worlds
from nanorlhf.rollout import answer_texts, check_temperature, generate

with contextlib.suppress(ImportError):      # there is none on Windows
    import readline  # noqa: F401        arrow keys, for input()


def fitted(tokenizer, question, room):
    """Ids of a question that waits for its answer, of at most `room` tokens: what is cut off is
    the end of its text, never a marker."""
    prompt = tokenizer.prompt(question)
    if len(prompt) <= room:
        return prompt
    print(f"[the question takes {len(prompt)} tokens, of which the block holds {room} beside the "
          "answer: its end is cut off] ", end="")
    return [*prompt[:room - 1], tokenizer.assistant]


def stream(model, tokenizer, prompt, max_new_tokens, temperature, generator):
    """Print the answer as it is written -> (text, finished)."""
    ids, shown = [], 0

    def on_token(_, new):
        nonlocal shown
        ids.extend(i for i in new if i != tokenizer.end)
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):             # the rest of a character is still to come
            print(text[shown:], end="", flush=True)
            shown = len(text)

    out = generate(model, [prompt], max_new_tokens, tokenizer.end, temperature, generator=generator,
                   pad=tokenizer.pad, on_token=on_token)
    [text], finished = answer_texts(out, tokenizer), bool(out.finished[0])
    # a character that never came to its end is part of what is judged
    print(text[shown:] + ("" if finished else " [cut off]"))
    return text, finished


def questions():
    """What is typed, line by line: until an empty line where somebody sits there, until the end of
    a pipe."""
    typed = sys.stdin.isatty()
    while True:
        try:
            question = input("> " if typed else "").strip()
        except (EOFError, KeyboardInterrupt):
            if typed:
                print()
            return
        if question:
            yield question
        elif typed:
            return


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
    check_temperature(args.temperature)
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")     # a byte that is no text is typed, too
    device = devices.pick(args.device)
    models = [(path, *checkpoints.load_checkpoint(path, device)) for path in args.checkpoints]
    for path, model, _ in models:
        # the two markers and one token of a question
        if not 0 < args.max_new_tokens <= model.cfg.block_size - 3:
            raise InputError(f"--max_new_tokens {args.max_new_tokens}: {path} has a block of "
                             f"{model.cfg.block_size} for question and answer, of which a question "
                             "needs 3")
    generators = [seeds.generator(args.seed, "chat", device) for _ in models]

    # None: a vocabulary of real text
    known = [worlds.of(tokenizer) if tokenizer.name in worlds.names() else None
             for _, _, tokenizer in models]
    if sys.stdin.isatty() and known[0]:
        print(f'Ask away, for example: {" / ".join(q.text for q in known[0].SHOWN)}')
    for question in questions():
        try:
            for (path, model, tokenizer), world, generator in zip(models, known, generators,
                                                                  strict=True):
                print(f"{path}: ", end="", flush=True)
                prompt = fitted(tokenizer, question, model.cfg.block_size - args.max_new_tokens)
                text, finished = stream(model, tokenizer, prompt, args.max_new_tokens,
                                        args.temperature, generator)
                # what the model has read of it
                if world and (asked := world.find(tokenizer.decode(prompt[1:-1]))):
                    print(f"    {world.explain(asked, text, finished)}")
        except KeyboardInterrupt:
            print(" [stopped]")
            if not sys.stdin.isatty():
                return


if __name__ == "__main__":
    settings.script(main)
