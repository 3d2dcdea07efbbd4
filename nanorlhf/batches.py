"""Lists of ids -> padded batches (B, T) with masks, and the order in which they come."""
import torch
from tqdm import tqdm


def pad_rows(rows, pad):
    """Lists of ids -> (B, T) int64, padded on the right. Masks of 0 and 1 pad alike, with 0."""
    T = max(map(len, rows))
    return torch.tensor([row + [pad] * (T - len(row)) for row in rows])


def conversation_batch(examples, pad, device):
    """[(ids, mask)] -> ids (B, T), mask (B, T) bool."""
    ids = pad_rows([ids for ids, _ in examples], pad)
    mask = pad_rows([list(map(int, mask)) for _, mask in examples], 0).bool()
    return ids.to(device), mask.to(device)


def answer_rows(prompts, answers):
    """Lists of prompts and of answers (ids) -> [(ids, mask)], the mask true on the answers."""
    return [(prompt + answer, [False] * len(prompt) + [True] * len(answer))
            for prompt, answer in zip(prompts, answers, strict=True)]


def answer_batch(prompts, answers, pad, device):
    """Lists of prompts and of answers (ids) -> ids (B, T), mask (B, T) bool on the answers."""
    return conversation_batch(answer_rows(prompts, answers), pad, device)


def by_prompt(pairs, group_of=lambda pair: pair.group or tuple(pair.prompt)):
    """[Preference] -> [[Preference]]: those of one prompt, which share answers, wherever they
    stand; prompts in the order in which they come first."""
    groups = {}
    for pair in pairs:
        groups.setdefault(group_of(pair), []).append(pair)
    return list(groups.values())


def distinct_answers(pairs):
    """[Preference] -> prompts, answers (lists of N lists of ids), chosen, rejected (B indices
    each): which of the N every pair compares.

    An answer that stands in several pairs counts once: K answers to a prompt make K (K - 1) / 2
    pairs for K answers' work. The side that a thumb lacks is an answer of no tokens.
    """
    rows = {}

    def row_of(prompt, answer):
        return rows.setdefault((tuple(prompt), tuple(answer)), len(rows))

    chosen, rejected = [], []
    for pair in pairs:
        chosen.append(row_of(pair.prompt, pair.chosen))
        rejected.append(row_of(pair.prompt, pair.rejected))
    prompts = [list(prompt) for prompt, _ in rows]
    answers = [list(answer) for _, answer in rows]
    return prompts, answers, chosen, rejected


def pair_batch(pairs, pad, device):
    """[Preference] -> ids (N, T), mask (N, T) bool, chosen (B,), rejected (B,): the rows of ids
    that each pair compares."""
    prompts, answers, chosen, rejected = distinct_answers(pairs)
    ids, mask = answer_batch(prompts, answers, pad, device)
    return ids, mask, torch.tensor(chosen, device=device), torch.tensor(rejected, device=device)


def mismatched(pairs, block_size):
    """[Preference] -> prompts, answers (lists of N lists of ids): each answer behind the next
    other prompt; empty where there is only one.

    The same question may stand in a batch twice: its neighbour's answer would not be to another.
    """
    prompts, answers, *_ = distinct_answers(pairs)
    # the side that a thumb lacks says nothing
    prompts = [prompt for prompt, answer in zip(prompts, answers, strict=True) if answer]
    answers = [answer for answer in answers if answer]
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    if len(distinct) < 2:
        return [], []
    following = dict(zip(distinct, distinct[1:] + distinct[:1], strict=True))
    others = [list(following[tuple(p)])[-(block_size - len(a)):]
              for p, a in zip(prompts, answers, strict=True)]
    return others, answers


def map_answers(f, prompts, answers, pad, device, batch_size=256):
    """f(ids (B, T), mask (B, T)) -> (B,), over all N answers: (N,) float32 on the CPU, in the
    order given.

    Long answers meet long ones: batches taken in the order given would be padded to twice their
    tokens.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(answers[i]))
    out = torch.empty(len(prompts))
    # disable=None: a bar on a terminal only
    for i in tqdm(range(0, len(order), batch_size), desc="reading answers", leave=False,
                  disable=None):
        rows = order[i:i + batch_size]
        ids, mask = answer_batch([prompts[j] for j in rows], [answers[j] for j in rows],
                                 pad, device)
        out[rows] = f(ids, mask).float().cpu()
    return out


def epochs(items, batch_size, generator, length):
    """Batches without end, reshuffled each time round; the last ones of a round may be smaller.

    length(item): its tokens. Twenty batches at a time are sorted by it, so that rows of a batch
    are about as long as each other: padding is computed too, and in batches drawn blindly it is
    half of the tokens.
    """
    while True:
        order = torch.randperm(len(items), generator=generator).tolist()
        batches = []
        for i in range(0, len(order), 20 * batch_size):
            pool = sorted(order[i:i + 20 * batch_size], key=lambda j: length(items[j]))
            batches += [pool[k:k + batch_size] for k in range(0, len(pool), batch_size)]
        for b in torch.randperm(len(batches), generator=generator).tolist():
            yield [items[j] for j in batches[b]]


def page_ids(page, tokenizer):
    """A page is an article (a str) or a thread (messages); it closes with the end token."""
    ids = tokenizer.encode(page) if isinstance(page, str) else tokenizer.chat(page)[0]
    return ids + [tokenizer.end]


def page_batch(stream, rows, length, generator):
    """Stretches of the stream from random places: (rows, length)."""
    starts = torch.randint(len(stream) - length, (rows,), generator=generator)
    return torch.stack([stream[s:s + length] for s in starts])
