/** Asks for a token when the server wants one. */

import { byId } from "./dom.js";

const NOTE = "Whoever runs the server can give you one. It is kept until this tab is closed.";

/**
 * @param {boolean} refused the server did not take the one before
 * @returns {Promise<string | null>} null if somebody has none
 */
export function askToken(refused) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("token"));
  const value = /** @type {HTMLInputElement} */ (byId("token-value"));
  const form = /** @type {HTMLFormElement} */ (byId("token-form"));
  byId("token-note").textContent = refused ? "The server did not take that token. Is it complete?" : NOTE;
  value.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    let token = /** @type {string | null} */ (null);
    const take = () => {
      token = value.value.trim() || null;
    };
    const cancel = () => dialog.close();
    form.addEventListener("submit", take);
    byId("token-cancel").addEventListener("click", cancel);
    dialog.addEventListener(
      "close",
      () => {
        form.removeEventListener("submit", take);
        byId("token-cancel").removeEventListener("click", cancel);
        resolve(token);
      },
      { once: true },
    );
  });
}
