/** What is said: to screen readers when something has changed, and to all when something went wrong. */

import { byId, debounced, el } from "./dom.js";
import { ApiError } from "./api.js";
import { plural } from "./format.js";

let sentence = "";
// One answer a key would otherwise be one announcement a key.
const speak = debounced(350, () => {
  byId("live").textContent = sentence;
});

/** Says it to screen readers once typing has paused. @param {string} text */
export function announce(text) {
  sentence = text;
  speak.soon();
}

/**
 * A box with a sentence and buttons.
 * @param {object} facts
 * @param {string} facts.title
 * @param {string} facts.text
 * @param {"alert" | "note"} [facts.kind]
 * @param {{text: string, click: () => void}[]} [facts.actions]
 */
export function notice({ title, text, kind = "note", actions = [] }) {
  const buttons = actions.map((action) =>
    el("button", { type: "button", class: "strong", text: action.text, on: { click: action.click } }),
  );
  return el(
    "div",
    { class: `notice ${kind}`, role: kind === "alert" ? "alert" : null },
    el("p", { class: "notice-title", text: title }),
    el("p", { text }),
    ...(buttons.length ? [el("div", { class: "notice-actions" }, ...buttons)] : []),
  );
}

/**
 * An error with a button that tries again.
 * @param {Error} error
 * @param {string} title what did not work
 * @param {() => void} again
 */
export function failure(error, title, again) {
  const text = error instanceof ApiError ? error.message : `The page made a mistake: ${error.message}.`;
  return notice({ title, text, kind: "alert", actions: [{ text: "Try again", click: again }] });
}

/** Said while a busy server is given time. @param {number} seconds */
export function waiting(seconds) {
  return notice({
    title: "The server is busy",
    text: `It asked for a pause; the search goes on by itself in ${plural(Math.ceil(seconds), "second")}.`,
  });
}
