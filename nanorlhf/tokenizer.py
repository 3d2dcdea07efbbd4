"""A thin wrapper over tiktoken: special tokens, and a chat template that returns ids and mask."""
import tiktoken

from nanorlhf import InputError, worlds
from nanorlhf.worlds import vocabulary

SPECIALS = ("<|end|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>")


class Tokenizer:
    """The words of a made-up world, or gpt2's.

    `end` closes an assistant turn and a page; `pad` is another token, so that masks never
    swallow the end. Special tokens are ids from the encoding's n_vocab on (gpt2's own end-of-text
    keeps its id): text goes through `encode_ordinary`, so nobody can write one. `before_page`: what
    a model has read before a page, the end of another, or nothing where pages stand apart.
    name: a world, or gpt2. ranks, knobs: what a checkpoint keeps of a world's vocabulary (in
    tiktoken's format) and of its settings.
    """

    def __init__(self, name=worlds.DEFAULT, ranks=None, knobs=None):
        self.name, self.ranks, self.knobs, apart = name, ranks, None, False
        if name == "gpt2":
            self.encoding = _gpt2_encoding()
        elif name in worlds.names():
            world = worlds.load(name, knobs)
            self.knobs, apart = world.knobs, world.PAGES == "apart"
            self.ranks = ranks or vocabulary.as_text(world.vocabulary())
            # tiktoken's own file loader caches by path, and would serve a stale vocabulary
            self.encoding = tiktoken.Encoding(name, pat_str=vocabulary.PATTERN, special_tokens={},
                                              mergeable_ranks=vocabulary.from_text(self.ranks))
        else:
            raise InputError(f"--tokenizer is {', '.join(worlds.names())} or gpt2, not {name!r}")
        n = self.encoding.n_vocab
        self.end, self.pad, self.user, self.assistant, self.system = range(n, n + len(SPECIALS))
        self.vocab_size = n + len(SPECIALS)
        # Behind an end that it has never read, a model that judges all claims right called 56 to
        # 92% right.
        self.before_page = [] if apart else [self.end]

    def state(self):
        """What a checkpoint keeps: enough to rebuild this tokenizer without its file."""
        return {"name": self.name, "ranks": self.ranks, "knobs": self.knobs}

    def described(self):
        """For messages: "sums, 261 tokens, digits=3"."""
        knobs = [f"{name}={value}" for name, value in (self.knobs or {}).items()]
        return ", ".join([self.name, f"{self.vocab_size} tokens", *knobs])

    def encode(self, text):
        return self.encoding.encode_ordinary(text)

    def decode(self, ids):
        """Text of ids; special tokens show as <|name|>, so that a sample hides nothing."""
        n, out, plain = self.encoding.n_vocab, [], []
        for i in ids:
            if i < n:
                plain.append(i)
            else:
                out += [self.encoding.decode(plain), SPECIALS[i - n]]
                plain = []
        return "".join(out) + self.encoding.decode(plain)

    def chat(self, messages):
        """[{"role", "content"}, ...] -> (ids, mask), two lists of equal length.

            <|user|>text<|assistant|>text<|end|><|user|>...

        The mask is True on assistant text and its <|end|>, but for messages of "weight" 0. A user
        turn needs no end: the next role token closes it. Each part is encoded apart, so the tokens
        of a prompt do not depend on what is answered.
        """
        roles = {"user": self.user, "assistant": self.assistant, "system": self.system}
        ids, mask = [], []
        for m in messages:
            if m["role"] not in roles:
                raise InputError(f"unknown role {m['role']!r}; a message is from system, user or "
                                 "assistant")
            answer = m["role"] == "assistant"
            text = self.completion(m["content"]) if answer else self.encode(m["content"])
            ids += [roles[m["role"]]] + text
            mask += [False] + [answer and m.get("weight", 1) != 0] * len(text)
        return ids, mask

    def prompt(self, messages):
        """Ids of a conversation that waits for the assistant; a string is one user message."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return self.chat(messages)[0] + [self.assistant]

    def completion(self, text):
        """Ids of an assistant's text and its end token."""
        return self.encode(text) + [self.end]


def _gpt2_encoding():
    try:
        return tiktoken.get_encoding("gpt2")
    except Exception as e:      # requests' own errors, and whatever a proxy makes of them
        raise InputError("--tokenizer gpt2: tiktoken could neither find nor download its "
                         f"vocabulary ({type(e).__name__}); go online once, or set "
                         "TIKTOKEN_CACHE_DIR to a folder that holds it") from None
