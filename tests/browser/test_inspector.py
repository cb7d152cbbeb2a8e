"""The inspector in a real browser: JupyterLab and Chromium, with nothing to fetch from anywhere."""

import json
import re
import shutil
from pathlib import Path

import pytest

import softlens as sl

ROOT = Path(__file__).parents[2]
SETUP = """\
import softlens as sl
lm, task = sl.load_lm(), sl.load_task("sentiment")
"""
RUN = (
    SETUP
    + """\
small = task.head(train=64, dev=64, test=128)
run = sl.tune(lm, small, "pez", length=5, steps=8, progress=False)
"""
)
PRESSED = "at the start it was"


def number(page, scored="now", column=2):
    """A cell of the table of measures, as the page shows it."""
    row = page.locator(".softlens-numbers tr", has=page.locator("td", has_text=re.compile(
        f"^{scored}$"))).first  # fmt: skip
    return row.locator("td").nth(column).inner_text()


def wait_for_number(page, wanted, scored="now", column=2):
    page.wait_for_function(
        """([scored, column, wanted]) => {
            const rows = [...document.querySelectorAll('.softlens-numbers tr')];
            const row = rows.find(r => r.cells[0].textContent === scored);
            return row && row.cells[column].textContent === wanted;
        }""",
        arg=[scored, column, wanted],
    )


@pytest.fixture(scope="module")
def lm():
    return sl.load_lm()


@pytest.fixture(scope="module")
def task():
    return sl.load_task("sentiment")


@pytest.fixture(scope="module")
def session(lab):
    """A page with a notebook that was run: one inspector of a text, one of a run."""
    lab.write(
        "inspect.ipynb",
        SETUP,
        f'inspector = sl.inspect(lm, "{PRESSED}", task)\ninspector',
    )
    with lab.page() as page:
        lab.open(page, "inspect.ipynb")
        lab.run_all(page)
        page.locator(".softlens-prompt button").first.wait_for()
        yield page


def test_an_edit_by_mouse_shows_what_evaluate_says(lab, session, lm, task):
    page = session
    accuracy = sl.evaluate(lm, task, PRESSED, split="dev").accuracy
    wait_for_number(page, f"{accuracy:.3f}")
    # Controls take the place of the static view once the kernel has answered.
    assert page.locator("[class*=-static]").is_hidden()
    page.locator(".softlens-prompt button").nth(2).click()
    page.get_by_text("Position 2").first.wait_for()
    assert page.locator(".softlens-prompt button").nth(2).get_attribute("aria-pressed") == "true"
    page.locator(".softlens-word input").fill("end")
    page.locator(".softlens-word input").press("Enter")
    after = sl.evaluate(lm, task, "at the end it was", split="dev")
    wait_for_number(page, f"{after.accuracy:.3f}")
    assert number(page, column=3) == f"{after.label_mass:.3f}"
    assert after.accuracy != accuracy
    lab.shot(page, "position-light")
    first = page.locator(".softlens-near button").nth(1)
    token = first.locator(".softlens-token").inner_text()
    first.click()
    near = sl.evaluate(lm, task, f"at the {token} it was", split="dev").accuracy
    wait_for_number(page, f"{near:.3f}")
    page.locator(".softlens-prompt [data-state=replaced]", has_text=token).wait_for()
    page.locator(".softlens-restore-all").click()
    wait_for_number(page, f"{accuracy:.3f}")
    # Boxes follow the numbers.
    page.locator(".softlens-prompt [data-state=replaced]").wait_for(state="detached")


def test_everything_is_reached_by_keys(session, lm, task):
    page = session
    page.locator(".softlens-prompt button[tabindex='0']").focus()
    page.keyboard.press("Home")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    label = "() => document.activeElement.getAttribute('aria-label')"
    assert page.evaluate(label).startswith("position 2: start")
    outline = "() => getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Enter")
    page.get_by_text("Position 2").first.wait_for()
    page.locator(".softlens-drop").press("Space")
    wait_for_number(page, f"{sl.evaluate(lm, task, 'at the it was', split='dev').accuracy:.3f}")
    page.locator(".softlens-prompt [data-state=dropped]").wait_for()
    page.locator(".softlens-undo").press("Enter")
    page.locator(".softlens-prompt [data-state=dropped]").wait_for(state="detached")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('.softlens :is(button, select, input, [role=tab])')]
            .filter(e => e.offsetParent && !(e.getAttribute('aria-label') || e.title ||
                e.textContent.trim() || e.labels?.length)).map(e => e.outerHTML)"""
    )
    assert unnamed == []


def test_errors_are_read_in_the_widget(session):
    page = session
    page.get_by_role("tab", name="Position").click()
    page.locator(".softlens-word input").fill("nosuchword")
    page.locator(".softlens-word input").press("Enter")
    alert = page.locator(".softlens-errors [role=alert]")
    alert.wait_for()
    assert "is no word of 'organism'" in alert.inner_text()
    page.locator(".softlens-word input").fill("")
    page.locator(".softlens-prompt button").nth(1).click()
    alert.wait_for(state="detached")


def test_panels_answer(lab, session, lm, task):
    page = session
    page.get_by_role("tab", name="Texts").click()
    page.locator(".softlens-pick select").select_option(index=3)
    page.locator(".softlens-answers", has_text=task.dev.texts[3][:60]).wait_for()
    lab.shot(page, "texts-light")
    page.locator(".softlens-test").click()
    accuracy = sl.evaluate(lm, task, PRESSED).accuracy
    page.locator(".softlens-tested td", has_text=f"{accuracy:.4f}").first.wait_for()
    page.get_by_role("tab", name="Readings").click()
    page.locator(".softlens-read").click()
    page.locator(".softlens-readings td", has_text="nearest").first.wait_for()
    lab.shot(page, "readings-light")
    page.get_by_role("tab", name="Save").click()
    page.locator(".softlens-save").click()
    page.get_by_text("Written:").wait_for()
    assert (lab.folder / "inspected.png").stat().st_size > 1000
    lab.shot(page, "save-light")
    page.get_by_role("tab", name="Position").click()


def test_saved_and_reloaded_without_a_kernel_it_is_still_read(lab, session):
    page = session
    page.get_by_role("tab", name="Position").click()
    page.locator(".softlens-prompt button").nth(2).click()
    page.locator(".softlens-word input").fill("all")
    page.locator(".softlens-word input").press("Enter")
    page.locator(".softlens-prompt [data-state=replaced]").wait_for()
    saved = lab.folder / "inspect.ipynb"
    # The static view follows the numbers, so that a first save may still have the one before.
    for _ in range(40):
        page.locator("[data-command='docmanager:save'] >> visible=true").first.click()
        page.wait_for_timeout(500)
        if "→ all" in saved.read_text(encoding="utf-8"):
            break
    outputs = json.loads(saved.read_text(encoding="utf-8"))["cells"][1]["outputs"]
    assert "Edited: position 2: start → all" in str(outputs)
    assert len(saved.read_bytes()) < 100_000
    notebook = json.loads(saved.read_text(encoding="utf-8"))
    # A kernel that is not installed: the notebook opens and nothing answers.
    notebook["metadata"]["kernelspec"] |= {"name": "gone", "display_name": "gone"}
    (lab.folder / "dead.ipynb").write_text(json.dumps(notebook))
    with lab.page() as other:
        lab.open(other, "dead.ipynb", kernel=False)
        static = other.locator("[class*=-static]")
        static.wait_for()
        assert "Edited: position 2: start → all" in static.inner_text()
        assert not other.locator(".softlens-prompt button").count()
        lab.shot(other, "without-kernel")
    assert lab.left == []


def test_the_notebook_is_read_as_it_is_and_then_used(lab, lm, task):
    shutil.copy(ROOT / "notebooks" / "08_inspector.ipynb", lab.folder)
    with lab.page() as page:
        lab.open(page, "08_inspector.ipynb")
        static = page.locator("[class*=-static]").first
        static.wait_for()
        assert PRESSED in static.inner_text()
        page.locator(".jp-CodeCell .cm-content").first.click()
        for _ in range(4):  # the imports, the prose between, the first inspector
            page.keyboard.press("Shift+Enter")
        page.locator(".softlens-prompt button").nth(2).click(timeout=60_000)
        page.locator(".softlens-word input").fill("whole")
        page.locator(".softlens-word input").press("Enter")
        after = sl.evaluate(lm, task, "at the whole it was", split="dev").accuracy
        wait_for_number(page, f"{after:.3f}")


def test_a_training_is_replayed_without_a_queue(lab, lm):
    lab.write("train.ipynb", RUN + "run.save('run')", "inspector = sl.inspect(lm, run, small)\n"
              "calls = []\npanel = inspector.panels[2]\nfill = panel.fill\n"
              "panel.fill = lambda: (calls.append(panel.slider.index), fill())[1]\ninspector",
              )  # fmt: skip
    with lab.page(width=760, dark=True) as page:
        lab.open(page, "train.ipynb")
        lab.run_all(page)
        page.get_by_role("tab", name="Training").click()
        handle = page.locator(".softlens-step .noUi-handle")
        handle.focus()
        history = sl.load_run(lab.folder / "run").history
        for _ in range(5):
            handle.press("ArrowLeft")
        wanted = f"step {history['step'].iloc[-6]} of {history['step'].iloc[-1]}"
        moment = page.locator(".softlens-moment", has_text=wanted)
        moment.wait_for()
        assert f"task loss {history['task_loss'].iloc[-6]:.3f}" in moment.inner_text()
        lab.shot(page, "training-narrow-dark")


def test_a_point_of_a_sweep_is_opened(lab, lm):
    lab.write(
        "sweep.ipynb",
        RUN + "import pandas as pd\n"
        "rows = [run, sl.tune(lm, small, 'sample', evaluations=500, progress=False)]\n"
        "table = pd.DataFrame([{'method': r.config.method, 'seed': 0, 'text': r.text,"
        " 'lm': lm.name, 'task': task.name, 'accuracy': r.metrics['accuracy'],"
        " 'nats_per_token': r.metrics['nats_per_token'], 'empty_accuracy': .5,"
        " 'token_ids': ' '.join(map(str, r.prompt.token_ids))} for r in rows])\n"
        "table.to_json('table.json')",
        "sl.inspect_sweep(table, lm)",
    )
    with lab.page() as page:
        lab.open(page, "sweep.ipynb")
        lab.run_all(page)
        points = page.locator(".softlens-runs [data-point]")
        points.nth(1).hover()
        table = json.loads((lab.folder / "table.json").read_text())
        said = page.locator(".softlens-said").inner_text()
        index = points.nth(1).get_attribute("data-point")
        assert table["text"][index].strip() in said
        points.nth(0).focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.locator(".softlens-details", has_text=table["text"][index].strip()).wait_for()
        page.locator(".softlens-open").click()
        page.locator(".softlens-prompt button").first.wait_for()
        tokens = page.locator(".softlens-prompt .softlens-token").all_inner_texts()
        assert tokens == table["text"][index].split()
        lab.shot(page, "sweep-light")
    assert lab.left == []
