"""What a model knows, asked as a continuation: a world's probes, all read the same way."""
import torch

from nanorlhf import batches


def context_ids(context, tokenizer):
    """A context is the beginning of a page (a str), or (question, beginning of its answer)."""
    if isinstance(context, str):
        return tokenizer.encode(context)
    question, begun = context
    return tokenizer.prompt(question) + tokenizer.encode(begun)


@torch.no_grad()
def share_right(model, tokenizer, items, device, batch_size=256):
    """[(context, right, wrongs)] -> share in which the model ranks the right continuation first.

    right, wrongs: texts, told apart by their first token. Without wrongs the right one must be
    the likeliest of all tokens. A context that begins a longer one is read in that one's row.
    """
    contexts = [context_ids(context, tokenizer) for context, *_ in items]
    rows, places = [], {}
    for i in sorted(range(len(items)), key=contexts.__getitem__, reverse=True):
        if not rows or rows[-1][:len(contexts[i])] != contexts[i]:
            rows.append(contexts[i])
        places.setdefault(len(rows) - 1, []).append(i)

    ranked_first = torch.zeros(len(items))
    for start in range(0, len(rows), batch_size):
        some = rows[start:start + batch_size]
        logits = model(batches.pad_rows(some, tokenizer.pad).to(device))        # (N, T, V)
        for row in range(len(some)):
            for i in places[start + row]:
                _, right, wrongs = items[i]
                last = logits[row, len(contexts[i]) - 1]                        # (V,)
                right, *wrongs = (tokenizer.encode(text)[0] for text in (right, *wrongs))
                if wrongs:
                    ranked_first[i] = last[right] > last[wrongs].max()
                else:
                    ranked_first[i] = last.argmax() == right
    return ranked_first.mean().item()
