"use strict";
// One game on a page, of a report or of a review. Everything is put there as text (textContent), never as markup.

const OUTCOMES = {
  assessor: "Assessor won",
  injector: "Injector won",
  no_verdict: "no verdict",
  not_judged: "not judged",
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
  if (game.outcome === "not_judged") return "No Assessor was asked: only what the edit took out is learnt from this game.";
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
