// More notes on the page, and games on a note. Called by page.js, whose state and functions it uses when it is.

function working(button, on) {
  button.disabled = on;
  button.setAttribute("aria-busy", String(on));
}

/** The file as base64, for JSON. */
function asBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result.slice(reader.result.indexOf(",") + 1)));
    reader.addEventListener("error", () => reject(new Error(`${file.name} cannot be read`)));
    reader.readAsDataURL(file);
  });
}

/** Judges the pasted note, and opens the files, whose notes are judged in their turn; returns the first note's id. */
async function takeIn(pasted, files) {
  const ids = [];
  if (pasted) ids.push(...(await ask("/api/judge", { notes: [{ text: pasted }] })).findings.map((note) => note.note_id));
  for (const file of files) ids.push(...(await ask("/api/open", { name: file.name, content: await asBase64(file) })).note_ids);
  return ids;
}

async function judge() {
  const pasted = byId("pasted").value.trim() ? byId("pasted").value : "";
  const files = [...byId("files").files];
  const trouble = byId("open-trouble");
  trouble.hidden = Boolean(pasted || files.length);
  trouble.textContent = "There is no note yet: paste one, or choose files.";
  if (!trouble.hidden) return;
  working(byId("judge"), true);
  try {
    const ids = await takeIn(pasted, files);
    byId("open-dialog").close();
    byId("pasted").value = byId("files").value = "";
    await show(ids[0], true);
    const { left_to_judge: left } = await refresh();
    if (!left) tell(ids.length === 1 ? `Note ${ids[0]} is here.` : `${ids.length} notes are here.`);
  } catch (error) {
    trouble.textContent = error.message;
    trouble.hidden = false;
  } finally {
    working(byId("judge"), false);
  }
}

async function play() {
  const { note_id: noteId } = state.note;
  const mode = byId("mode").value;
  const errorType = byId("game-type").value;
  working(byId("play"), true);
  tell("The model is playing.");
  try {
    const { game, outcome } = await ask("/api/play", { note_id: noteId, mode, error_type: mode === "error" && errorType ? errorType : null });
    if (state.note.note_id !== noteId) return;
    byId("played").replaceChildren();
    fillGame(byId("played"), game);
    tell(`The game is played. ${outcome}`);
  } catch (error) {
    complain(error);
  } finally {
    working(byId("play"), false);
  }
}
