"""Requests written by a language model: any server that speaks OpenAI's chat completions, or a local one.

What a model answers is not trusted: it must be a JSON list of texts, each new, and each about what it shall be about
and nothing else (see `mentions`). What will not do is asked for again, a few times; then the bank fills the gap.
"""

from __future__ import annotations

import email.utils
import functools
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import SplitResult, urlsplit, urlunsplit

from prompt_mamba_arch.errors import UserError, one_line
from prompt_mamba_arch.prompts.compose import for_kinds
from prompt_mamba_arch.prompts.mentions import fault
from prompt_mamba_arch.prompts.writers import Brief, Prompts, Said, from_bank

__all__ = ["Endpoint", "LocalModel", "ModelWriter", "endpoint_key", "messages", "parse_answer"]

KEY_VARIABLES = ("PROMPT_MAMBA_LLM_KEY", "OPENAI_API_KEY")

Messages = list[dict[str, str]]
Model = Callable[[Messages, random.Random], str]

_LONGEST_WAIT = 60.0  # seconds between two tries, unless the server asks for more
_LONGEST_ASKED_WAIT = 600.0
_LARGEST_ANSWER = 1 << 18  # bytes
_RETRIED = (408, 409, 425, 429)  # and all from 500 on

_PLAIN = {
    "noise": "noise or grain",
    "defocus": "blur because the focus was wrong",
    "motion": "blur because the camera or the subject moved",
    "jpeg": "JPEG compression artifacts such as blocks",
    "lowres": "low resolution: it is small or pixelated",
    "rain": "rain",
    "haze": "haze or fog",
    "lowlight": "it is too dark",
    "holes": "parts are missing or covered: holes, scratches, text, stamps",
}
_STYLES = (
    "a few keywords",
    "a polite question",
    "a complaint about how the picture looks, without a request",
    "somebody in a hurry on a phone, in small letters, perhaps with a wrong letter",
    "a professional photographer",
    "a child",
    "somebody whose English is not good",
    "a chatty sentence with a reason",
    "a plain imperative",
    "an elderly person who writes to a shop",
)


class ModelWriter:
    """Prompts by a language model.

    Args:
        model: called with the messages of a conversation; returns the answer's text.
        split: of the bank, for the examples that the model is shown and for what it cannot give.
        asks: how often a model is asked for an image's prompts until the bank fills the gap.
    """

    def __init__(self, model: Model, split: str = "train", asks: int = 3):
        self.model = model
        self.split = split
        self.asks = asks
        self.parallel = getattr(model, "parallel", False)

    def stop(self) -> None:
        getattr(self.model, "stop", lambda: None)()

    def write(self, brief: Brief, count: int, said: Said, rng: random.Random) -> Prompts:
        texts: list[str] = []
        reason = ""
        conversation = messages(brief, count, rng, self.split)
        for _ in range(self.asks):
            answer = self.model(conversation, rng)
            refused = []
            try:
                answers = parse_answer(answer)
            except ValueError as error:
                answers = []
                reason = str(error)
                refused.append(f"Your answer {reason}.")
            for text in answers:
                if len(texts) == count:
                    break
                wrong = fault(text, brief.remove, brief.stays)
                if wrong is None and not said.add(text):
                    wrong = "was given already"
                if wrong is None:
                    texts.append(text)
                else:
                    reason = wrong
                    refused.append(f"{json.dumps(text, ensure_ascii=False)} {wrong}.")
            missing = count - len(texts)
            if not missing:
                return Prompts(texts)
            if answers and not refused:
                reason = "had too few texts"
            again = " ".join([*refused[:8], f"Write {missing} other{'s' * (missing > 1)}: {_FORM}"])
            # only the last answer: a model that has gone astray would follow itself
            conversation = [
                *conversation[:2],
                {"role": "assistant", "content": answer[:4000]},
                {"role": "user", "content": again},
            ]
        filled, repeated = from_bank(brief, count - len(texts), said, rng, self.split, texts)
        return Prompts(texts + filled, len(filled), repeated, reason)


_FORM = "a JSON list of texts and nothing else."


def messages(brief: Brief, count: int, rng: random.Random, split: str = "train") -> Messages:
    """What to ask a model for."""
    examples = [for_kinds(brief.remove, (), rng, split) for _ in range(3)]
    if brief.remove:
        wish = "have removed: " + "; ".join(_PLAIN[kind] for kind in brief.remove)
        rule = "Each text names all of this in its own words, and mentions no other damage."
    else:
        wish = "have their photograph left exactly as it is"
        rule = "Each text says so in its own words, and mentions no kind of damage."
    if brief.severity and brief.remove:
        levels = [(kind, brief.severity[kind]) for kind in brief.remove if kind in brief.severity]
        words = [f"{kind}: {('slight', 'moderate', 'heavy')[min(int(value * 3), 2)]}" for kind, value in levels]
        rule += f" How strong it is, if a text says so: {', '.join(words)}." if words else ""
    styles = "; ".join(rng.sample(_STYLES, 3))
    return [
        {
            "role": "system",
            "content": "You write what people type when they ask a program to restore a photograph. "
            f"You answer with {_FORM}",
        },
        {
            "role": "user",
            "content": f"Write {count} short text{'s' * (count > 1)}, as different as can be, by people who want to "
            f"{wish}. {rule} Ways to write: {styles}. For example: {json.dumps(examples, ensure_ascii=False)}. "
            f"Do not repeat the examples. Answer with {_FORM}",
        },
    ]


def parse_answer(answer: str) -> list[str]:
    """The texts of a JSON list, which may stand in a code fence; a model's thoughts before it are left out.

    Raises:
        ValueError: it is none; the message goes on from "the answer …".
    """
    answer = re.sub(r"<think>.*?</think>", "", answer, flags=re.DOTALL)
    fenced = re.search(r"```\w*\s(.*?)```", answer, re.DOTALL)
    try:
        texts = json.loads(fenced[1] if fenced else answer)
    except ValueError:
        raise ValueError("was not a JSON list of texts") from None
    except RecursionError:
        raise ValueError("was not a JSON list of texts") from None
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("was not a JSON list of texts")
    return [" ".join(text.split()) for text in texts]


# ---- a server ------------------------------------------------------------------------------------------------------


def endpoint_key() -> str | None:
    """The key for a server, from the environment (KEY_VARIABLES) and nowhere else."""
    return next((os.environ[name].strip() for name in KEY_VARIABLES if os.environ.get(name, "").strip()), None)


class _Again(Exception):
    """This try failed, the next may not."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


class Endpoint:
    """A server with OpenAI's `POST /chat/completions`: OpenAI, vLLM, llama.cpp, Ollama and most others.

    Args:
        url: up to and including the version, `http://localhost:8000/v1`.
        model: as the server calls it.
        key: sent as a bearer token, if there is one. It is never part of a message.
        timeout: seconds for a whole answer.
        tries: of one request, until the server is given up.
        wait: seconds before the second try; each further wait is twice as long, up to a minute, or as long as the
            server's Retry-After says.
        temperature: sent if it is given; some models allow none but their own.

    Raises:
        UserError: on construction if the URL is none; on a call if the server refuses the request, or does not give an
            answer in all those tries.
    """

    parallel = True

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None = None,
        *,
        timeout: float = 120.0,
        tries: int = 6,
        wait: float = 1.0,
        temperature: float | None = None,
    ):
        try:
            parts = urlsplit(url.strip())
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"the server's URL must be like http://localhost:8000/v1, not {_public(parts)!r}")
        path = parts.path.rstrip("/")
        path += "" if path.endswith("/chat/completions") else "/chat/completions"
        parts = parts._replace(path=path, fragment="")
        self.url = urlunsplit(parts)
        self.name = _public(parts)
        self.model = model
        self.timeout = timeout
        self.tries = tries
        self._wait = wait
        self._temperature = temperature
        self._key = key
        self._stopped = threading.Event()
        self._local = threading.local()  # a session is not for several threads

    def __call__(self, conversation: Messages, rng: random.Random) -> str:
        payload = {"model": self.model, "messages": conversation}
        if self._temperature is not None:
            payload["temperature"] = self._temperature
        reason = ""
        for number in range(self.tries):
            try:
                return self._post(payload)
            except _Again as error:
                reason = str(error)
                if number + 1 == self.tries:
                    break
                usual = min(self._wait * 2**number, _LONGEST_WAIT) * rng.uniform(0.5, 1.0)
                if error.wait > _LONGEST_ASKED_WAIT:
                    raise UserError(f"{self.name} {reason} and asks to wait {error.wait:.0f} seconds") from None
                if self._stopped.wait(max(usual, error.wait)):
                    break
        raise UserError(f"{self.name} {reason} ({number + 1} tries)")

    def stop(self) -> None:
        """No further waiting, no further tries."""
        self._stopped.set()

    def _post(self, payload: dict) -> str:
        import requests

        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        # both: a server that sends a byte now and then never meets a socket's timeout
        deadline = time.monotonic() + self.timeout
        try:
            with self._local.session.post(
                self.url,
                json=payload,
                auth=self._authorize,  # as a header, a ~/.netrc would replace it
                timeout=(min(self.timeout, 20.0), self.timeout),
                stream=True,
            ) as response:
                body = bytearray()
                for part in response.iter_content(1):  # larger parts would be waited for; 5 µs each
                    body += part
                    if time.monotonic() > deadline or self._stopped.is_set():
                        raise _Again(f"did not answer within {self.timeout:g} seconds")
                    if len(body) > _LARGEST_ANSWER:
                        raise UserError(f"{self.name} answers with more than 256 kB; is it a chat server?")
        except requests.Timeout:
            raise _Again(f"did not answer within {self.timeout:g} seconds") from None
        except requests.RequestException as error:
            if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.TooManyRedirects)):
                raise UserError(f"{self.name} cannot be asked: {type(error).__name__}") from None
            raise _Again(f"cannot be reached or broke off ({type(error).__name__})") from None
        return self._content(response.status_code, response.headers.get("Retry-After"), bytes(body))

    def _authorize(self, request):
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _content(self, status: int, retry_after: str | None, body: bytes) -> str:
        if status in _RETRIED or status >= 500:
            raise _Again(f"answers {status}", _seconds(retry_after))
        if status in (401, 403):
            # the server's own words may hold a part of the key
            raise UserError(f"{self.name} refuses the key ({status}); set {KEY_VARIABLES[0]}")
        if not 200 <= status < 300:
            raise UserError(f"{self.name} refuses the request ({status}){self._quoted(body)}")
        try:
            content = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise _Again("answers with what is no chat completion") from None
        return content if isinstance(content, str) else ""  # null where a model refuses: as good as a wrong answer

    def _quoted(self, body: bytes) -> str:
        text = one_line(body[:2000].decode("utf-8", "replace"))
        if self._key:
            text = text.replace(self._key, "…")
        return f": {text[:200]}" if text else ""


def _public(parts: SplitResult) -> str:
    """Without user name, password and query, which may be secret."""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _seconds(retry_after: str | None) -> float:
    """Of a Retry-After header (RFC 9110, 10.2.3): seconds or a date. 0 if there is none, or none that is understood."""
    text = (retry_after or "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", text):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0


# ---- a local model -------------------------------------------------------------------------------------------------


class LocalModel:
    """A text generation model of `transformers`, from a folder or from the Hugging Face hub.

    Args:
        name: a folder or a name.
        device: auto, cpu, cuda, …
        most_tokens: of an answer.

    Raises:
        UserError: there is no such model, or it cannot be loaded.
    """

    parallel = False

    def __init__(self, name: str, device: str = "auto", *, most_tokens: int = 400, temperature: float = 1.0):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        name = os.path.expanduser(name)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name)
            self._net = AutoModelForCausalLM.from_pretrained(name, torch_dtype="auto").to(device).eval()
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise UserError(f"cannot load the language model {name!r}: {one_line(error)[:300]}") from None
        self._most_tokens = most_tokens
        self._temperature = temperature

    def __call__(self, conversation: Messages, rng: random.Random) -> str:
        import torch

        ids, mask = self._encode(conversation)
        device = self._net.device
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.no_grad():
            torch.manual_seed(rng.getrandbits(63))
            out = self._net.generate(
                ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=self._most_tokens,
                do_sample=True,
                temperature=self._temperature,
                top_p=0.95,
                pad_token_id=self._pad,
            )
        return self._tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)

    @functools.cached_property
    def _pad(self) -> int:
        known = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id)
        return next((token for token in known if token is not None), 0)

    def _encode(self, conversation: Sequence[dict[str, str]]):
        """`(1, L)` token ids and mask; the newest part, where a model cannot read more."""
        if getattr(self._tokenizer, "chat_template", None):
            text = self._tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
            encoded = self._tokenizer(text, return_tensors="pt", add_special_tokens=False)
        else:
            text = "\n\n".join(part["content"] for part in conversation) + "\n\n"
            encoded = self._tokenizer(text, return_tensors="pt")
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        most = getattr(self._net.config, "max_position_embeddings", None)
        if most:
            room = max(1, most - self._most_tokens)
            ids, mask = ids[:, -room:], mask[:, -room:]
        return ids, mask
