"""Takes the README's pictures of the pages, with the system's Chromium.

    python scripts/screenshots.py -o docs/images

The photograph is one that scikit-image ships (chelsea, CC0), with noise; the study compares made-up methods.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from prompt_mamba_arch.app import Workshop
from prompt_mamba_arch.app.server import create as create_app
from prompt_mamba_arch.restore import Restorer
from prompt_mamba_arch.study import Design, Materials, Store
from prompt_mamba_arch.study.server import create as create_study
from prompt_mamba_arch.web import serving

_DESKTOP = {"viewport": {"width": 1200, "height": 800}}
_PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


def main() -> int:
    parser = argparse.ArgumentParser(description="Take the README's pictures of the pages.")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        sys.exit("no Chromium here: apt-get install chromium, or set BROWSER_PATH")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        _app(browser, Path(folder), args.output)
        _study(browser, Path(folder), args.output)
        browser.close()
    return 0


def _noisy(photo: np.ndarray, sigma: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, sigma, photo.shape)
    return Image.fromarray((photo + noise).clip(0, 255).astype(np.uint8))


def _save(shot: bytes, path: Path) -> None:
    with Image.open(io.BytesIO(shot)) as image:
        image.convert("RGB").save(path, quality=82, optimize=True)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KB")


def _app(browser, folder: Path, output: Path) -> None:
    _noisy(data.chelsea(), 25).save(folder / "cat.png")
    workshop = Workshop(Restorer.from_pretrained("tiny"), folder=folder)
    with serving(create_app(workshop)) as address:
        for name, options in (("app", _DESKTOP), ("app_phone", {**_PHONE, "color_scheme": "dark"})):
            page = browser.new_context(**options).new_page()
            page.set_default_timeout(60_000)
            page.goto(address)
            page.set_input_files("#pm-upload input[type=file]", str(folder / "cat.png"))
            page.wait_for_selector(".pm-stage")
            page.fill("#pm-wish textarea", "take the grain out, but keep the fog")
            page.wait_for_selector("#pm-understood :text('remove noise')")
            page.click("#pm-restore")
            page.wait_for_selector(".pm-after")
            if name == "app":
                page.click("#pm-correct button")
                page.wait_for_selector("#pm-keep input:checked")
            page.wait_for_function("document.querySelector('.pm-after').naturalWidth > 0")
            page.wait_for_timeout(800)
            page.evaluate("scrollTo(0, 0)")
            _save(page.screenshot(), output / f"{name}.jpg")
            page.context.close()


def _study(browser, folder: Path, output: Path) -> None:
    photo = data.coffee()[:360, 60:500]
    for method, sigma in (("one", 4), ("two", 18), ("inputs", 40)):
        (folder / "results" / method).mkdir(parents=True)
        _noisy(photo, sigma).save(folder / "results" / method / "coffee.png")
    (folder / "results" / "prompts.jsonl").write_text(json.dumps({"key": "coffee", "prompts": ["take the grain out"]}))
    materials, design, store = (
        Materials(folder / "results"),
        Design(comparisons=1, checks=0),
        Store(folder / "s.sqlite"),
    )
    store.use(materials, design)
    with serving(create_study(store, materials, design, cache=folder / "cache")) as address:
        page = browser.new_context(viewport={"width": 1200, "height": 640}).new_page()
        page.goto(address)
        page.check("input[name=agree]")
        page.click("text=Begin")
        page.wait_for_load_state("networkidle")
        _save(page.screenshot(), output / "study.jpg")
    store.close()


if __name__ == "__main__":
    sys.exit(main())
