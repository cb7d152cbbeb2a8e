// A row of tokens as buttons: one stop of the Tab key, arrow keys move inside it.
const HELD = "data-lm-suppress-shortcuts"; // JupyterLab leaves arrow keys to us

function fill(button, item, index, chosen, focused, selects) {
  const [token, value, state] = button.children;
  // textContent, never innerHTML: token text is untrusted.
  token.textContent = item.text;
  value.textContent = item.value;
  state.textContent = item.state;
  button.style.background = item.colour;
  button.title = item.label;
  button.setAttribute("aria-label", item.label);
  button.dataset.state = item.state;
  if (selects) button.setAttribute("aria-pressed", String(index === chosen));
  button.tabIndex = index === focused ? 0 : -1;
}

function make() {
  const button = document.createElement("button");
  button.type = "button";
  for (const name of ["token", "value", "state"]) {
    const part = document.createElement("span");
    part.className = `softlens-${name}`;
    button.append(part);
  }
  return button;
}

function render({ model, el }) {
  const row = document.createElement("div");
  row.className = "softlens-boxes";
  row.setAttribute("role", "group");
  row.setAttribute(HELD, "true");
  el.append(row);
  let focused = Math.max(0, model.get("chosen"));

  const draw = () => {
    const items = model.get("items");
    const chosen = model.get("chosen");
    focused = Math.min(focused, Math.max(0, items.length - 1));
    row.setAttribute("aria-label", model.get("label"));
    while (row.children.length > items.length) row.lastChild.remove();
    while (row.children.length < items.length) row.append(make());
    items.forEach((item, i) => {
      fill(row.children[i], item, i, chosen, focused, model.get("selects"));
    });
  };
  const focus = (index) => {
    row.children[focused]?.setAttribute("tabindex", "-1");
    focused = index;
    row.children[focused].tabIndex = 0;
    row.children[focused].focus();
  };
  row.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    focus([...row.children].indexOf(button));
    if (model.get("selects")) {
      // Shown at once; the kernel's answer follows.
      [...row.children].forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
    }
    model.send({ pressed: model.get("items")[focused].key });
  });
  row.addEventListener("keydown", (event) => {
    const last = row.children.length - 1;
    const to = {
      ArrowRight: Math.min(last, focused + 1),
      ArrowLeft: Math.max(0, focused - 1),
      Home: 0,
      End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    focus(to);
  });
  model.on("change:items", draw);
  model.on("change:chosen", draw);
  draw();
}

export default { render };
