// Enlarges a row of pictures in a dialog: click or Enter opens, arrow keys turn pages, Escape closes.
const rows = [...document.querySelectorAll("figure.row")];
const dialog = document.querySelector("#enlarged");
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
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Enlarge";
    button.addEventListener("click", () => {
      show(number);
      dialog.showModal();
    });
    picture.replaceWith(button);
    button.append(picture);
  }
}

if (dialog) {
  document.querySelector("#enlarge-hint").hidden = false;
  dialog.querySelector(".back").addEventListener("click", () => show(shown - 1));
  dialog.querySelector(".on").addEventListener("click", () => show(shown + 1));
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => {
    const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (turn) show(shown + turn);
  });
}
