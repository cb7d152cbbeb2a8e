"""How long an edit takes in a real browser, from the press to the changed number.

``python -m tests.benchmarks.bench_inspector`` prints milliseconds (median and worst) and writes
``figures/bench_inspector.json``; ``--lm smollm2-135m --task reviews`` for the real LM, ``--length
200`` for a prompt of so many tokens. JupyterLab and Chromium run on this machine, offline. Memory
is that of the kernel before and after the edits.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path
from statistics import median

from softlens.files import write_json
from tests.browser.lab import started

SETUP = """\
import json, os, psutil
import softlens as sl
lm, task = sl.load_lm({lm!r}), sl.load_task({task!r})
inspector = sl.inspect(lm, {text!r}, task)
"""
LONG = """\
from tests.roomy import long_prompt, roomy
if lm.context_length < {length} + 40:
    lm = roomy(lm)
inspector = sl.inspect(lm, long_prompt(lm, {length}), task)
"""
MEMORY = """\
import gc
gc.collect()
before = psutil.Process().memory_info().rss
for index in lm.ordinary_ids[1000 % len(lm.ordinary_ids) :][:{edits}].tolist():
    inspector.replace(2, index)
gc.collect()
after = psutil.Process().memory_info().rss
with open("memory.json", "w") as file:
    json.dump([before / 1e6, after / 1e6], file)
"""
# The clock is the browser's: from the press to the first change of the table of measures.
PRESS = """
() => new Promise(resolve => {
    const seen = window.seen ??= new Set();
    const all = [...document.querySelectorAll('.softlens-near button')].slice(1);
    // A token that was tried before is remembered, and would look faster than it is.
    const next = all.find(button => !seen.has(button.textContent.replace(/[-\\d.]+$/, '')));
    if (!next) return resolve(null);
    seen.add(next.textContent.replace(/[-\\d.]+$/, ''));
    const table = document.querySelector('.softlens-numbers');
    const began = performance.now();
    new MutationObserver((_, watch) => {
        watch.disconnect();
        resolve(performance.now() - began);
    }).observe(table, {subtree: true, childList: true, characterData: true});
    next.click();
})
"""
IDLE = ".jp-Notebook-ExecutionIndicator[data-status=idle]"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures/bench_inspector.json"))
    parser.add_argument("--lm", default="organism")
    parser.add_argument("--task", default="sentiment")
    parser.add_argument("--text", default="at the start it was")
    parser.add_argument(
        "--length", type=int, help="of a prompt of any tokens, in place of the text"
    )
    parser.add_argument("--presses", type=int, default=50)
    parser.add_argument("--edits", type=int, default=500)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, started(Path(home)) as lab:
        setup = SETUP.format(lm=chosen.lm, task=chosen.task, text=chosen.text)
        if chosen.length:
            setup += LONG.format(length=chosen.length)
        memory = MEMORY.format(edits=chosen.edits)
        lab.write("bench.ipynb", setup, "inspector", *([memory] if chosen.edits else []))
        with lab.page() as page:
            lab.open(page, "bench.ipynb")
            lab.run_all(page, seconds=540)
            page.locator(".softlens-prompt button").nth(2).click()
            page.wait_for_timeout(3000)
            # Both as the page says them.
            length = page.locator(".softlens-prompt button").count()
            said = page.locator(".softlens-numbers").inner_text()
            times: list[float] = []
            for _ in range(4 * chosen.presses):
                taken = page.evaluate(PRESS)
                if taken is None:  # every neighbour was tried: start again somewhere else
                    page.locator(".softlens-undo").click()
                else:
                    times.append(taken)
                page.wait_for_timeout(300)
                page.wait_for_selector(IDLE, state="attached")
                if len(times) == chosen.presses:
                    break
            # A page that is saved too early still has the cells without what they gave.
            page.wait_for_selector(IDLE, state="attached")
            page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
        saved = (lab.folder / "bench.ipynb").stat().st_size
        used = json.loads((lab.folder / "memory.json").read_text()) if chosen.edits else []
    result = {
        "lm": chosen.lm, "task": chosen.task, "length": length,
        "texts": int(re.findall(r"on the first (\d+)", said)[0]), "presses": len(times),
        "median_milliseconds": median(times), "worst_milliseconds": max(times),
        "edits": chosen.edits, "kernel_megabytes_before_and_after": used, "saved_bytes": saved,
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    write_json(chosen.out, result)


if __name__ == "__main__":
    main()
