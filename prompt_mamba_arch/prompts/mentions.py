"""Which degradations a sentence names: a table of words, to check what a language model has written.

It is no reader of requests: it cannot tell "remove the noise" from "keep the noise". A sentence that speaks of a
degradation in words that are not here is taken for one that does not name it, and is then asked for again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

__all__ = ["BLUR", "WORDS", "fault", "mentions"]

BLUR = "blur"  # named without saying which

# Beginnings of words, as regular expressions; "\b" at the end is for whole words. "Dots", "spots", "lines" and the like
# belong to several kinds and count for none of them alone.
WORDS: Mapping[str, str] = {
    "noise": r"(?<!mosquito )(?<!compression )(?<!jpeg )(?:nois|denois|grain|grit|speck|despeck|static\b)|iso\b|pepper|"
    r"mottl|stippl|sandy|sandiness|sandpaper|granular|flecks|(?:hot|stuck|stray|random) pixels?|colou?red dots|"
    r"sensor dots|random dots",
    "defocus": r"(?:de|un|mis|re|out[- ]?of[- ]?|auto)?-?focus|focal|bokeh|depth of field|lens (?:blur|soft)",
    "motion": r"motion|movement|mov(?:ed|ing)\b|shak(?:e|y|in)|shook|tremb|ghosting|smear of|wobbl|jitter|panning|"
    r"tripod",
    BLUR: r"(?:un|de)?blur|(?:un)?sharp|crisp|fuzz|soft(?:ness|\b)|smear",
    "jpeg": r"jpe?g|compress|decompress|(?<!scaling )art[ie]fact|mosquito|ringing|banding|codec|deblock|"
    r"(?<!missing )(?<!corrupted )(?<!grey )(?<!gray )"
    r"block(?!(?:s|ing) (?:the|my|every|part|out)|y pix|ed[- ](?:out|up))|"
    r"(?<!missing )(?<!empty )(?<!cut-out )(?<!blank )(?<!grey )(?<!gray )squares\b|macroblock|quanti[sz]|bit ?rate|"
    r"lossy|re-?(?:sav|encod)|encoder|generation loss|posteri[sz]|terraces|gibbs|8x8",
    "lowres": r"resol|(?:lo|low|high|hi)[- ]?res\b|(?:super|up)[- ]?(?:res|scal|sampl)|down[- ]?(?:scal|sampl)|enlarg|"
    r"(?:un)?pixel(?:at|is|iz)|pixel (?:density|number|grid|steps)|of pixels|bigger|larger|jagg|thumbnail|[248]k\b|"
    r"(?:big|coarse|visible|large|chunky|few|giant|huge|fewer|more|blocky) pixels|(?:anti-?)?alias|stair|resiz|shrunk|"
    r"(?:under|sub)-?sampl|interpolat|nearest[- ]neighbou?r|shrink|dpi\b|small (?:format|size|version|copy)|tiny size|"
    r"(?:low|more|high|higher|poor|lack of) (?:definition|detail)",
    "rain": r"(?:de)?rain|drizz|downpour|storm|thunderstorm|shower|wet\b|water ?(?:drop|streak)|drops? of|pouring",
    "haze": r"(?:de)?(?:haz|fog)|mist(?!ak)|smog|smoke|smoky|murk|milky|veil|pollut|visibility",
    "lowlight": r"(?<!murky )(?:dark(?! (?:area|part))|bright|light(?:en|er\b|ing|s\b)|night(?! shot)|"
    r"(?:under-?)?expos|dim\b|dimness|gloom|illumin|(?<!in the )(?<!noisy )shadow|lit\b|relight)|"
    r"(?:low|more|bad|poor|dim|little|no|enough|insufficient|inadequate|lack of|want of|shortage of|absence of|missing|"
    r"without|dull|weak|faint|feeble|meagre|sparse|scant|dismal|dreary|dusky)[- ]?light\b|light (?:shortage|falloff)|"
    r"lightless|unlit|underlit|backli|dusk|blackness|(?:inky|crushed) blacks|pitch[- ]black|silhouette|lumin|lux\b|"
    r"contre-jour|obscurity",
    "holes": r"hole|missing (?!res|light|flash|pixels of)|inpaint|watermark|scratch|(?<!pixelated )text\b|letters?\b|"
    r"logo|caption|(?<!postage-)(?<!postage )stamp\b|torn|tear|crack|blank|empty|gap|mask|scribbl|stain|strokes?|"
    r"crease|lettering|writing|overlay|damaged|lost (?!res|detail|in\b|to\b)|cover(?:ed|ing|s)?\b|"
    r"erased (?:area|part|patch|region)|rectangle|cut-?outs?\b|corrupted (?:area|part|block|square|patch)|dust\b|dirt|"
    r"folds?\b|paint\b|ink\b|crayon|marker|drawn|emulsion|"
    r"dead (?:area|part)|absent|vacant|void|hollow|cavity|occlu|obstruct|hidden (?:part|area)|sticker|"
    r"label\b|tape\b|subtitle|doodle|scrawl|signature|autograph|trademark|banner|emblem|crest\b|emoji|smiley|"
    r"barcode|redact|censor|sellotape|glue|mould|mildew|fungus|stuck on|water damage|burn(?:t|ed)? (?:mark|corner)|"
    r"scorch|singed|charred|peel|flak|scuff|scrape|nicks\b|gouge|puncture|rips?\b|slits?\b|pinhole|blots?\b|"
    r"blotch|lint\b|hairs\b|foxing|(?:black|white|gr[ae]y) (?:patch|part|area|box|bar|rect|line|mark|shape|blob|square|"
    r"block)",
}  # fmt: skip
_PATTERNS = {name: re.compile(rf"\b(?:{words})") for name, words in WORDS.items()}
_BLURS = ("defocus", "motion")
_LEAVE = re.compile(
    r"\b(?:leave|keep|nothing|untouched|unchanged|unedited|alone|as[- ](?:it )?is\b|as it was|same|return|original|"
    r"fine|like it (?:as|how|this)|"
    r"(?:do not|don'?t|dont|never|not|no) (?:need|have|touch|chang|edit|alter|modif|fix|do\b))"
)
_LONGEST = 200  # characters


def mentions(text: str) -> frozenset[str]:
    """The kinds that the text names; "blur" where it names blur (of either kind)."""
    text = text.lower()
    return frozenset(name for name, pattern in _PATTERNS.items() if pattern.search(text))


def fault(text: str, remove: Collection[str], stays: Collection[str] = ()) -> str | None:
    """What is wrong with a request that shall ask to remove exactly `remove`, in plain words; None if it will do.

    Args:
        remove: every one of these must be named, no other kind may be. Empty: it must ask to change nothing.
        stays: other kinds in the image. If the other blur is one of them, "blur" alone does not say which is meant.
    """
    if not any(letter.isalpha() for letter in text):
        return "has no words"
    if len(text) > _LONGEST:
        return f"is longer than {_LONGEST} letters"
    named = mentions(text)
    allowed = set(remove)
    if allowed.intersection(_BLURS):
        allowed.add(BLUR)
    others = named - allowed
    if others:
        return f"speaks of {', '.join(sorted(others))}"
    if not remove and not _LEAVE.search(text.lower()):
        return "does not ask to change nothing"
    for kind in remove:
        by_blur = kind in _BLURS and BLUR in named and not set(stays).intersection(_BLURS)
        if kind not in named and not by_blur:
            return f"does not name {kind}"
    return None
