const CALLED = {
  "fa-play": "play",
  "fa-pause": "pause",
  "fa-stop": "stop, and go to the first step",
  "fa-retweet": "play over and over",
};

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
  // Buttons of a player are pictures alone: a screen reader needs their names.
  const called = () => {
    for (const icon of root?.querySelectorAll(".widget-play i") ?? []) {
      const found = Object.keys(CALLED).find((name) => icon.classList.contains(name));
      if (found) icon.parentElement.setAttribute("aria-label", CALLED[found]);
    }
  };
  const watch = new MutationObserver(called);
  let root;
  requestAnimationFrame(() => {
    root = el.closest(".softlens");
    if (!root) return;
    // Keys pressed on a control are the control's, not JupyterLab's shortcuts.
    root.setAttribute("data-lm-suppress-shortcuts", "true");
    watch.observe(root, { subtree: true, childList: true, attributeFilter: ["class"] });
    called();
  });
  model.on("msg:custom", (message) => {
    if (message.here) live();
  });
  model.send({ there: true });
  return () => watch.disconnect();
}

export default { render };
