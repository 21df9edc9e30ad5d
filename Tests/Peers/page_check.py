# SPDX-License-Identifier: Apache-2.0
"""Uses the gateway's page in Chromium as a person would, and prints what was seen as JSON.

usage: page_check.py HTTP_BASE_URL HOST_PID [SCREENSHOT_FOLDER]

HOST_PID is an expert host of a pool that has another, and that is not started again: it is killed while the page is open. Every view
is opened at two widths, light and dark; `wrong` lists what does not fit, reads badly, has no name for screen readers, or was reported
by the browser.
"""

import json
import os
import shutil
import signal
import sys

from playwright.sync_api import sync_playwright

VIEWS = ["ask", "cluster", "experts", "model"]
SENTENCE = "A horse! a horse! my <extra_id_0> for a horse!"

# Text on its background, at least 4.5 to 1 (https://www.w3.org/TR/WCAG22/#contrast-minimum); disabled controls are exempt.
CONTRAST = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const place of document.querySelectorAll("body *")) {
    if (place.disabled || !place.checkVisibility() || ![...place.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    let ground = place;
    const clear = (e) => { const c = numbers(getComputedStyle(e).backgroundColor); return c.length > 3 && c[3] === 0; };
    while (clear(ground) && ground.parentElement) ground = ground.parentElement;
    const pair = [light(getComputedStyle(place).color), light(getComputedStyle(ground).backgroundColor)].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) found.push(`${place.tagName} "${place.textContent.trim().slice(0, 30)}" ${ratio.toFixed(2)}`);
  }
  return found;
}"""

NAMELESS = """() => [...document.querySelectorAll("input, select, textarea, button, a, canvas, [tabindex='0']")].filter((e) =>
  e.checkVisibility() && !e.labels?.length && !e.ariaLabel && !e.getAttribute("aria-labelledby") && !e.textContent.trim())
  .map((e) => e.outerHTML.slice(0, 80))"""

SIDEWAYS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


class Visitor:
    """A page, and what the browser said about it. The page's own policy forbids eval, which wait_for_function needs."""

    def __init__(self, browser, base, width, scheme):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.said = []
        self.page.on("console", lambda m: self.said.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.said.append(str(e)))
        self.page.on("request", lambda r: None if r.url.startswith((base, "data:")) else self.said.append("asked " + r.url))
        self.page.goto(base + "/")
        self.until("() => document.title !== 'Switchyard'")

    def until(self, condition, seconds=120):
        for _ in range(seconds * 20):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise SystemExit(f"after {seconds} s not yet: {condition}; the browser said {self.said}")

    def text(self, place):
        return self.page.text_content(place).strip()

    def ask(self, text=SENTENCE):
        self.page.fill("#text", text)
        self.page.click("#go")
        self.until("() => document.getElementById('filled').ariaBusy === 'false'")


def views(browser, base, folder):
    wrong = []
    for scheme in ("light", "dark"):
        for width in (1280, 390):
            visitor = Visitor(browser, base, width, scheme)
            visitor.ask()
            for view in VIEWS:
                visitor.page.click(f"nav a[href='#{view}']")
                visitor.until(f"() => !document.getElementById('view-{view}').hidden")
                visitor.page.wait_for_timeout(2_500)
                if view == "ask":
                    visitor.page.click("summary")
                if folder:
                    visitor.page.screenshot(path=f"{folder}/{view}-{width}-{scheme}.png", full_page=True)
                name = f"{view} at {width}, {scheme}: "
                sideways = visitor.page.evaluate(SIDEWAYS)
                wrong += [name + f"{sideways} pixels too wide"] if sideways > 0 else []
                wrong += [name + text for text in visitor.page.evaluate(CONTRAST)]
                wrong += [name + "no name: " + text for text in visitor.page.evaluate(NAMELESS)]
            wrong += visitor.said
            visitor.context.close()
    return wrong


def conversation(visitor, report):
    page = visitor.page
    # Every state that the answer had, in order.
    page.evaluate("""() => { window.seen = []; new MutationObserver(() => window.seen.push(document.getElementById("filled").textContent))
      .observe(document.getElementById("filled"), { childList: true, characterData: true, subtree: true }); }""")
    visitor.ask()
    report["filled"] = visitor.text("#filled")
    report["states"] = page.evaluate("() => [...new Set(window.seen)]")
    report["chips"] = page.eval_on_selector_all("#chips li", "all => all.map((e) => e.innerText.replaceAll('\\n', ': '))")
    report["colours"] = page.eval_on_selector_all("#chips li", "all => new Set(all.map((e) => e.style.borderLeftColor)).size")
    report["layers"] = page.eval_on_selector_all("#layer option", "all => all.map((e) => e.textContent)")
    page.select_option("#layer", index=len(report["layers"]) - 1)
    report["inputs"] = page.locator("#chips li").count()
    page.fill("#beams", "2")
    visitor.ask()
    report["beams"] = visitor.text("#filled")
    page.check("#sample")
    page.fill("#seed", "7")
    visitor.ask()
    first = visitor.text("#filled")
    visitor.ask()
    report["same_seed"] = first == visitor.text("#filled")
    page.uncheck("#sample")
    # An error stays until the next call, whatever the page asks for meanwhile.
    visitor.ask("word " * 4_000)
    page.wait_for_timeout(4_500)
    report["error"] = visitor.text("#problem")
    visitor.ask()
    report["error_gone"] = page.is_hidden("#problem")
    visitor.said = [text for text in visitor.said if "status of 400" not in text]
    page.fill("#text", "")
    page.click("#gap")
    page.click("#gap")
    report["gaps"] = page.input_value("#text")


def keyboard(visitor, report):
    page = visitor.page
    page.click("nav a[href='#cluster']")
    visitor.until("() => document.activeElement.id === 'main'")
    page.evaluate("() => document.activeElement.blur()")
    page.focus("#skip")
    page.keyboard.press("Enter")
    report["skipped_to"] = page.evaluate("() => document.activeElement.id")
    report["view_after_skip"] = page.evaluate("() => location.hash")
    page.focus("nav a[href='#ask']")
    page.keyboard.press("Enter")
    page.focus("#text")
    stops = []
    for _ in range(6):
        page.keyboard.press("Tab")
        stops.append(page.evaluate("() => document.activeElement.id + (document.activeElement.matches(':focus-visible') ? '' : ' unseen')"))
    report["stops"] = stops


def loss(visitor, host, report, folder):
    page = visitor.page
    page.click("nav a[href='#cluster']")
    visitor.until("() => document.querySelectorAll('#hosts .ready').length > 1")
    before = page.locator("#hosts .ready").count()
    os.kill(host, signal.SIGKILL)
    visitor.until("() => document.querySelectorAll('#hosts .lost').length > 0")
    report["ready"] = [before, page.locator("#hosts .ready").count()]
    report["lost"] = visitor.text("#hosts .lost >> nth=0")
    report["complete"] = visitor.text("#gateway dd >> nth=0")
    if folder:
        page.screenshot(path=f"{folder}/lost.png", full_page=True)
    page.click("nav a[href='#ask']")
    visitor.ask()
    report["filled_after_loss"] = visitor.text("#filled")


def main():
    base, host = sys.argv[1], int(sys.argv[2])
    folder = sys.argv[3] if len(sys.argv) > 3 else None
    report = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        report["wrong"] = views(browser, base, folder)
        visitor = Visitor(browser, base, 1280, "light")
        conversation(visitor, report)
        keyboard(visitor, report)
        loss(visitor, host, report, folder)
        report["wrong"] += visitor.said
        browser.close()
    print(json.dumps(report))


main()
