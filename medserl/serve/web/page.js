// Follows game.js, ask.js and more.js, whose functions it uses. Everything that comes from a note or a model is put on the page as text.

const MINE = { accept: "accepted", reject: "rejected" };
const PAGE = 200; // notes that the list shows at first, and more each time
const POLL = 2000; // milliseconds between two looks at notes that are being judged

const state = {
  rows: [], // the list, as the server orders it
  shown: PAGE, // how many of them the list shows
  note: null, // all that is known of the note on show
  last: null, // the note decided last, for taking it back
  poll: 0, // the timer of the next look
  busy: 0, // how many things are under way or wait: a key that comes meanwhile does nothing
  work: Promise.resolve(), // the last of them
};

// ---- messages

function tell(text) {
  byId("trouble").hidden = true;
  byId("status").textContent = text;
}

function complain(error) {
  byId("status").textContent = "";
  byId("trouble").textContent = error.message;
  byId("trouble").hidden = false;
}

/** Runs one thing at a time, and shows what went wrong. Under way, others are left out, but for a patient one. */
async function carefully(action, patient = false) {
  if (state.busy && !patient) return;
  state.busy += 1;
  const before = state.work;
  state.work = (async () => {
    await before;
    try {
      await action();
    } catch (error) {
      complain(error);
    } finally {
      state.busy -= 1;
    }
  })();
  await state.work;
}

// ---- the list

function standing(row) {
  if (row.decision) return [MINE[row.decision], row.decision];
  if (row.comment) return ["comment", "comment"];
  if (row.flagged) return ["flagged", "flagged"];
  if (row.reason) return ["not judged", "unjudged"];
  return row.judged || row.p_error !== null ? ["", ""] : ["not judged yet", "unjudged"];
}

const FILTERS = {
  all: () => true,
  open: (row) => !row.decision,
  flagged: (row) => row.flagged,
  decided: (row) => row.decision,
};

function shownRows() {
  return state.rows.filter(FILTERS[byId("filter").value]);
}

function percentless(p) {
  return p === null || p === undefined ? "–" : p.toFixed(2);
}

function listEntry(row) {
  const entry = element("li");
  const button = element("button");
  button.type = "button";
  button.dataset.id = row.note_id;
  const [text, kind] = standing(row);
  const p = element("span", "p", percentless(row.p_error));
  p.prepend(element("span", "unseen", "P(error) "));
  button.append(p, element("span", "id", row.note_id), element("span", `badge ${kind}`, text), element("span", "excerpt", row.excerpt));
  button.addEventListener("click", () => carefully(() => show(row.note_id, true), true));
  entry.append(button);
  return entry;
}

function drawList() {
  const rows = shownRows();
  const at = rows.findIndex((row) => row.note_id === state.note?.note_id);
  state.shown = Math.max(state.shown, PAGE * Math.ceil((at + 1) / PAGE));
  const focused = document.activeElement?.dataset?.id;
  byId("list").replaceChildren(...rows.slice(0, state.shown).map(listEntry));
  byId("empty").hidden = rows.length > 0;
  byId("more").hidden = rows.length <= state.shown;
  byId("nothing").hidden = state.rows.length > 0;
  drawCount();
  markCurrent();
  if (focused !== undefined) entryOf(focused)?.focus({ preventScroll: true });
}

function drawCount() {
  const decided = state.rows.filter((row) => row.decision).length;
  byId("count").textContent = `${decided} of ${state.rows.length} decided`;
}

function entryOf(noteId) {
  return byId("list").querySelector(`button[data-id="${CSS.escape(noteId)}"]`);
}

/** The one entry anew, where the list shows the same notes as before. */
function redraw(row) {
  const entry = entryOf(row.note_id);
  if (byId("filter").value !== "all" || !entry) return drawList();
  entry.parentElement.replaceWith(listEntry(row));
  drawCount();
  markCurrent();
}

function markCurrent() {
  if (state.note === null) return;
  byId("list").querySelector("[aria-current]")?.removeAttribute("aria-current");
  const entry = entryOf(state.note.note_id);
  if (!entry && shownRows().findIndex((row) => row.note_id === state.note.note_id) >= state.shown) return drawList();
  entry?.setAttribute("aria-current", "true");
  entry?.scrollIntoView({ block: "nearest" });
}

async function refresh() {
  const answer = await ask("/api/findings");
  state.rows = answer.findings;
  const current = state.rows.find((row) => row.note_id === state.note?.note_id);
  if (current?.judged && !state.note.judged) await show(current.note_id);
  byId("file").textContent = answer.decisions_file;
  byId("threshold").textContent = answer.threshold ? `Flagged from P(error) ${answer.threshold}.` : "";
  drawList();
  if (answer.trouble) complain(new Error(answer.trouble));
  else if (answer.left_to_judge) {
    tell(`The model is judging: ${answer.left_to_judge} notes left.`);
    clearTimeout(state.poll);
    state.poll = setTimeout(() => refresh().catch(complain), POLL);
  } else if (byId("status").textContent.startsWith("The model is judging")) tell("All notes are judged.");
  return answer;
}

// ---- the note

async function show(noteId, focus = false) {
  const note = await ask(`/api/findings?note_id=${encodeURIComponent(noteId)}`);
  if (state.note?.note_id !== note.note_id) byId("played").replaceChildren();
  drawNote(note);
  if (focus) byId("note-title").focus();
}

function drawNote(note) {
  state.note = note;
  byId("note").hidden = false;
  byId("note-title").textContent = `Note ${note.note_id}`;
  const [text, kind] = standing(note);
  byId("badge").className = `badge ${kind}`;
  byId("badge").textContent = text;
  drawScore(note);
  drawText(note);
  drawSuggestion(note);
  fillForm(note);
  markCurrent();
}

function drawScore(note) {
  const p = note.p_error;
  const threshold = note.threshold ?? note.decided?.threshold ?? null;
  const parts = [];
  if (note.reason) parts.push(`Not judged: ${note.reason}.`);
  else if (p !== null) parts.push(`P(error) ${p.toFixed(3)}${threshold === null ? "" : `, threshold ${threshold.toFixed(3)}`}${flagged(note)}.`);
  else if (note.verdict) parts.push(`The model says ${note.verdict}.`);
  else parts.push(note.decided ? "From an earlier session." : "Not judged yet.");
  const windows = note.finding?.windows ?? 1;
  if (windows > 1) parts.push(`Read in ${windows} windows of sentences; the most suspicious one counts.`);
  byId("score").textContent = parts.join(" ");
  byId("bar-value").style.width = `${100 * (p ?? 0)}%`;
  byId("bar-threshold").hidden = threshold === null;
  byId("bar-threshold").style.left = `${100 * (threshold ?? 0)}%`;
  byId("bar-value").parentElement.hidden = p === null;
}

function flagged(note) {
  if (note.flagged === null) return "";
  return note.flagged ? ": flagged" : ": not flagged";
}

/** `shown` is in pieces: what stands before a sentence, the sentence, what stands before the next, ... */
function drawText(note) {
  const box = byId("text");
  box.replaceChildren();
  note.shown.forEach((piece, i) => {
    if (i % 2 === 0) return box.append(piece);
    const number = (i - 1) / 2;
    const sentence = element(number === note.sentence ? "mark" : "span", "s");
    sentence.dataset.number = number;
    if (number === note.sentence) {
      sentence.append(element("span", "unseen", "[the model points at this sentence: "));
      sentence.append(...withWords(piece, note.finding?.says), element("span", "unseen", "]"));
    } else sentence.textContent = piece;
    sentence.addEventListener("click", () => chooseSentence(number));
    box.append(sentence);
  });
}

/** The sentence, with the words that the model names in bold, where they stand in it once. */
function withWords(sentence, says) {
  const place = says ? sentence.indexOf(says) : -1;
  if (place < 0 || sentence.indexOf(says, place + 1) >= 0) return [sentence];
  return [sentence.slice(0, place), element("b", "", says), sentence.slice(place + says.length)];
}

function drawSuggestion(note) {
  const box = byId("suggestion");
  box.replaceChildren();
  const found = note.finding;
  if (!found) return;
  const list = element("dl");
  const add = (name, ...content) => {
    const text = element("dd");
    text.append(...content);
    list.append(element("dt", "", name), text);
  };
  if (found.says) add("It says", element("del", "", found.says));
  if (found.should_say) add("It should say", element("ins", "", found.should_say));
  if (found.correction) add("Suggested sentence", found.correction);
  if (list.childElementCount) box.append(list);
  else box.append(element("p", "soft", found.flagged ? "The model names no sentence or words." : "The model suggests nothing."));
}

// ---- the decision

function sentencesOf(note) {
  return note.pieces.filter((_, i) => i % 2 === 1);
}

function short(text) {
  const line = text.split(/\s+/).join(" ");
  return line.length > 90 ? `${line.slice(0, 89)}…` : line;
}

function fillForm(note) {
  const decided = note.decided;
  const options = sentencesOf(note).map((sentence, number) => new Option(`${number}: ${short(sentence)}`, number));
  byId("sentence").replaceChildren(new Option("not said", ""), ...options);
  const mine = decided?.decision === "accept";
  setSentence(mine ? decided.error_sentence_id : note.sentence, mine ? decided.corrected_sentence : note.correction);
  byId("error-type").value = decided?.error_type ?? "";
  byId("comment").value = decided?.comment ?? "";
  byId("withdraw").disabled = !decided;
}

function setSentence(number, correction) {
  const text = number === null || number === undefined ? "" : sentencesOf(state.note)[number];
  byId("sentence").value = text ? String(number) : "";
  byId("correction").value = text ? (correction ?? text) : "";
  byId("correction").disabled = !text;
  for (const each of byId("text").querySelectorAll(".s")) each.classList.toggle("chosen", text !== "" && each.dataset.number === String(number));
}

function chooseSentence(number) {
  setSentence(number, number === state.note.sentence ? state.note.correction : null);
}

function stated() {
  const sentence = byId("sentence").value;
  return {
    comment: byId("comment").value.trim(),
    sentence: sentence === "" ? null : Number(sentence),
    correction: byId("correction").value,
    error_type: byId("error-type").value || null,
  };
}

/** The next note in the list without a decision, after this one, from the top again after the end. */
function nextOpen(noteId) {
  const rows = state.rows;
  const at = rows.findIndex((row) => row.note_id === noteId);
  return [...rows.slice(at + 1), ...rows.slice(0, at)].find((row) => !row.decision);
}

async function write(noteId, decision, more = {}) {
  const note = await ask("/api/decisions", { note_id: noteId, decision, ...more });
  const at = state.rows.findIndex((row) => row.note_id === noteId);
  if (at >= 0) state.rows[at] = note;
  redraw(note);
  return note;
}

async function decide(decision) {
  const { note_id: noteId } = state.note;
  const { comment, ...about } = stated();
  const note = await write(noteId, decision, decision === "accept" ? { comment, ...about } : { comment });
  state.last = noteId;
  const next = nextOpen(noteId);
  const pair = decision === "accept" ? (note.decided.correct_note ? ", with the correction" : ", without a correction") : "";
  const done = `Note ${noteId} ${MINE[decision]}${pair}.`;
  if (next) {
    await show(next.note_id, true);
    tell(`${done} Now note ${next.note_id}.`);
  } else {
    drawNote(note);
    tell(`${done} Every note is decided.`);
  }
}

async function keepComment() {
  const note = await write(state.note.note_id, "comment", { comment: byId("comment").value.trim() });
  drawNote(note);
  byId("note-title").focus();
  tell(`Comment on note ${note.note_id} kept.`);
}

async function withdraw(noteId) {
  const note = await write(noteId, "withdraw");
  if (state.last === noteId) state.last = null;
  drawNote(note);
  byId("note-title").focus();
  tell(`The decision on note ${noteId} is taken back.`);
}

async function undo() {
  if (state.last === null) return tell("No decision of this page to take back.");
  await withdraw(state.last);
}

async function move(step) {
  const rows = shownRows();
  const at = rows.findIndex((row) => row.note_id === state.note?.note_id);
  const to = at < 0 ? rows[0] : rows[at + step];
  if (!to) return tell(step > 0 ? "This is the last note." : "This is the first note.");
  await show(to.note_id, true);
  tell("");
}

// ---- keys and buttons

const KEYS = {
  a: () => state.note && carefully(() => decide("accept")),
  r: () => state.note && carefully(() => decide("reject")),
  c: () => state.note && byId("comment").focus(),
  j: () => carefully(() => move(1)),
  k: () => carefully(() => move(-1)),
  u: () => carefully(undo),
  p: () => state.note && !byId("play").disabled && play(),
};

function onKey(event) {
  const field = event.target.closest("input:not([type=checkbox]), textarea, select, dialog");
  if (event.key === "Escape" && event.target.closest("article")) byId("note-title").focus();
  if (event.target === byId("comment") && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    carefully(keepComment);
  }
  if (field || event.ctrlKey || event.metaKey || event.altKey || event.repeat || !byId("use-keys").checked) return;
  const action = KEYS[event.key];
  if (!action || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  action();
}

function start() {
  document.addEventListener("keydown", onKey);
  byId("decision").addEventListener("submit", (event) => event.preventDefault());
  byId("filter").addEventListener("change", drawList);
  byId("more").addEventListener("click", () => {
    state.shown += PAGE;
    drawList();
  });
  byId("sentence").addEventListener("change", () => chooseSentence(byId("sentence").value === "" ? null : Number(byId("sentence").value)));
  byId("accept").addEventListener("click", KEYS.a);
  byId("reject").addEventListener("click", KEYS.r);
  byId("keep-comment").addEventListener("click", () => carefully(keepComment));
  byId("withdraw").addEventListener("click", () => carefully(() => withdraw(state.note.note_id)));
  byId("play").addEventListener("click", play);
  byId("judge").addEventListener("click", judge);
  byId("open").addEventListener("click", () => byId("open-dialog").showModal());
  byId("mode").addEventListener("change", () => (byId("game-type").disabled = byId("mode").value !== "error"));
  carefully(async () => {
    await refresh();
    const first = state.rows.find((row) => !row.decision) ?? state.rows[0];
    if (first) await show(first.note_id);
  });
}

start();
