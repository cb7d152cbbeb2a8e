// A picture that the kernel drew; its points can be hovered, clicked and reached by keys.
function render({ model, el }) {
  const picture = document.createElement("div");
  picture.className = "softlens-points";
  picture.setAttribute("data-lm-suppress-shortcuts", "true");
  const said = document.createElement("div");
  said.className = "softlens-said";
  said.setAttribute("aria-live", "polite");
  el.append(picture, said);
  let focused = 0;

  const points = () => [...picture.querySelectorAll("[data-point]")];
  const say = (point) => {
    said.textContent = point ? point.getAttribute("aria-label") : model.get("hint");
  };
  const draw = () => {
    // Drawn by softlens, every text in it escaped.
    picture.innerHTML = model.get("svg");
    const all = points();
    focused = Math.min(focused, Math.max(0, all.length - 1));
    all.forEach((point, i) => {
      point.setAttribute("tabindex", i === focused ? "0" : "-1");
    });
    say(null);
  };
  const pointOf = (event) => event.target.closest("[data-point]");
  const focus = (index) => {
    const all = points();
    all[focused]?.setAttribute("tabindex", "-1");
    focused = Math.max(0, Math.min(all.length - 1, index));
    all[focused].setAttribute("tabindex", "0");
    all[focused].focus();
  };
  const press = (point) => model.send({ pressed: Number(point.dataset.point) });
  picture.addEventListener("mouseover", (event) => say(pointOf(event)));
  picture.addEventListener("focusin", (event) => say(pointOf(event)));
  picture.addEventListener("click", (event) => {
    const point = pointOf(event);
    if (!point) return;
    focused = points().indexOf(point);
    press(point);
  });
  picture.addEventListener("keydown", (event) => {
    const point = pointOf(event);
    if (!point) return;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step !== undefined) focus(focused + step);
    else if (event.key === "Enter" || event.key === " ") press(point);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  model.on("change:svg", () => {
    const had = picture.contains(document.activeElement);
    draw();
    if (had) points()[focused]?.focus();
  });
  draw();
}

export default { render };
