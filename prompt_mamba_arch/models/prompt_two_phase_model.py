"""Training in two phases: first the network without any text, then with prompts."""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import get_dist_info, master_only
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.ensemble import self_ensemble
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.half_precision import crawls_in_bfloat16
from prompt_mamba_arch.models import checkpoint
from prompt_mamba_arch.models.intent_loss import IntentLoss
from prompt_mamba_arch.models.two_phase_options import (
    AMP_DTYPES,
    check_options,
    frozen_parameters,
    takes_prompts,
)
from prompt_mamba_arch.models.validation import validate
from prompt_mamba_arch.text import TextEncoder, Wish, read_intents, wish_vectors

__all__ = ["PromptTwoPhaseModel"]

_ABSENT_SHARE = 0.01  # of each kind that is not in an image: how often it is wished away all the same
_ANY_BLUR_SHARE = 0.4  # where one blur should go: how often the other is wished away with it, as "blur" is read as both


@MODEL_REGISTRY.register()
class PromptTwoPhaseModel(SRModel):
    """BasicSR's SRModel for networks with `forward(x, prompt=None)`.

    `train.phase: pretrain` trains the network without text; its text parameters are frozen. `train.phase: finetune`
    starts from that network (`path.pretrain_network_g`) and trains with prompts.

    What it reads from the option file beyond SRModel:

        train.phase            pretrain or finetune
        train.prompt_dropout   share of samples whose prompt is left out, so that the blind mode stays alive; finetune.
                               Samples that should keep some of what is wrong with them keep their prompt
        train.sentence_share   for a network with `wishes: true`: share of samples whose prompt stays a sentence's
                               embedding, so that the network understands both; finetune. The others are told the
                               kinds that should go, and sometimes a kind that is not there, whose removal changes
                               nothing
        train.text_gate_std    phase 2 starts with random text gates of this standard deviation instead of neutral ones:
                               the first results are worse, and what prompts ask for is learned sooner; finetune
        train.freeze           none, backbone (all but the text parameters) or a list of regular expressions
        train.amp              none, bf16 or fp16: precision of the network's forward pass in training
        train.grad_clip        greatest norm of the gradient
        train.accumulate       passes the batch in so many parts, whose gradients add up: less memory, same result
        train.intent_opt       loss_weight of an auxiliary loss: the network's text features must tell which kinds the
                               prompt asks to remove (InstructIR's intent head); finetune
        train.frequency_opt    a loss on Fourier coefficients, beside pixel_opt and perceptual_opt
        val.prompt             from_dataset, none (blind) or one text for all images
        val.self_ensemble      true: results are means over the eight turned and mirrored versions of each image
        path.pretrain_network_g  several files: the mean of their weights (a model soup). A test writes it to
                               net_g_mean.pth in its folder of results
        text_encoder           model and device of the TextEncoder

    An iteration is one batch and one step of the optimizer. Everything that is drawn at random in it follows from
    (manual_seed, iteration, process), so a run that continues from a training state has the losses that it would have
    had without the interruption.
    """

    check_options = staticmethod(check_options)  # the launchers ask the model before they make any folder
    averages_networks = True

    def __init__(self, opt: dict[str, Any]):
        check_options(opt, opt["is_train"])
        train = opt.get("train") or {}
        self.phase = train.get("phase") if opt["is_train"] else None
        self.freeze = train.get("freeze")
        if self.phase and self.freeze == "backbone" and opt["path"].get("pretrain_network_g") is None:
            raise UserError(
                "train.freeze: backbone needs the network that it keeps; name it in path.pretrain_network_g"
            )
        self._text_encoder: TextEncoder | None = None
        super().__init__(opt)
        if self.phase == "finetune":
            self._require_text()
        if not opt["is_train"] and isinstance(opt["path"].get("pretrain_network_g"), list):
            self._save_mean()

    # ------------------------------------------------------------------------------------------------- building

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Freezes before DDP looks which parameters need a gradient."""
        if self.phase:
            frozen = frozen_parameters(net, self.phase, self.freeze)
            for name, parameter in net.named_parameters():
                # some networks hold parameters that no loss here reaches, and say so
                parameter.requires_grad_(parameter.requires_grad and name not in frozen)
        return super().model_to_device(net)

    def init_training_settings(self) -> None:
        train = self.opt["train"]
        self.net_g.train()
        self.grad_clip = train.get("grad_clip") or math.inf
        self.accumulate = int(train.get("accumulate") or 1)
        self.prompt_dropout = train.get("prompt_dropout") or 0.0
        self.sentence_share = (train.get("sentence_share") or 0.0) if self.tells_wishes else 1.0
        self.amp_dtype = self._amp_dtype(train.get("amp") or "none")
        self.scaler = _grad_scaler(enabled=self.amp_dtype is torch.float16)

        self._wake_text_gates(self.get_bare_model(self.net_g))
        self.ema_decay = train.get("ema_decay") or 0
        if self.ema_decay > 0:
            self.net_g_ema = build_network(self.opt["network_g"]).to(self.device).eval().requires_grad_(False)
            path = self.opt["path"].get("pretrain_network_g")
            if path is None:
                self.model_ema(0)
            else:
                self.load_network(self.net_g_ema, path, self.opt["path"].get("strict_load_g", True), "params_ema")
                self._wake_text_gates(self.net_g_ema)

        # attributes as SRModel names them, so that what builds on SRModel finds them
        self.cri_pix, self.cri_frequency, self.cri_perceptual = (
            build_loss(train[key]).to(self.device) if train.get(key) else None
            for key in ("pixel_opt", "frequency_opt", "perceptual_opt")
        )
        self.intent_loss = None
        if train.get("intent_opt"):
            self.intent_loss = IntentLoss(self.get_bare_model(self.net_g), **train["intent_opt"]).to(self.device)
        self.setup_optimizers()
        self.setup_schedulers()

    def _wake_text_gates(self, net: nn.Module) -> None:
        """The same numbers for the network and its average; a run that is resumed has gates that are awake."""
        std = self.opt["train"].get("text_gate_std")
        if std:
            if not hasattr(net, "wake_text_gates"):
                raise UserError(f"train.text_gate_std: {self.opt['network_g']['type']} has no text gates; remove it")
            net.wake_text_gates(std, torch.Generator().manual_seed(self.opt.get("manual_seed") or 0))

    def setup_optimizers(self) -> None:
        options = dict(self.opt["train"]["optim_g"])
        trained = [p for p in self.net_g.parameters() if p.requires_grad]
        every = list(self.net_g.parameters())
        get_root_logger().info(
            f"Phase {self.phase} trains {sum(p.numel() for p in trained):,d} of {sum(p.numel() for p in every):,d} "
            f"parameters, {len(trained)} of {len(every)} tensors."
        )
        if self.intent_loss is not None:
            trained += self.intent_loss.parameters()
        self.optimizer_g = self.get_optimizer(options.pop("type"), trained, **options)
        self.optimizers.append(self.optimizer_g)

    # ----------------------------------------------------------------------------------------------------- text

    @property
    def text_encoder(self) -> TextEncoder:
        """The frozen sentence encoder; built when it is first needed."""
        if self._text_encoder is None:
            options = self.opt.get("text_encoder") or {}
            self._text_encoder = TextEncoder(options.get("model"), options.get("device") or "cpu")
        return self._text_encoder

    def _require_text(self) -> None:
        """Raises UserError unless the network takes prompts, and embeddings of the encoder's length."""
        net = self.get_bare_model(self.net_g)
        kind = self.opt["network_g"]["type"]
        if not takes_prompts(net):
            raise UserError(f"{kind} takes no prompts: train it with phase: pretrain, or with model_type: SRModel")
        length = getattr(net, "config", {}).get("text_dim", self.text_encoder.dim)
        if length != self.text_encoder.dim:
            raise UserError(
                f"network_g.text_dim is {length}, but the text encoder {str(self.text_encoder.folder)!r} gives "
                f"{self.text_encoder.dim} numbers"
            )

    def _embed(self, prompts: list[str]) -> Tensor | None:
        """`(B, text_dim)` on the network's device; None if no image has a prompt, which means the same to the network
        as zeros and needs no encoder."""
        if not any(prompt.strip() for prompt in prompts):
            return None
        if self._text_encoder is None:
            self._require_text()
        if self.tells_wishes:
            return wish_vectors(map(Wish.of, read_intents(prompts)), self.text_encoder.dim).to(self.device)
        return self.text_encoder.encode(prompts).to(self.device)

    @property
    def tells_wishes(self) -> bool:
        """Whether the network is told what sentences were read to ask for."""
        return bool(getattr(self.get_bare_model(self.net_g), "config", {}).get("wishes", False))

    # ------------------------------------------------------------------------------------------------- training

    def feed_data(self, data: Mapping[str, Any]) -> None:
        self.lq = data["lq"].to(self.device, non_blocking=True)
        self.gt = data["gt"].to(self.device, non_blocking=True) if "gt" in data else None
        self.prompts = list(data["prompt"]) if "prompt" in data else None
        self.names = [str(name) for name in data.get("lq_path", ())]
        # a target in which something is left to remove belongs to its prompt: without one it would teach to leave it
        self.partial = (data["present"] > data["remove"]).any(1) if {"remove", "present"} <= set(data) else None
        self.kinds = (data["remove"], data["present"]) if self.partial is not None else None
        self.recipes = list(data.get("recipe", ()))

    def optimize_parameters(self, current_iter: int) -> None:
        dice = self._seed_iteration(current_iter)
        prompts = self._training_prompts(dice)
        losses, healthy = OrderedDict(), []
        if self.intent_loss is not None:
            self.intent_loss.feed(*self._wanted_kinds(prompts))

        self.optimizer_g.zero_grad(set_to_none=True)
        size = len(self.lq)
        rows = torch.arange(size).tensor_split(self.accumulate)
        rows = [slice(int(part[0]), int(part[-1]) + 1) for part in rows if len(part)]
        for part in rows:
            share = (part.stop - part.start) / size  # losses are means over the images
            with self._gradients_stay_here(part is not rows[-1]):
                with self._autocast():
                    output = self._run(self.net_g, self.lq[part], prompts if prompts is None else prompts[part])
                output, gt = output.float(), self.gt[part]
                parts = self._losses(output, gt)
                if self.intent_loss is not None:
                    parts["l_intent"] = self.intent_loss(part)
                self.scaler.scale(share * sum(parts.values())).backward()
            healthy.append(torch.isfinite(output.detach() - gt).flatten(1).all(1))
            for name, value in parts.items():
                losses[name] = losses.get(name, 0) + share * value.detach()

        if self.intent_loss is not None and self.opt["dist"]:
            self.intent_loss.average_gradients(self.opt["world_size"])
        self.scaler.unscale_(self.optimizer_g)
        trained = [p for group in self.optimizer_g.param_groups for p in group["params"]]
        losses["grad_norm"] = nn.utils.clip_grad_norm_(trained, self.grad_clip)
        self.log_dict = self.reduce_loss_dict(losses)
        self._stop_unless_finite(current_iter, healthy)
        self.scaler.step(self.optimizer_g)
        self.scaler.update()
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def _seed_iteration(self, current_iter: int) -> torch.Generator:
        """Seeds torch for what the network draws (dropout, for example); returns a generator for our own draws."""
        rank, _ = get_dist_info()
        seed = ((self.opt.get("manual_seed") or 0) * 0x9E3779B1 + current_iter * 4096 + rank) % 2**63
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        return torch.Generator().manual_seed(seed + 1)

    def _training_prompts(self, dice: torch.Generator) -> Tensor | None:
        """None in phase pretrain; else `(B, text_dim)` with rows of zeros for blind samples. Always a tensor in
        finetune, so that the text parameters are part of every graph (DDP waits for all gradients)."""
        if self.phase == "pretrain":
            return None
        if self.prompts is None:
            raise UserError(
                f"dataset {self.opt['datasets']['train']['name']!r} gives no prompts, which train.phase: finetune "
                "needs; use PromptPairedImageDataset"
            )
        dropped = torch.rand(len(self.prompts), generator=dice) < self.prompt_dropout
        if self.partial is not None:
            dropped &= ~self.partial
        wished = torch.rand(len(self.prompts), generator=dice) >= self.sentence_share
        blind = torch.tensor([not prompt.strip() for prompt in self.prompts]) | dropped
        written = ["" if silent else prompt for prompt, silent in zip(self.prompts, (blind | wished).tolist())]
        prompts = self.text_encoder.encode(written)
        told = wished & ~blind
        if told.any():
            wishes = self._training_wishes(dice, told.tolist())
            prompts[told] = wish_vectors((wish for wish in wishes if wish is not None), prompts.shape[1])
        return prompts.to(self.device)

    def _training_wishes(self, dice: torch.Generator, told: list[bool]) -> list[Wish | None]:
        """What should go of each image, and now and then a kind that is not there; None where it is not told. Where the
        data does not say, its prompt is read."""
        if self.kinds is None:
            raise UserError(
                f"dataset {self.opt['datasets']['train']['name']!r} does not say what its prompts ask to remove, which "
                "a network with wishes: true needs; use PromptDegradationDataset, or write train.sentence_share: 1"
            )
        remove, present = (kinds.cpu() > 0 for kinds in self.kinds)
        absent = ~present
        # a dark photograph has its own noise, which is not the kind "noise" but looks like it
        absent[:, KINDS.index("noise")] &= ~present[:, KINDS.index("lowlight")]
        extra = absent & (torch.rand(present.shape, generator=dice) < _ABSENT_SHARE)
        blurs = [KINDS.index("defocus"), KINDS.index("motion")]
        any_blur = remove[:, blurs].any(1) & (torch.rand(len(remove), generator=dice) < _ANY_BLUR_SHARE)
        extra[:, blurs] |= absent[:, blurs] & any_blur[:, None]
        said = (remove | present).any(1).tolist()
        recipes = self.recipes or [""] * len(said)  # that of an image without damage is empty, but there is one
        silent = [tell and not (known or recipe) for tell, known, recipe in zip(told, said, recipes)]
        read = iter(read_intents([prompt for prompt, quiet in zip(self.prompts, silent) if quiet]))
        wishes = [
            Wish.of(next(read)) if quiet else Wish(kind for kind, go in zip(KINDS, row) if go)
            for quiet, row in zip(silent, (remove | extra).tolist())
        ]
        return [wish if tell else None for wish, tell in zip(wishes, told)]

    def _wanted_kinds(self, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """`remove` (B, kinds), and for which rows (B,) it holds: those with a prompt, of images of known damage."""
        if self.kinds is None:
            raise UserError(
                f"dataset {self.opt['datasets']['train']['name']!r} does not say what its prompts ask to remove, which "
                "train.intent_opt needs; use PromptDegradationDataset, or remove train.intent_opt"
            )
        remove, present = (kinds.to(self.device) for kinds in self.kinds)
        return remove, (prompts != 0).any(1) & ((remove + present) > 0).any(1)

    def _amp_dtype(self, amp: str) -> torch.dtype | None:
        if amp == "bf16" and crawls_in_bfloat16(self.device):
            get_root_logger().warning(
                "train.amp: bf16 is many times slower than float32 on this processor, which lacks its instructions; "
                "this run computes in float32."
            )
            return None
        return AMP_DTYPES[amp]

    def _run(self, net: nn.Module, lq: Tensor, prompts: Tensor | None) -> Tensor:
        return net(lq) if prompts is None else net(lq, prompts)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)

    @contextlib.contextmanager
    def _gradients_stay_here(self, stay: bool) -> Iterator[None]:
        """Under DDP the gradients of all but the last part of a batch need not be exchanged."""
        with self.net_g.no_sync() if stay and hasattr(self.net_g, "no_sync") else contextlib.nullcontext():
            yield

    def _losses(self, output: Tensor, gt: Tensor) -> OrderedDict[str, Tensor]:
        losses = OrderedDict()
        if self.cri_pix:
            losses["l_pix"] = self.cri_pix(output, gt)
        if self.cri_frequency:
            losses["l_freq"] = self.cri_frequency(output, gt)
        if self.cri_perceptual:
            perceptual, style = self.cri_perceptual(output, gt)
            losses.update({k: v for k, v in (("l_percep", perceptual), ("l_style", style)) if v is not None})
        return losses

    def reduce_loss_dict(self, loss_dict: Mapping[str, Tensor]) -> OrderedDict[str, float]:
        """The mean over the processes, in all of them."""
        values = torch.stack([value.detach().float() for value in loss_dict.values()])
        if self.opt["dist"]:
            dist.all_reduce(values)
            values /= self.opt["world_size"]
        return OrderedDict(zip(loss_dict, values.tolist()))

    def _stop_unless_finite(self, current_iter: int, healthy: list[Tensor]) -> None:
        """Raises UserError before a loss or a gradient that is not finite reaches the parameters. All processes come to
        the same verdict, as all have the mean loss and the same gradient."""
        bad = [name for name, value in self.log_dict.items() if not math.isfinite(value)]
        if self.scaler.is_enabled() and bad == ["grad_norm"]:
            # usual with fp16: GradScaler leaves this step out and lowers the scale
            if self.scaler.get_scale() > 2.0**-20:
                return
            bad = ["grad_norm at any scale of the loss"]
        if not bad:
            return
        suspects = [name for name, good in zip(self.names, torch.cat(healthy).tolist()) if not good]
        if self.opt["dist"]:
            shares = [None] * self.opt["world_size"]
            dist.all_gather_object(shares, (suspects, self.names))
            suspects = [name for share in shares for name in share[0]]
            names = [name for share in shares for name in share[1]]
        else:
            names = self.names
        raise UserError(
            f"iteration {current_iter}: {', '.join(bad)} is not finite (images {', '.join(suspects or names)}); "
            "look at them, lower the learning rate, or set train.grad_clip; saved networks are from before"
        )

    @torch.no_grad()
    def model_ema(self, decay: float = 0.999) -> None:
        """Moves the averaged network towards the trained one: parameters and floating-point buffers; other buffers
        (counters, indices) are copied."""
        trained, averaged = self.get_bare_model(self.net_g).state_dict(), self.net_g_ema.state_dict()
        for name, value in averaged.items():
            if value.is_floating_point():
                value.lerp_(trained[name], 1 - decay)
            else:
                value.copy_(trained[name])

    # ----------------------------------------------------------------------------------------------- validation

    def test(self) -> None:
        """`self.output` of `self.lq`: float32, the averaged network if there is one, prompts as `val.prompt` says."""
        net = self.get_bare_model(getattr(self, "net_g_ema", self.net_g))
        training, tf32 = net.training, torch.backends.cudnn.allow_tf32
        net.eval()
        torch.backends.cudnn.allow_tf32 = False  # convolutions on a GPU round to 10 bits otherwise
        try:
            with torch.no_grad():
                prompts = self._embed(self._validation_prompts())
                if (self.opt.get("val") or {}).get("self_ensemble"):
                    self.output = self_ensemble(lambda seen: self._run(net, seen, prompts), self.lq)
                else:
                    self.output = self._run(net, self.lq, prompts)
        finally:
            torch.backends.cudnn.allow_tf32 = tf32
            net.train(training)

    def _validation_prompts(self) -> list[str]:
        wanted = (self.opt.get("val") or {}).get("prompt", "none" if self.phase == "pretrain" else "from_dataset")
        if wanted == "from_dataset":
            return self.prompts or [""] * len(self.lq)
        return ["" if wanted == "none" else wanted] * len(self.lq)

    def get_current_visuals(self) -> OrderedDict[str, Tensor]:
        visuals = OrderedDict(lq=self.lq.detach().cpu(), result=self.output.detach().cpu())
        if self.gt is not None:
            visuals["gt"] = self.gt.detach().cpu()
        return visuals

    def nondist_validation(self, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        """Validates on one dataset; the processes share the images and all have the result, `self.metric_results`."""
        if self.opt["dist"]:  # buffers (batch statistics) may differ; what process 0 saves counts
            for buffer in self.get_bare_model(getattr(self, "net_g_ema", self.net_g)).buffers():
                dist.broadcast(buffer, 0)
        if self.opt["is_train"]:  # BasicSR's loop counts on behind the last iteration
            current_iter = min(current_iter, int(self.opt["train"]["total_iter"]))
        name = dataloader.dataset.opt["name"]
        self.metric_results = validate(self, dataloader, name, current_iter, save_img)
        if self.metric_results:
            self._initialize_best_metric_results(name)
            for metric, value in self.metric_results.items():
                self._update_best_metric_result(name, metric, value, current_iter)
            self._log_validation_metric_values(current_iter, name, tb_logger)

    dist_validation = nondist_validation

    # ---------------------------------------------------------------------------------------- files and resuming

    def load_network(
        self, net: nn.Module, load_path: str | list[str], strict: bool = True, param_key: str | None = "params"
    ) -> None:
        """As BasicSR's; of several files the mean of their weights; one that does not fit is refused with what
        differs."""
        net = self.get_bare_model(net)
        if not isinstance(load_path, list):
            self._load_file(net, load_path, strict, param_key)
            return
        start = {name: value.clone() for name, value in net.state_dict().items()}
        states = []
        for path in load_path:
            net.load_state_dict(start)  # what a file lacks is not the one's before it
            self._load_file(net, path, strict, param_key)
            states.append({name: value.clone() for name, value in net.state_dict().items()})
        net.load_state_dict(checkpoint.mean(states))
        get_root_logger().info(f"{type(net).__name__} has the mean of the weights of {len(load_path)} files.")

    def _load_file(self, net: nn.Module, load_path: str, strict: bool, param_key: str | None) -> None:
        try:
            super().load_network(net, load_path, strict, param_key)
        except UserError as exc:
            raise UserError(checkpoint.explain(exc, net, load_path, param_key)) from exc

    @master_only
    def save_network(
        self, net: nn.Module | list, net_label: str, current_iter: int, param_key: str | list = "params"
    ) -> None:
        """As BasicSR's, with the constructor's arguments and the phase, and never a half-written file."""
        nets, keys = (thing if isinstance(thing, list) else [thing] for thing in (net, param_key))
        nets = [self.get_bare_model(one) for one in nets]
        content = {key: {k: v.detach().cpu() for k, v in one.state_dict().items()} for one, key in zip(nets, keys)}
        content["network_g"] = self._network_section(nets[0])
        content["phase"] = self.phase
        name = f"{net_label}_{'latest' if current_iter == -1 else current_iter}.pth"
        checkpoint.write(content, Path(self.opt["path"]["models"], name))

    @master_only
    def _save_mean(self) -> None:
        """The mean of several networks as a file for other commands, under the key that it was read from."""
        net = self.get_bare_model(self.net_g)
        key = self.opt["path"].get("param_key_g") or "params"
        content = {key: {name: value.detach().cpu() for name, value in net.state_dict().items()}}
        content["network_g"] = self._network_section(net)
        content["phase"] = checkpoint.same_phase(self.opt["path"]["pretrain_network_g"])
        path = Path(self.opt["path"]["results_root"], "net_g_mean.pth")
        checkpoint.write(content, path)
        get_root_logger().info(f"The mean is in {path}.")

    def _network_section(self, net: nn.Module) -> dict[str, Any]:
        """Type and constructor's arguments, which a file of the network says."""
        arguments = getattr(net, "config", None) or self.opt["network_g"]
        return {"type": self.opt["network_g"]["type"], **checkpoint.plain(arguments)}

    @master_only
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """What `--auto_resume` continues from. `save()` writes the network first: no state names a missing file."""
        if current_iter == -1:
            return
        state = {
            "epoch": epoch,
            "iter": current_iter,
            "phase": self.phase,
            "manual_seed": self.opt.get("manual_seed"),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "scaler": self.scaler.state_dict(),
            "intent": None if self.intent_loss is None else self.intent_loss.state_dict(),
            "best": checkpoint.plain(getattr(self, "best_metric_results", {})),
        }
        checkpoint.write(state, Path(self.opt["path"]["training_states"], f"{current_iter}.state"))

    def resume_training(self, resume_state: Mapping[str, Any]) -> None:
        path = self.opt["path"].get("resume_state")
        stored = resume_state.get("phase")
        if stored != self.phase:
            told = f"belongs to phase {stored}" if stored else "was not written by PromptTwoPhaseModel"
            raise UserError(
                f"the training state {str(path)!r} {told}, but train.phase is {self.phase}; give "
                "this run a name of its own, and the other phase's network as path.pretrain_network_g"
            )
        try:
            super().resume_training(resume_state)
        except (ValueError, AssertionError) as exc:
            raise UserError(
                f"the training state {str(path)!r} does not fit this option file ({exc}); network_g, train.freeze, "
                "train.intent_opt, train.optim_g and train.scheduler must be as they were"
            ) from exc
        if self.intent_loss is not None:
            self.intent_loss.load_state_dict(resume_state["intent"])
        if self.scaler.is_enabled() and resume_state.get("scaler"):
            self.scaler.load_state_dict(resume_state["scaler"])
        wanted = set((self.opt.get("val") or {}).get("metrics") or ())
        best = {name: record for name, record in resume_state.get("best", {}).items() if set(record) == wanted}
        if best:
            self.best_metric_results = best
        if get_dist_info()[0] == 0:
            checkpoint.remove_leftovers(self.opt["path"]["models"], self.opt["path"]["training_states"])


def _grad_scaler(enabled: bool) -> Any:
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler("cuda", enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)  # before torch 2.3
