// Follows game.js, whose functions it uses.

const PAGE_SIZE = 20;

// ---- curves: the values under the pointer, shown in the legend

function nearest(places, x) {
  let best = 0;
  places.forEach((place, i) => {
    if (Math.abs(place - x) < Math.abs(places[best] - x)) best = i;
  });
  return best;
}

function followPointer(figure) {
  const data = JSON.parse(figure.dataset.readout);
  const svg = figure.querySelector("svg.plot");
  const cursor = svg.querySelector(".cursor");
  const values = figure.querySelectorAll(".legend b");
  const at = figure.querySelector(".legend .at");

  function show(i) {
    at.textContent = data.rounds[i];
    data.series.forEach((series, s) => (values[s].textContent = series.values[i]));
  }
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const i = nearest(data.x, ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width);
    cursor.setAttribute("x1", data.x[i]);
    cursor.setAttribute("x2", data.x[i]);
    cursor.style.visibility = "visible";
    show(i);
  });
  svg.addEventListener("pointerleave", () => {
    cursor.style.visibility = "hidden";
    show(data.x.length - 1);
  });
}

// ---- games

function summaryLine(game) {
  const line = element("summary");
  const mode = game.mode === "error" ? `error, ${game.type || "any type"}` : "benign";
  const where = element("span", "where");
  where.append(`round ${game.round} · ${mode}`);
  const change = element("span", "change");
  const last = game.attempts.at(-1);
  if (game.accepted) change.append(showEdits(last.edits, last.more));
  else change.append(element("span", "soft", last ? `rejected: ${words(last.reason)}` : "no attempt"));
  line.append(where, change, element("span", `outcome ${game.outcome}`, OUTCOMES[game.outcome]));
  return line;
}

function gameCard(game, open) {
  const card = element("details", "game card");
  const body = element("div", "body");
  card.append(summaryLine(game), body);
  const fill = () => body.childElementCount || fillGame(body, game);
  card.addEventListener("toggle", () => card.open && fill());
  if (open) {
    fill();
    card.open = true;
  }
  return card;
}

const TESTS = {
  round: (game, wanted) => String(game.round) === wanted,
  mode: (game, wanted) => game.mode === wanted,
  type: (game, wanted) => game.type === wanted,
  outcome: (game, wanted) => game.outcome === wanted,
  label: (game, wanted) => game.label === wanted,
  vcf: (game, wanted) => {
    if (wanted === "first") return game.accepted && game.attempts.length === 1;
    if (wanted === "later") return game.accepted && game.attempts.length > 1;
    return game.attempts.some((attempt) => attempt.reason === wanted);
  },
  text: (game, wanted) => {
    const sought = wanted.toLowerCase();
    return [game.note, game.original.join(""), game.modified?.join(""), game.assessor].some((t) => t?.toLowerCase().includes(sought));
  },
};

function startBrowser(games) {
  const form = document.getElementById("filters");
  const list = document.getElementById("game-list");
  const [count, previous, next] = ["count", "previous", "next"].map((id) => document.getElementById(id));
  let page = 0;

  function matching() {
    const wanted = [...new FormData(form)].filter(([, value]) => value !== "");
    return games.filter((game) => wanted.every(([name, value]) => TESTS[name](game, value)));
  }
  function show() {
    const found = matching();
    const pages = Math.max(1, Math.ceil(found.length / PAGE_SIZE));
    page = Math.min(page, pages - 1);
    const start = page * PAGE_SIZE;
    const shown = found.slice(start, start + PAGE_SIZE);
    list.replaceChildren(...shown.map((game, i) => gameCard(game, i === 0)));
    if (!found.length) list.append(element("p", "empty card", "No game fits these filters."));
    count.textContent = found.length
      ? `games ${start + 1}–${start + shown.length} of ${found.length}, page ${page + 1} of ${pages}`
      : "no games";
    previous.disabled = page === 0;
    next.disabled = page === pages - 1;
  }
  function turn(by) {
    page += by;
    show();
    document.getElementById("games").scrollIntoView();
  }
  form.addEventListener("input", () => {
    page = 0;
    show();
  });
  form.addEventListener("reset", () => setTimeout(() => form.dispatchEvent(new Event("input"))));
  form.addEventListener("submit", (event) => event.preventDefault());
  previous.addEventListener("click", () => turn(-1));
  next.addEventListener("click", () => turn(1));
  show();
}

document.querySelectorAll("figure.chart").forEach(followPointer);
const stored = document.getElementById("games-data");
if (stored) startBrowser(JSON.parse(stored.textContent));
