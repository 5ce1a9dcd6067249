"""Trains and evaluates the reader of prompts behind `prompt_mamba_arch.text.read_intent`.

    python scripts/train_intent.py                                  # writes prompt_mamba_arch/text/intent.safetensors
    python scripts/train_intent.py --evaluate [--published FILE]    # of the shipped file

It learns from requests of the prompt bank's train split, with their meaning. The validation split decides which epoch
is kept and the temperatures that make its probabilities honest; the test split and the published prompts are only ever
evaluated. The encoder's states of the training requests are kept in a temporary folder, so only the first run takes
minutes. The same seed gives the same file on the same machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from prompt_mamba_arch import prompts
from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.errors import UserError, plain_line, replace_on_success
from prompt_mamba_arch.text import TextEncoder, describe, read_intents
from prompt_mamba_arch.text.intent import ASKS, Intent, IntentHead

TARGET = Path(__file__).resolve().parents[1] / "prompt_mamba_arch" / "text" / "intent.safetensors"
BATCH = 128
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.000001)

# Published prompts say for what task they were written. `blur`: at least one of both blurs. "everything": all kinds.
# Tasks without a kind of their own here are left out: colorize, desnow, enhancement (retouching of colours).
TASKS = {
    "denoise": {"noise"},
    "deblur": {"blur"},
    "dehaze": {"haze"},
    "derain": {"rain"},
    "lowlight": {"lowlight"},
    "sr": {"lowres"},
    "inpaint": {"holes"},
    "dewatermark": {"holes"},
    "dewatermark+lowlight": {"holes", "lowlight"},
    "ambiguous": {"everything"},
}


def requests(split: str, count: int, seed: int) -> list[prompts.Request]:
    """Different requests of the bank, with their meaning."""
    rng = random.Random(f"{split} {seed}")
    drawn: dict[str, prompts.Request] = {}
    while len(drawn) < count:
        request = prompts.labelled(rng, split)
        drawn.setdefault(" ".join(request.text.split()), request)
    return list(drawn.values())


class States:
    """The encoder's states of many texts, half precision, in one file that is mapped into memory."""

    def __init__(self, texts: Sequence[str], encoder: TextEncoder, folder: Path):
        key = hashlib.sha256(json.dumps([str(encoder.folder), *texts]).encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        path, lengths = folder / f"{key}.npy", folder / f"{key}.lengths.npy"
        if not (path.is_file() and lengths.is_file()):
            rows: list[np.ndarray] = []
            for start in tqdm(range(0, len(texts), 1024), desc="encode", unit="k"):
                batch = encoder.token_states(texts[start : start + 1024])
                rows.extend(states.half().numpy() for states in batch)
            with replace_on_success(lengths) as temporary, open(temporary, "wb") as file:
                np.save(file, np.array([len(row) for row in rows]))
            with replace_on_success(path) as temporary, open(temporary, "wb") as file:
                np.save(file, np.concatenate(rows))
        self.rows = np.load(path, mmap_mode="r")
        self.ends = np.cumsum(np.load(lengths))

    def __len__(self) -> int:
        return len(self.ends)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """States (B, L, dim) and mask (B, L)."""
        starts = [int(self.ends[i - 1]) if i else 0 for i in indices]
        rows = [torch.from_numpy(self.rows[s : self.ends[i]].astype(np.float32)) for s, i in zip(starts, indices)]
        lengths = torch.tensor([len(row) for row in rows])
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return padded, (torch.arange(padded.shape[1]) < lengths[:, None]).float()


def labels(drawn: Sequence[prompts.Request]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """remove and keep (N, kinds), everything (N,), asks (N,): an index."""
    remove = torch.tensor([[float(kind in request.remove) for kind in KINDS] for request in drawn])
    keep = torch.tensor([[float(kind in request.keep) for kind in KINDS] for request in drawn])
    everything = torch.tensor([float(request.everything) for request in drawn])
    return remove, keep, everything, torch.tensor([ASKS.index(request.asks) for request in drawn])


def losses(logits: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """The four losses: a kind is spoken of, it shall go or stay, all that is wrong is meant, what is asked for.

    What an unrelated sentence speaks of is not asked, as "blur my face" does speak of blur. A request for everything
    speaks of what shall stay.
    """
    presence, role, everything, asks = logits
    remove, keep, every, asked = truth
    named = torch.where(every[:, None] > 0, keep, torch.maximum(remove, keep))
    about, wish = (asked != ASKS.index("unrelated")).float(), (asked == ASKS.index("restoration")).float()
    bce = nn.functional.binary_cross_entropy_with_logits
    spoken = (bce(presence, named, reduction="none").mean(1) * about).sum() / about.sum().clamp(min=1)
    places = named > 0
    go_or_stay = nn.functional.cross_entropy(role[places], keep[places].long())
    whole = (bce(everything, every, reduction="none") * wish).sum() / wish.sum().clamp(min=1)
    return torch.stack((spoken, go_or_stay, whole, nn.functional.cross_entropy(asks, asked)))


def predict(head: IntentHead, states: States) -> list[Tensor]:
    """Logits for all of `states`."""
    head.eval()
    parts = []
    with torch.no_grad():
        order = np.argsort(np.diff(states.ends, prepend=0), kind="stable")
        for start in range(0, len(order), BATCH):
            parts.append(head(*states.batch(order[start : start + BATCH])))
    back = torch.from_numpy(np.argsort(order, kind="stable"))
    return [torch.cat(column)[back] for column in zip(*parts)]


def train(args: argparse.Namespace) -> None:
    started = time.time()
    torch.manual_seed(args.seed)
    encoder = TextEncoder()
    data, val = requests("train", args.count, args.seed), requests("val", args.count // 8, args.seed)
    states, val_states = (States([request.text for request in some], encoder, args.cache) for some in (data, val))
    truth, val_truth = labels(data), labels(val)
    head = IntentHead(kinds=KINDS, text_dim=encoder.dim, width=args.width)
    optimizer = torch.optim.AdamW(head.parameters(), lr=args.lr, weight_decay=0.05)
    steps = args.epochs * (len(states) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=args.lr, total_steps=steps, pct_start=0.1)
    weights = torch.tensor([4.0, 1.0, 0.5, 1.0])
    lengths = np.diff(states.ends, prepend=0)
    rng = np.random.default_rng(args.seed)
    best, kept, epoch_kept = -1.0, None, 0
    for epoch in range(args.epochs):
        head.train()
        # like lengths go together, as padding costs time
        order = np.argsort(lengths + rng.random(len(lengths)) * 6, kind="stable")
        batches = [order[start : start + BATCH] for start in range(0, len(order) - BATCH + 1, BATCH)]
        rng.shuffle(batches)
        total = 0.0
        for batch in tqdm(batches, desc=f"epoch {epoch + 1}", leave=False, mininterval=1):
            loss = (losses(head(*states.batch(batch)), [t[batch] for t in truth]) * weights).sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss)
        logits = predict(head, val_states)
        score = score_of(head, logits, val_truth)
        right = float((logits[3].argmax(1) == val_truth[3]).float().mean())
        val_loss = [round(float(value), 4) for value in losses(logits, val_truth)]
        print(
            f"epoch {epoch + 1}: loss {total / len(batches):.4f}; val macro-F1 {score:.4f}, asks {right:.4f}, "
            f"losses {val_loss}", flush=True
        )
        if score + right > best:
            best, epoch_kept = score + right, epoch + 1
            kept = {name: value.clone() for name, value in head.state_dict().items()}
    head.load_state_dict(kept)
    head.temperature.copy_(temperatures(predict(head, val_states), val_truth))
    tensors = {name: value.half() if value.numel() > 100 else value for name, value in head.state_dict().items()}
    head.load_state_dict({name: value.float() for name, value in tensors.items()})
    record = {
        "command": "python scripts/train_intent.py",
        "requests": len(data), "epochs": args.epochs, "epoch_kept": epoch_kept, "seed": args.seed,
        "learning_rate": args.lr, "minutes": round((time.time() - started) / 60, 1),
        "val_macro_f1": round(score_of(head, predict(head, val_states), val_truth), 4),
        "temperature": [round(float(t), 3) for t in head.temperature],
        "encoder": "sentence-transformers/all-MiniLM-L6-v2", "torch": torch.__version__,
    }  # fmt: skip
    data = save(tensors, {"head": json.dumps(head.config), "training": json.dumps(record)})
    with replace_on_success(args.output) as temporary:
        Path(temporary).write_bytes(data)
    print(f"{args.output}: {len(data) / 1000:.0f} kB; {json.dumps(record)}")


def score_of(head: IntentHead, logits: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """Macro-F1 of what shall go."""
    return macro((head.chances(*logits)[0] > 0.5).numpy(), truth[0].numpy() > 0)


def temperatures(logits: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """One for each of the four: what makes the validation split likeliest (Guo et al., On calibration of modern neural
    networks, ICML 2017)."""
    candidates = torch.logspace(-1, 1, 201)
    return candidates[torch.stack([losses([part / t for part in logits], truth) for t in candidates]).argmin(0)]


# -- evaluation


def f1(guess: np.ndarray, truth: np.ndarray) -> float:
    right = int((guess & truth).sum())
    return 2 * right / max(1, int(guess.sum()) + int(truth.sum()))


def macro(guess: np.ndarray, truth: np.ndarray) -> float:
    """Mean F1 over the columns of (N, kinds)."""
    return float(np.mean([f1(guess[:, k], truth[:, k]) for k in range(truth.shape[1])]))


def evaluate(args: argparse.Namespace) -> None:
    for split in ("val", "test"):
        drawn = requests(split, args.evaluate_count, 1)
        intents = read_intents([request.text for request in drawn])
        _report_bank(split, drawn, intents)
        if args.mistakes and split == "val":
            _show_mistakes(drawn, intents, args.mistakes)
    if args.published:
        _report_published(_published(args.published))


def _report_bank(split: str, drawn: Sequence[prompts.Request], intents: Sequence[Intent]) -> None:
    truth = np.array([[kind in request.remove for kind in KINDS] for request in drawn])
    chance = np.array([[intent.remove[kind] for kind in KINDS] for intent in intents])
    each = {kind: f1(chance[:, k] > 0.5, truth[:, k]) for k, kind in enumerate(KINDS)}
    print(f"\nbank, {split} split, {len(drawn)} requests")
    _row("F1", each, np.mean(list(each.values())))
    named = np.array([not request.everything for request in drawn])
    each = {kind: f1(chance[named, k] > 0.5, truth[named, k]) for k, kind in enumerate(KINDS)}
    _row("  without requests for everything", each, np.mean(list(each.values())))
    stays = np.array([[kind in request.keep for kind in KINDS] for request in drawn])
    guess = np.array([[intent.keep[kind] > 0.5 for kind in KINDS] for intent in intents])
    each = {kind: f1(guess[:, k], stays[:, k]) for k, kind in enumerate(KINDS)}
    _row("  F1 of what is to stay", each, np.mean(list(each.values())))
    for ask in ASKS:
        chosen = [intent for request, intent in zip(drawn, intents) if request.asks == ask]
        right = sum(max(intent.asks, key=intent.asks.get) == ask for intent in chosen)
        print(f"  asks for {ask}: {right / len(chosen):.3f} of {len(chosen)} recognised")
    whole = [intent.everything > 0.5 for request, intent in zip(drawn, intents) if request.everything]
    print(f"  asks for everything: {np.mean(whole):.3f} of {len(whole)} recognised")
    exact = np.all((chance > 0.5) == truth, axis=1)
    print(f"  all nine kinds right: {exact.mean():.3f}")
    for low, high in zip(BINS, BINS[1:]):
        inside = (chance >= low) & (chance < high)
        if inside.any():
            print(
                f"  probability {low:.1f} to {min(high, 1):.1f}: mean {chance[inside].mean():.3f}, "
                f"true in {truth[inside].mean():.3f} of {int(inside.sum())}"
            )


def _row(name: str, each: Mapping[str, float], mean: float) -> None:
    print(f"{name}: macro {mean:.3f}; " + ", ".join(f"{kind} {value:.3f}" for kind, value in each.items()))


def _show_mistakes(drawn: Iterable[prompts.Request], intents: Iterable[Intent], count: int) -> None:
    for request, intent in zip(drawn, intents):
        asks = max(intent.asks, key=intent.asks.get)
        guess = {kind for kind, value in intent.remove.items() if value > 0.5}
        if guess != request.remove or asks != request.asks:
            meant = "everything" if request.everything else " ".join(sorted(request.remove)) or request.asks
            print(f"    [{meant}; keep {' '.join(sorted(request.keep)) or '-'}] {request.text} -> {describe(intent)}")
            count -= 1
            if not count:
                return


def _published(path: Path) -> list[dict]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not all(isinstance(row[key], str) for row in rows for key in ("source", "task", "prompt")):
            raise ValueError("source, task and prompt must be texts")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"cannot read {path} as published prompts ({error}); lines of source, task, prompt") from None
    return rows


def _report_published(rows: Sequence[Mapping[str, str]]) -> None:
    left_out = Counter(row["task"] for row in rows if row["task"] not in TASKS)
    rows = [row for row in rows if row["task"] in TASKS]
    intents = read_intents([row["prompt"] for row in rows])
    said = [_kinds_said(intent) for intent in intents]
    meant = [TASKS[row["task"]] for row in rows]
    print(f"\npublished prompts, {len(rows)} (left out, as their tasks have no kind here: {dict(left_out)})")
    exact = Counter((row["source"], row["task"]) for row, one, other in zip(rows, said, meant) if one == other)
    for (source, task), count in Counter((row["source"], row["task"]) for row in rows).items():
        print(f"  {source}, {task}: {exact[source, task]} of {count} read exactly")
    names = sorted({name for some in meant for name in some})
    each = {}
    for name in names:
        each[name] = f1(np.array([name in some for some in said]), np.array([name in some for some in meant]))
    _row("F1", each, np.mean(list(each.values())))


def _kinds_said(intent: Intent) -> set[str]:
    kinds = {kind for kind, value in intent.remove.items() if value > 0.5}
    if len(kinds) == len(KINDS):
        return {"everything"}
    return {"blur" if kind in ("defocus", "motion") else kind for kind in kinds}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--evaluate", action="store_true", help="evaluate the shipped file instead of training one")
    parser.add_argument("--published", type=Path, metavar="FILE", help="JSON Lines of source, task and prompt")
    parser.add_argument("--mistakes", type=int, default=0, metavar="N", help="show so many of the validation split")
    parser.add_argument("--evaluate-count", type=int, default=2000, metavar="N", help="requests of each split")
    parser.add_argument("-o", "--output", type=Path, default=TARGET, metavar="FILE")
    parser.add_argument("--count", type=int, default=24000, metavar="N", help="requests to learn from")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "prompt-mamba-intent", metavar="DIR",
        help="for the encoder's states",
    )  # fmt: skip
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        evaluate(args) if args.evaluate else train(args)
    except Exception as error:
        line = plain_line(error)
        if line is None:
            raise
        print(f"train_intent: {line}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
