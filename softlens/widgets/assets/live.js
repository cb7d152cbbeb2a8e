// Shows the controls only once a kernel has answered; until then, and wherever there is none, the
// static view beside them is what a reader sees.
function render({ model, el }) {
  const style = document.createElement("style");
  const name = model.get("name");
  const live = () => {
    style.textContent = `.${name}-static { display: none !important; }`;
  };
  style.textContent = `.${name}-live { display: none !important; }`;
  el.append(style);
  // Keys pressed on a control are the control's, not JupyterLab's shortcuts.
  requestAnimationFrame(() => {
    el.closest(".softlens")?.setAttribute("data-lm-suppress-shortcuts", "true");
  });
  model.on("msg:custom", (message) => {
    if (message.here) live();
  });
  model.send({ there: true });
}

export default { render };
