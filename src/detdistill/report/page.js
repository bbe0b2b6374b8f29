// What makes the page handier; without it everything is there, one below the other.

// Rows of pictures are enlarged: click or Enter opens, arrow keys turn pages, Escape closes.
function enlarge(dialog) {
  const rows = [...document.querySelectorAll("figure.row")];
  let shown = 0;

  function show(number) {
    shown = (number + rows.length) % rows.length;
    const stage = dialog.querySelector(".panels");
    stage.replaceChildren(
      ...[...rows[shown].querySelectorAll(".panel")].map((panel) => {
        const copy = panel.cloneNode(true);
        const button = copy.querySelector("button");
        button.replaceWith(button.firstElementChild);
        return copy;
      })
    );
    const name = rows[shown].querySelector("figcaption").textContent;
    dialog.querySelector("h2").textContent = `${name} (${shown + 1} of ${rows.length})`;
  }

  for (const [number, row] of rows.entries()) {
    for (const picture of row.querySelectorAll("img")) {
      const button = make("button", { type: "button", title: "Enlarge" });
      button.addEventListener("click", () => {
        show(number);
        dialog.showModal();
      });
      picture.replaceWith(button);
      button.append(picture);
    }
  }
  document.querySelector("#enlarge-hint").hidden = false;
  dialog.querySelector(".back").addEventListener("click", () => show(shown - 1));
  dialog.querySelector(".on").addEventListener("click", () => show(shown + 1));
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => {
    const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (turn) show(shown + turn);
  });
}

// Variants of a figure behind tabs: arrow keys, Home and End go from one to the next.
function tabs(group) {
  group.classList.add("live");
  const panels = [...group.querySelectorAll(".variant")];
  const list = make("div", { role: "tablist", "aria-labelledby": group.querySelector("h3").id });
  list.classList.add("chooser");
  const buttons = panels.map((panel) => {
    const button = make("button", { type: "button", role: "tab", "aria-controls": panel.id });
    button.id = `${panel.id}-tab`;
    button.textContent = panel.dataset.tab;
    set(panel, { role: "tabpanel", tabindex: "0", "aria-labelledby": button.id });
    return button;
  });

  function choose(number) {
    for (const [i, panel] of panels.entries()) panel.hidden = i !== number;
    for (const [i, button] of buttons.entries()) {
      set(button, { "aria-selected": i === number, tabindex: i === number ? 0 : -1 });
    }
  }

  for (const [i, button] of buttons.entries()) {
    button.addEventListener("click", () => choose(i));
    button.addEventListener("keydown", (event) => {
      const last = buttons.length - 1;
      const next = { ArrowLeft: i ? i - 1 : last, ArrowRight: i < last ? i + 1 : 0, Home: 0, End: last };
      if (!(event.key in next)) return;
      event.preventDefault();
      choose(next[event.key]);
      buttons[next[event.key]].focus();
    });
  }
  list.append(...buttons);
  panels[0].before(list);
  choose(0);
}

// A button below a text to be copied; where that is not allowed, the text is selected instead.
function copyable(box) {
  const text = box.querySelector("pre");
  const button = make("button", { type: "button" });
  button.textContent = `Copy ${text.getAttribute("aria-label")}`;
  const said = make("span", { role: "status" });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      said.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(text);
      said.textContent = "Selected: copy it with the keyboard.";
    }
  });
  box.append(button, said);
}

function make(tag, attributes) {
  return set(document.createElement(tag), attributes);
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const dialog = document.querySelector("#enlarged");
if (dialog) enlarge(dialog);
document.querySelectorAll(".group[data-kind=tabs]").forEach(tabs);
document.querySelectorAll(".copyable").forEach(copyable);
