"""Files in other layouts -> JSONL that every script here reads.

    python -m tools.convert FILE > out.jsonl
    python -m tools.convert --by safer FILE > out.jsonl     another column decides

Formats: JSONL, a JSON array, CSV and TSV, parquet (with pyarrow), each also as .gz.
Layouts, found by their columns: SHP; PKU-SafeRLHF; HelpSteer2's ratings, its preferences, and
HelpSteer3; summarize-from-feedback's comparisons. Rows of any other layout stay as they are: what
the scripts read of them they say themselves (docs/YOUR_DATA.md).

What a row means is carried over only where it is certain. Ties, and rows without two answers, are
left out and counted on the terminal. Everything but the rows goes there.
"""
import argparse
import csv
import gzip
import io
import json
import sys
from collections import Counter

from nanorlhf import InputError, settings
from nanorlhf.files import format_of, read_jsonl
from nanorlhf.layouts import COLUMNS, FOREIGN, PAIR

# what --by may name, the default first
BY = {"PKU-SafeRLHF": ("better", "safer"),
      "HelpSteer2": ("helpfulness", "correctness", "coherence")}
# columns that a table writes as text and that are none
TYPED = {*COLUMNS, "messages", "conversations", "completions", "labels", *PAIR, "score_chosen"}


# ---- formats -> (where, row) ----

def read(path):
    """Yields (where, row) of a file in any of the formats."""
    first = _first_line(path)
    kind = format_of(first)
    if kind is None:
        yield from read_jsonl(path)
        return
    rows = {"parquet": _parquet, "a JSON array": _array, "a table (CSV)": _table}[kind](path)
    for i, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path}: row {i} is {type(row).__name__}; each must be an object")
        yield f"{path}: row {i}", row


def _open(path):
    return gzip.open(path, "rb") if str(path).endswith(".gz") else open(path, "rb")


def _first_line(path):
    try:
        with _open(path) as f:
            return f.readline(1 << 20)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError) as e:
        raise InputError(f"{path}: cannot be read ({e})") from None


def _text(path):
    with _open(path) as f:
        try:
            return f.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"{path}: not UTF-8 text; save it as UTF-8") from None


def _array(path):
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as e:
        raise InputError(f"{path}:{e.lineno}: not JSON ({e.msg} at column {e.colno})") from None


def _table(path):
    text = _text(path)
    head = text.split("\n", 1)[0]
    delimiter = "\t" if head.count("\t") > head.count(",") else ","
    csv.field_size_limit(1 << 30)
    for i, row in enumerate(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter), 2):
        if None in row or None in row.values():
            raise InputError(f"{path}: row {i} has more or fewer cells than the first names")
        yield {name: _cell(name, cell) for name, cell in row.items() if cell != ""}


def _cell(name, cell):
    """A table has texts alone: what must be a number, true or false, or a list is read as that."""
    if name not in TYPED:
        return cell
    try:
        value = json.loads(cell.lower() if cell.lower() in ("true", "false") else cell)
    except json.JSONDecodeError:
        return cell
    # a text stays one: a chosen answer that is "4"
    return value if name not in (*PAIR, "system", "split") or isinstance(value, list) else cell


def _parquet(path):
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{path}: parquet needs pyarrow: pip install pyarrow") from None
    with _open(path) as f:
        try:
            return pyarrow.parquet.read_table(io.BytesIO(f.read())).to_pylist()
        except pyarrow.ArrowException as e:
            raise InputError(f"{path}: parquet that cannot be read ({e})") from None


# ---- layouts -> rows {"prompt", "chosen", "rejected"} ----

def _pair(prompt, answers, first_is_chosen, **more):
    chosen, rejected = answers if first_is_chosen else answers[::-1]
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def _choice(row, name, where, values=(0, 1)):
    value = row.get(name)
    if isinstance(value, bool) or value not in values:
        raise InputError(f"{where}: {name!r} is {value!r}; it must be one of {values}")
    return value


def shp(row, by, where):
    """labels 1: A has more votes."""
    answers = row["human_ref_A"], row["human_ref_B"]
    return _pair(row["history"], answers, _choice(row, "labels", where) == 1)


def safe_rlhf(row, by, where):
    answers = row["response_0"], row["response_1"]
    better = _choice(row, "better_response_id" if by == "better" else "safer_response_id", where)
    return _pair(row["prompt"], answers, better == 0)


def _signed(row, prompt, answers, name, where):
    """A preference from -3, the first is much better, to 3, the second is; 0 is a tie."""
    score = _choice(row, name, where, tuple(range(-3, 4)))
    if score == 0:
        return None
    return _pair(prompt, answers, score < 0, strength=abs(score))


def helpsteer2_preferences(row, by, where):
    answers = row["response_1"], row["response_2"]
    return _signed(row, row["prompt"], answers, "preference_strength", where)


def helpsteer3(row, by, where):
    answers = row["response1"], row["response2"]
    return _signed(row, row["context"], answers, "overall_preference", where)


def summaries(row, by, where):
    """Stiennon et al. 2020: the post as their models read it, and the two summaries of it."""
    info, said = row["info"], row["summaries"]
    if not isinstance(info, dict) or not isinstance(said, list) or len(said) != 2:
        raise InputError(f"{where}: 'info' and two 'summaries' are needed")
    parts = [f"{name.upper()}: {info[key]}" for name, key in
             (("subreddit", "subreddit"), ("title", "title"), ("post", "post"))
             if info.get(key)]
    if info.get("article"):
        parts.append(info["article"])
    prompt, texts = "\n\n".join([*parts, "TL;DR:"]), [one["text"] for one in said]
    mark = {"split": row["split"]} if row.get("split") else {}
    return _pair(prompt, texts, _choice(row, "choice", where) == 0, **mark)


MAKERS = {"SHP": shp, "PKU-SafeRLHF": safe_rlhf, "HelpSteer2 preferences": helpsteer2_preferences,
          "HelpSteer3": helpsteer3, "summarize-from-feedback": summaries}


def ratings(rows, by):
    """HelpSteer2: every two answers to one prompt, of which one is rated higher -> pairs, with the
    difference as their strength."""
    groups, left = {}, Counter()
    for where, row in rows:
        if not isinstance(row.get(by), int | float) or isinstance(row[by], bool):
            raise InputError(f"{where}: {by!r} is {row.get(by)!r}; it must be a number")
        groups.setdefault(json.dumps(row["prompt"]), []).append(row)
    pairs = []
    for group in groups.values():
        left["an answer that stands alone"] += len(group) == 1
        for i, a in enumerate(group):
            for b in group[i + 1:]:
                if a[by] == b[by]:
                    left["neither is better"] += 1
                    continue
                pairs.append(_pair(a["prompt"], (a["response"], b["response"]), a[by] > b[by],
                                   strength=abs(a[by] - b[by])))
    return pairs, left


# ---- the whole ----

def convert(path, by=""):
    """-> (rows, what was done in words, Counter of what was left out)"""
    everything = list(read(path))
    if not everything:
        raise InputError(f"{path}: the file is empty")
    first = everything[0][1]
    name = next((n for n, keys in FOREIGN.items() if all(key in first for key in keys)), None)
    known = BY.get(name, ())
    if by and by not in known:
        raise InputError(f"--by {by}: {name or 'this layout'} has "
                         f"{', '.join(known) or 'nothing to choose from'}")
    by = by or (known[0] if known else "")
    if name is None:
        return [row for _, row in everything], "rows as they are", Counter()
    for where, row in everything:
        if lacks := [key for key in FOREIGN[name] if key not in row]:
            raise InputError(f"{where}: it lacks {lacks[0]!r}, which {name} has")
    if name == "HelpSteer2":
        rows, left = ratings(everything, by)
    else:
        made = [MAKERS[name](row, by, where) for where, row in everything]
        rows = [row for row in made if row]
        left = Counter({"neither is better": len(made) - len(rows)})
    if not rows:
        raise InputError(f"{path}: {name}, but no pair comes of it: "
                         + "; ".join(f"{what} ({n})" for what, n in left.items() if n))
    return rows, f"pairs of {name}" + (f" by {by}" if by else ""), +left


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="the file to read; the rows go to the standard output")
    parser.add_argument("--by", default="", help="the column that decides, where a layout has "
                        "several: " + "; ".join(f"{n}: {', '.join(c)}" for n, c in BY.items()))
    args = parser.parse_args()
    rows, what, left = convert(args.file, args.by)
    for row in rows:
        print(json.dumps(row))
    lost = "".join(f"; left out, {why}: {n}" for why, n in left.items())
    print(f"{args.file}: {len(rows)} {what}{lost}", file=sys.stderr)


if __name__ == "__main__":
    settings.script(main)
