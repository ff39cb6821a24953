"use strict";
// What the page asks the server, and the token that the server may ask for.

const byId = (id) => document.getElementById(id);

async function ask(path, body) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
  } catch {
    throw new Error("the server does not answer; start `medserl serve` again, and go on here: what was decided is kept");
  }
  if (response.status === 401) {
    await askToken(token !== null);
    return ask(path, body);
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `the server answered with ${response.status}`);
  return answer;
}

let askingToken = null;

/** One dialog, however many requests wait for it. */
function askToken(wrong) {
  const dialog = byId("token-dialog");
  byId("token-trouble").hidden = !wrong;
  askingToken ??= new Promise((resolve) => {
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    byId("token-form").addEventListener(
      "submit",
      () => {
        sessionStorage.setItem("token", byId("token").value.trim());
        byId("token").value = "";
        askingToken = null;
        resolve();
      },
      { once: true },
    );
    dialog.showModal();
  });
  return askingToken;
}
