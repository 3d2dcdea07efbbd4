"""Pretraining: where the knowledge comes from. Next-token prediction on the pages of the made-up world.

    minimise  - mean_t log p(x_t | x_<t)            over all tokens of all pages (the NLL of any language-modelling chapter)
    python train_base.py                            a minute and a half on two laptop cores
    python train_base.py --world sums --run out/sums --n_layer 3 --n_embd 96 --batch_size 32 --lr 1.5e-3 --steps 4000

What to watch: `recall` stays at chance for 300 steps while the loss falls (the model learns how pages
are written), then climbs past 90%. `knows` is the same of the facts that most people get wrong. Behind
it `judged` leaves 50% and passes 90%: to tell a true claim from a false one the model must compare
what it reads with what it recalls. `says` follows: asked in a chat, the model tells the common errors,
though it knows. Later stages teach manners, not facts: what is not learned here is not there to be
aligned. In the world of sums `solved` is near 0 for 300 steps and then climbs past nine in ten, as
`judged` does: each further hundredth is a kind of slip that it has learned to see.
Left out: gradient accumulation, several documents kept apart by an attention mask, data larger than memory.
"""
from dataclasses import dataclass
from typing import Literal

import torch

from nanorlhf import InputError, data, resume, run, sums, towns
from nanorlhf.functional import masked_mean, token_logprobs
from nanorlhf.gpt import GPT, GPTConfig
from nanorlhf.rollout import answer_texts, generate
from nanorlhf.tokenizer import Tokenizer


@dataclass
class Config:
    run: str = "out/towns"          # the run's folder; this stage writes <run>/base
    seed: int = 0                   # of the initial weights and of the pages
    device: Literal["auto", "cpu", "cuda"] = "auto"     # auto takes a CUDA GPU where there is one
    world: Literal["towns", "sums"] = "towns"           # what the pages are about, and so the vocabulary
    digits: int = 3                 # of the longest numbers in the pages of sums
    n_layer: int = 4                # layers
    n_head: int = 4                 # attention heads
    n_embd: int = 112               # width
    block_size: int = 96            # longest sequence: a question (12 tokens) and an answer (64) fit
    pages: int = 30000              # how many to write: some 45 tokens each
    steps: int = 1500               # recall comes first; telling true from false takes the rest
    batch_size: int = 16            # rows: of block_size tokens, or of one page in the world of sums
    lr: float = 5e-3                # peak learning rate; large models want less
    warmup: int = 50                # steps from 0 to lr
    weight_decay: float = 0.1       # AdamW's
    max_new_tokens: int = 64        # of the samples at the end
    log_every: int = 50             # steps between lines on the console
    resume: bool = False            # go on with a run that was interrupted, exactly where it was
    save_every: int = 250           # steps between the states that --resume goes on from


@torch.no_grad()
def probe_sums(model, tokenizer, digits, device):
    """{"solved", "judged"}: the share of 64 held-out sums whose likeliest answer is right, and the share of the marks in 256 pieces of
    homework where the cross and the tick are ranked as they should be."""
    rng = run.rng(0, "probe")
    questions = sums.sample_questions(64, rng, sums.HELD_OUT, digits)
    room = model.cfg.block_size - max(len(tokenizer.prompt(q.text)) for q in questions)
    out = generate(model, [tokenizer.prompt(q.text) for q in questions], room, tokenizer.end, temperature=0, pad=tokenizer.pad)
    right = [sums.grade(*answer)["correct"] for answer in zip(questions, answer_texts(out, tokenizer), out.finished.tolist())]

    questions = sums.sample_questions(256, rng, sums.HELD_OUT, digits)
    ids, mask = data.answer_batch([tokenizer.prompt(q.text) for q in questions], [tokenizer.encode(sums.homework(q, rng)) for q in questions],
                                  tokenizer.pad, device)
    cross, tick = (tokenizer.encode(m)[0] for m in sums.MARKS)
    logits = model(ids)[:, :-1]                                                                 # (N, T-1, V), about column t+1
    marks = mask[:, 1:] & ((ids[:, 1:] == cross) | (ids[:, 1:] == tick))
    judged = (logits[..., tick] > logits[..., cross]) == (ids[:, 1:] == tick)
    return {"solved": sum(right) / len(right), "judged": masked_mean(judged.float(), marks).item()}


@torch.no_grad()
def probe_towns(model, tokenizer, device):
    """What pretraining should have taught, as shares.

    recall: of the 128 facts, those whose value comes first when a page's sentence stops just
    before it. knows: the same of the 64 facts with a common error. says: of those, the ones that
    end in the error where the sentence is begun as an answer. judged: of 256 claims, half of them
    false, those after which "True." and "False." are ranked as they should be.
    """
    facts = [(town, attribute, value) for town in towns.TOWNS for attribute, value in towns.FACTS[town].items()]
    sentences = [towns.STATEMENTS[attribute][0].format(t=town, v=value) for town, attribute, value in facts]    # "... is Ada."
    ids, logits = _read(model, tokenizer, sentences, -3, device)
    recall = [(row.argmax() == i[-2]).item() for i, row in zip(ids, logits)]
    knows = [right for right, (t, a, _) in zip(recall, facts) if a in towns.COMMON_ERRORS[t]]

    errors = [(t, a, v) for t in towns.TOWNS for a, v in towns.COMMON_ERRORS[t].items()]
    answers = [tokenizer.prompt(towns.ASK_ONE[a][0].format(t=t))
               + tokenizer.encode(towns.STATEMENTS[a][0].format(t=t, v=v)) for t, a, v in errors]
    ids, logits = _logits_at(model, answers, -3, tokenizer.pad, device)
    says = [(row.argmax() == i[-2]).item() for i, row in zip(ids, logits)]

    rng = run.rng(0, "probe")
    claims = [towns.statement(town, attribute, rng, wrong)[:-1] for town, attribute, _ in facts for wrong in (True, False)]
    _, logits = _read(model, tokenizer, claims, -1, device)
    true, false = (logits[:, tokenizer.encode(word)[0]] for word in (" True", " False"))
    judged = (true > false) == (torch.arange(len(claims), device=device) % 2 == 1)
    return {"recall": sum(recall) / len(recall), "knows": sum(knows) / len(knows),
            "says": sum(says) / len(says), "judged": judged.float().mean().item()}


def _read(model, tokenizer, sentences, column, device):
    """_logits_at of the sentences' ids."""
    return _logits_at(model, [tokenizer.encode(s) for s in sentences], column, tokenizer.pad, device)


def _logits_at(model, ids, column, pad, device):
    """-> (the lists of ids, logits (N, V) at this column of each, counted from its end)"""
    logits = model(data.pad_rows(ids, pad).to(device))                                           # (N, T, V)
    return ids, logits[torch.arange(len(ids)), torch.tensor([len(i) + column for i in ids])]


def windows(pages, cfg, generator):
    """Batches without end of (ids, mask) (B, block_size), cut from the pages laid end to end, wherever the cut falls."""
    stream = torch.tensor([i for ids in pages for i in ids])
    while True:
        ids = data.page_batch(stream, cfg.batch_size, cfg.block_size, generator)
        yield ids, (torch.arange(cfg.block_size) > 0).expand(ids.shape)                          # token 0 has nothing before it


def whole_pages(pages, cfg, pad, generator):
    """Batches of one page a row, short and long ones mixed. A digit of a sum is found by its place; in a window the places shift, and that
    takes far longer to learn."""
    rows = [(ids, [t > 0 for t in range(len(ids))]) for ids in pages]
    for batch in data.epochs(rows, cfg.batch_size, generator, lambda row: 0):
        yield data.conversation_batch(batch, pad, "cpu")


def main():
    cfg = run.parse(Config, __doc__)
    device = run.pick_device(cfg.device)
    folder = f"{cfg.run}/base"
    saved = resume.load(cfg, folder)
    world, tokenizer = run.WORLDS[cfg.world], Tokenizer(cfg.world)
    model = GPT(GPTConfig(tokenizer.vocab_size, cfg.block_size, cfg.n_layer, cfg.n_head, cfg.n_embd),
                run.generator(cfg.seed, "init")).to(device)
    optimizer = run.adamw(model, cfg.lr, cfg.weight_decay)

    writer = run.rng(cfg.seed, "pages")
    pages = [data.page_ids(world.page(writer, **run.knobs(world, cfg.digits)), tokenizer) for _ in range(cfg.pages)]
    if max(map(len, pages)) > cfg.block_size and world is sums:
        raise InputError(f"--digits {cfg.digits}: a sum and its working take up to {max(map(len, pages))} tokens; "
                         f"--block_size is {cfg.block_size}")
    print(f"base: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {device.type}, "
          f"{sum(map(len, pages)):,} tokens in {cfg.pages:,} pages, vocabulary of {tokenizer.vocab_size}")
    if world is sums:
        print("solved: share of held-out sums whose likeliest answer is right; judged: share of the marks in homework that it would give so too")
    else:
        chance = sum(1 / len(v) for v in towns.VALUES.values()) / len(towns.VALUES)
        print(f"recall: share of the 128 facts that it completes, a guess gets {chance:.0%}; knows: of "
              "the facts with a common error; says: how often the error, asked in a chat;\n"
              "judged: share of true and false claims that it tells apart, a guess gets 50%")

    log = run.Log(folder, cfg, cfg.steps, cfg.log_every, saved)
    order = run.generator(cfg.seed, "data order")
    batches = whole_pages(pages, cfg, tokenizer.pad, order) if world is sums else windows(pages, cfg, order)
    for step in resume.steps(log, model, tokenizer, {"optimizer": optimizer}, batches):
        ids, mask = (x.to(device) for x in next(batches))                                        # (B, T)
        with run.autocast(device):
            logits = model(ids)                                                                  # (B, T, V)
        loss = -masked_mean(token_logprobs(logits, ids), mask)
        loss.backward()
        lr = run.linear(step - 1, cfg.steps, cfg.lr, cfg.warmup)
        grad_norm = run.update(model, optimizer, lr, max_grad_norm=1.0)
        stats = {}
        if step % cfg.log_every == 0 or step == cfg.steps:
            stats = probe_sums(model, tokenizer, cfg.digits, device) if world is sums else probe_towns(model, tokenizer, device)
        log(step, loss=loss.item(), **stats, _grad_norm=grad_norm, _lr=lr)

    run.save_checkpoint(f"{folder}/model.pt", model, tokenizer)
    run.show_answers(folder, f"base, after {cfg.steps} steps", model, tokenizer, cfg.max_new_tokens, cfg.seed)


if __name__ == "__main__":
    run.script(main)
