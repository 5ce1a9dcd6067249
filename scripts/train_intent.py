"""Trains and evaluates the reader of prompts behind `prompt_mamba_arch.text.read_intent`.

    python scripts/train_intent.py                                  # writes prompt_mamba_arch/text/intent.safetensors
    python scripts/train_intent.py --evaluate [--published FILE]    # of the shipped file

It learns from requests of the prompt bank's train split, with their meaning: a new draw at every step. There are more
of them than states could be kept of, so the layers that are not trained run each time, without gradients. The
validation split chooses the moment that is kept and the temperatures that make the probabilities honest; the test split
and the published prompts are only ever evaluated. The same seed gives the same file on the same machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from prompt_mamba_arch import prompts
from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.errors import UserError, plain_line, replace_on_success
from prompt_mamba_arch.models import checkpoint
from prompt_mamba_arch.text import TextEncoder, Wish, describe, read_intents
from prompt_mamba_arch.text.intent import Intent, load_network
from prompt_mamba_arch.text.intent_network import ASKS, IntentHead, IntentNetwork

TARGET = Path(__file__).resolve().parents[1] / "prompt_mamba_arch" / "text" / "intent.safetensors"
BATCH = 64  # where nothing is trained
WEIGHTS = (4.0, 1.5, 1.0, 2.0)  # of the four losses
# Weights of what is asked for: with a request for restoration taken for something else, nothing is done at all.
ASKED = {"restoration": 2.0, "nothing": 1.0, "unrelated": 1.0}
# Share of the draws that are such requests and would else be others. Short: "increase the resolution", how most people
# ask; among all the ways to wrap and join wishes they are lost. So are complaints, "it's too dark", and their
# opposites, "it's too bright", which are no restoration.
RARE = {"nothing": 0.08, "everything": 0.05, "short": 0.4, "complaint": 0.12, "effects": 0.06}
SHORT = 6  # words
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


def batches(rng: random.Random, size: int) -> Iterator[list[prompts.Request]]:
    """Without end, of the train split: requests of like lengths together, as padding costs time."""
    while True:
        drawn = [_draw(rng) for _ in range(32 * size)]
        drawn.sort(key=lambda request: len(request.text) + rng.random() * 12)
        parts = [drawn[start : start + size] for start in range(0, len(drawn), size)]
        rng.shuffle(parts)
        yield from parts


def _draw(rng: random.Random) -> prompts.Request:
    (wanted,) = rng.choices((*RARE, ""), (*RARE.values(), 1 - sum(RARE.values())))
    if wanted == "complaint":
        return prompts.complaint(rng, "train")
    if wanted == "effects":
        return prompts.Request(prompts.unrelated(rng, "train", "effects"), frozenset(), frozenset(), "unrelated")
    while True:
        request = prompts.labelled(rng, "train")
        short = request.asks == "restoration" and not request.everything and len(request.text.split()) <= SHORT
        if (
            wanted in ("", request.asks)
            or (wanted == "everything" and request.everything)
            or (wanted == "short" and short)
        ):
            return request


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
    # the sum, as short requests may name nothing, and the mean of nothing is no number
    go_or_stay = nn.functional.cross_entropy(role[places], keep[places].long(), reduction="sum")
    go_or_stay = go_or_stay / places.sum().clamp(min=1)
    whole = (bce(everything, every, reduction="none") * wish).sum() / wish.sum().clamp(min=1)
    weight = torch.tensor([ASKED[name] for name in ASKS])
    return torch.stack((spoken, go_or_stay, whole, nn.functional.cross_entropy(asks, asked, weight)))


def predict(network: IntentNetwork, encoder: TextEncoder, texts: Sequence[str]) -> list[Tensor]:
    """Logits for all texts."""
    network.eval()
    parts = []
    with torch.no_grad():
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), BATCH):
            parts.append(network(*encoder.tokens([texts[i] for i in order[start : start + BATCH]])))
    back = torch.tensor(order).argsort()
    return [torch.cat(column)[back] for column in zip(*parts)]


def train(args: argparse.Namespace) -> None:
    started, cpu = time.time(), time.process_time()
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    encoder = TextEncoder()
    val = requests("val", args.val_count, args.seed)
    val_texts, val_truth = [request.text for request in val], labels(val)
    network = IntentNetwork(kinds=KINDS, width=args.width, encoder={"adapted": args.adapted, "rank": args.rank})
    start = _start(args.start, network) if args.start else []
    averaged = copy.deepcopy(network)  # the last hundred steps' mean reads better than any one of them
    for one in (network, averaged):
        one.encoder.attach(encoder.weights())
    groups = [{"params": network.encoder.parameters()}, {"params": network.head.parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=[args.lr, 2 * args.lr], total_steps=args.steps, pct_start=0.1
    )
    weights = torch.tensor(WEIGHTS)
    stop = _asked_to_stop()
    best, kept, step_kept, total = -1.0, None, 0, 0.0
    for step, batch in zip(range(1, args.steps + 1), batches(rng, args.batch)):
        network.train()
        ids, mask = encoder.tokens([request.text for request in batch])
        # of some requests many words are hidden, of most few
        hidden = torch.rand(mask.shape) < torch.rand(len(mask), 1) * 2 * args.word_dropout
        hidden[:, 0] = False  # [CLS]: something must be left
        loss = (losses(network(ids, mask * ~hidden), labels(batch)) * weights).sum()
        if not loss.isfinite():
            raise UserError(f"step {step}: the loss is no number; a smaller --lr may help")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        with torch.no_grad():
            for mean, now in zip(averaged.parameters(), network.parameters()):
                mean.lerp_(now, max(0.01, 9 / (10 + step)))
        if step % args.every and step != args.steps and not stop:
            continue
        logits = predict(averaged, encoder, val_texts)
        score, right = score_of(averaged.head, logits, val_truth), mean_recall(logits[3], val_truth[3])
        mean_loss = total / (step % args.every or args.every)
        print(
            f"step {step}: loss {mean_loss:.4f}; val macro-F1 {score:.4f}, asks (mean recall) {right:.4f}; "
            f"{(time.time() - started) / 60:.1f} min, of processor time {(time.process_time() - cpu) / 60:.1f}",
            flush=True,
        )
        total = 0.0
        if score + right > best:
            best, step_kept = score + right, step
            kept = {name: value.clone() for name, value in averaged.state_dict().items()}
        if stop:
            break
    averaged.load_state_dict(kept)
    averaged.head.temperature.copy_(temperatures(predict(averaged, encoder, val_texts), val_truth))
    tensors = _stored(averaged.state_dict())
    averaged.load_state_dict({name: value.float() for name, value in tensors.items()})
    record = {
        "command": "python scripts/train_intent.py",
        "requests": step * args.batch, "steps": step, "of_steps": args.steps,
        "step_kept": step_kept, "seed": args.seed,
        "learning_rate": args.lr, "minutes": round((time.time() - started) / 60, 1),
        "processor_minutes": round((time.process_time() - cpu) / 60, 1),
        "val_macro_f1": round(score_of(averaged.head, predict(averaged, encoder, val_texts), val_truth), 4),
        "temperature": [round(float(t), 3) for t in averaged.head.temperature],
        "encoder": "sentence-transformers/all-MiniLM-L6-v2", "torch": torch.__version__,
        "before": start,
    }  # fmt: skip
    _write(args.output, tensors, averaged.config, record)


def _stored(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In half precision, but for temperatures and the like."""
    return {name: value.half() if value.numel() > 100 else value for name, value in state.items()}


def _write(path: Path, tensors: Mapping[str, Tensor], config: Mapping, record: Mapping) -> None:
    data = save(tensors, {"network": json.dumps(config), "training": json.dumps(record)})
    with replace_on_success(path) as temporary:
        Path(temporary).write_bytes(data)
    print(f"{path}: {len(data) / 1000:.0f} kB; {json.dumps(record)}")


def average(args: argparse.Namespace) -> None:
    """Writes the mean of networks that were trained one from the other (a soup, Wortsman et al., ICML 2022)."""
    networks = [load_network(path) for path in args.average]
    if any(network.config != networks[0].config for network in networks):
        raise UserError("--average: the files hold networks of different shapes")
    tensors = _stored(checkpoint.mean([network.state_dict() for network in networks]))
    encoder, val = TextEncoder(), requests("val", args.val_count, args.seed)
    network = IntentNetwork(**networks[0].config)
    network.load_state_dict({name: value.float() for name, value in tensors.items()})
    network.encoder.attach(encoder.weights())
    score = score_of(network.head, predict(network, encoder, [request.text for request in val]), labels(val))
    runs = [run for network in networks for run in _runs(network.training_record)]
    record = {
        "command": "python scripts/train_intent.py --average",
        "val_macro_f1": round(score, 4),
        "mean_of": [network.training_record["val_macro_f1"] for network in networks],
        "before": list({json.dumps(run): run for run in runs}.values()),  # what they share once
    }
    _write(args.output, tensors, networks[0].config, record)


def _runs(record: Mapping) -> list[dict]:
    """All trainings and means that a file comes from, itself included, in their order."""
    return [*record.get("before", []), {key: value for key, value in record.items() if key != "before"}]


def _start(path: Path, network: IntentNetwork) -> list[dict]:
    """Takes over what an earlier training wrote, and gives the records of all that led to it."""
    earlier = load_network(path)
    if earlier.config != network.config:
        raise UserError(f"--start: {path} is a network of another shape")
    network.load_state_dict(earlier.state_dict())
    network.head.temperature.fill_(1)
    return _runs(earlier.training_record)


def _asked_to_stop() -> list[int]:
    """Becomes true at Ctrl-C: the training then ends at once and writes the best of what it has. A second one kills."""
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    return asked


def mean_recall(asks: Tensor, truth: Tensor) -> float:
    """Share of each sort of request that is recognised, mean over the sorts."""
    guess = asks.argmax(1)
    return float(np.mean([(guess[truth == sort] == sort).float().mean() for sort in truth.unique()]))


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
    done = np.array([[kind in gone for kind in KINDS] for gone in map(_done, intents)])
    each = {kind: f1(done[:, k], truth[:, k]) for k, kind in enumerate(KINDS)}
    print(f"\nbank, {split} split, {len(drawn)} requests")
    _row("F1", each, np.mean(list(each.values())))
    named = np.array([not request.everything for request in drawn])
    each = {kind: f1(done[named, k], truth[named, k]) for k, kind in enumerate(KINDS)}
    _row("  without requests for everything", each, np.mean(list(each.values())))
    stays = np.array([[kind in request.keep for kind in KINDS] for request in drawn])
    guess = np.array([[intent.keep[kind] > 0.5 for kind in KINDS] for intent in intents])
    each = {kind: f1(guess[:, k], stays[:, k]) for k, kind in enumerate(KINDS)}
    _row("  F1 of what is to stay", each, np.mean(list(each.values())))
    for ask in ASKS:
        chosen = [intent for request, intent in zip(drawn, intents) if request.asks == ask]
        right = sum(intent.meant == ask for intent in chosen)
        said = [request.asks == ask for request, intent in zip(drawn, intents) if intent.meant == ask]
        print(
            f"  asks for {ask}: {right / len(chosen):.3f} of {len(chosen)} recognised; "
            f"{np.mean(said) if said else float('nan'):.3f} of {len(said)} such readings true"
        )
    whole = [intent.everything > 0.5 for request, intent in zip(drawn, intents) if request.everything]
    print(f"  asks for everything: {np.mean(whole):.3f} of {len(whole)} recognised")
    exact = np.all(done == truth, axis=1)
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
        if _done(intent) != request.remove or intent.meant != request.asks:
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
    if Wish.of(intent).remove is None:
        return {"everything"}
    return {"blur" if kind in ("defocus", "motion") else kind for kind in _done(intent)}


def _done(intent: Intent) -> set[str]:
    """What a network that is told wishes would remove: what the reading is good for."""
    remove = Wish.of(intent).remove
    return set(KINDS) if remove is None else set(remove)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--evaluate", action="store_true", help="evaluate the shipped file instead of training one")
    parser.add_argument("--published", type=Path, metavar="FILE", help="JSON Lines of source, task and prompt")
    parser.add_argument("--mistakes", type=int, default=0, metavar="N", help="show so many of the validation split")
    parser.add_argument("--evaluate-count", type=int, default=2000, metavar="N", help="requests of each split")
    parser.add_argument("-o", "--output", type=Path, default=TARGET, metavar="FILE")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="requests a step")
    parser.add_argument("--start", type=Path, metavar="FILE", help="go on from what an earlier training wrote")
    parser.add_argument(
        "--average", type=Path, nargs="+", metavar="FILE", help="write the mean of trained files instead"
    )
    parser.add_argument("--every", type=int, default=250, metavar="STEPS", help="between two looks at validation")
    parser.add_argument("--val-count", type=int, default=3000, metavar="N", help="requests of the validation split")
    parser.add_argument("--adapted", type=int, default=3, metavar="N", help="layers of the encoder that are adapted")
    parser.add_argument("--rank", type=int, default=16, help="of the adaptation")
    parser.add_argument("--width", type=int, default=64, help="of the head")
    parser.add_argument("--word-dropout", type=float, default=0.1, metavar="SHARE", help="of words hidden in training")
    parser.add_argument("--lr", type=float, default=1.5e-3, help="the head's is twice this")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        (evaluate if args.evaluate else average if args.average else train)(args)
    except Exception as error:
        line = plain_line(error)
        if line is None:
            raise
        print(f"train_intent: {line}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
