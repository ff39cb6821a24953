"use strict";
// Everything that comes from a run is put on the page as text (textContent), never as markup.

const PAGE_SIZE = 20;

const OUTCOMES = {
  assessor: "Assessor won",
  injector: "Injector won",
  no_verdict: "no verdict",
  no_note: "no accepted note",
};

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

function words(name) {
  return name.replaceAll("_", " ");
}

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

/** Pieces of a text: plain, marked, plain, marked ... An empty marked piece is a place where the other note has words. */
function showMarked(pieces, tag) {
  const box = element("div", "text");
  pieces.forEach((piece, i) => {
    if (i % 2 === 0) box.append(piece);
    else box.append(element(tag, piece ? "" : "gap", piece));
  });
  return box;
}

function showEdits(edits, more) {
  const line = element("span", "edits");
  edits.forEach(([before, after], i) => {
    if (i) line.append("; ");
    if (before) line.append(element("del", "", before));
    if (before && after) line.append(" → ");
    if (after) line.append(element("ins", "", after));
  });
  if (more) line.append(` and ${more} more`);
  return line;
}

function showAttempt(attempt) {
  const item = element("li");
  const size = `${attempt.word_edits} word edit${attempt.word_edits === 1 ? "" : "s"}, Jaccard ${attempt.jaccard.toFixed(3)}`;
  const measure = attempt.class ? `${size}, class ${attempt.class}` : size;
  const decision = attempt.reason ? `rejected: ${words(attempt.reason)}` : "accepted";
  item.append(element("b", "", decision), element("span", "soft small", ` (${measure}) `), showEdits(attempt.edits, attempt.more));
  const details = element("details");
  details.append(element("summary", "", "what the Injector wrote"), element("div", "text said", attempt.completion || "(nothing)"));
  item.append(details);
  return item;
}

function titled(title, content) {
  const box = element("div");
  box.append(element("h4", "", title), content);
  return box;
}

/** What the fact table says of the label that the mode gives; null where the note has no fact of it. */
function labelled(game) {
  const still = game.mode === "error" ? ["false", "still true"] : ["still true", "false"];
  if (game.label === "right") return `The fact table agrees with the label: the note is ${still[0]}.`;
  if (game.label === "wrong") return `The label is wrong: by the fact table the note is ${still[1]}.`;
  return game.label === "unknown" ? "The fact table cannot tell whether the note is still true." : null;
}

function signed(reward) {
  if (reward === null || reward === undefined) return "no sample";
  return reward > 0 ? `+${reward}` : `${reward}`.replace("-", "−");
}

function ending(game) {
  if (game.outcome === "no_note") return "No attempt was accepted: the Assessor saw nothing, nobody won.";
  const right = game.mode === "error" ? "INCORRECT" : "CORRECT";
  const rewards = `Rewards: Injector ${signed(game.rewards[0])}, Assessor ${signed(game.rewards[1])}.`;
  if (game.outcome === "no_verdict") return `The Assessor gave no verdict (right in ${game.mode} mode: ${right}): it loses. ${rewards}`;
  return `The Assessor said ${game.verdict}, right in ${game.mode} mode is ${right}: ${OUTCOMES[game.outcome]}. ${rewards}`;
}

function modifiedTitle(game) {
  return game.accepted ? "Modified note, as the Assessor read it" : "Last attempt: rejected, so the Assessor never saw it";
}

function fillGame(body, game) {
  const sides = element("div", "sides");
  sides.append(titled(`Original note ${game.note}`, showMarked(game.original, "del")));
  sides.append(titled(modifiedTitle(game), game.modified ? showMarked(game.modified, "ins") : element("div", "text soft", "no note was written")));
  const attempts = element("ol", "attempts");
  game.attempts.forEach((attempt) => attempts.append(showAttempt(attempt)));
  body.append(sides, titled("Injector's attempts and the VCF", attempts));
  if (game.assessor !== null) body.append(titled("Assessor's words", element("div", "text said", game.assessor || "(nothing)")));
  body.append(element("p", "ending", ending(game)));
  const label = labelled(game);
  if (label) body.append(element("p", `label-note ${game.label}`, label));
}

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
