/** Search by sound: a file is dropped or chosen, sent, and becomes a chip. */

import { byId, el } from "./dom.js";
import { isAbort } from "./api.js";
import { clock, megabytes, percent } from "./format.js";
import { announce, failure, notice } from "./notices.js";

/** @typedef {import("./types.js").Upload} Upload */

export class Uploads {
  /**
   * @param {import("./api.js").Api} api
   * @param {(upload: Upload) => void} onDone
   */
  constructor(api, onDone) {
    this.api = api;
    this.onDone = onDone;
    this.box = byId("upload");
    this.drop = byId("drop");
    /** @type {import("./types.js").Info["upload"] | null} */
    this.limits = null;
    /** @type {AbortController | null} */
    this.running = null;
    const file = /** @type {HTMLInputElement} */ (byId("file"));
    byId("by-sound").addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      if (file.files?.[0]) this.send(file.files[0]);
      file.value = ""; // so that the same file can be chosen again
    });
    this.#watchDrops();
  }

  /** @param {File} file */
  async send(file) {
    const refusal = this.#refusal(file);
    if (refusal) {
      this.#say(notice({ title: "This file cannot be searched by", text: refusal, kind: "alert", actions: [this.#close()] }));
      return;
    }
    this.running?.abort();
    const mine = new AbortController();
    this.running = mine;
    const bar = el("progress", { max: 1, value: 0, "aria-label": `Sending ${file.name}` });
    const note = el("p", {}, `Sending ${file.name}`);
    const stop = el("button", { type: "button", class: "quiet", text: "Cancel", on: { click: () => mine.abort() } });
    this.#say(el("div", { class: "sending" }, note, bar, stop));
    announce(`Sending ${file.name}`);
    const onProgress = (/** @type {number} */ share) => {
      bar.value = share;
      note.textContent = share < 1 ? `Sending ${file.name}, ${percent(share)}` : `Listening to ${file.name}`;
      // How long the model takes is not known, and a bar without a value says so.
      if (share >= 1) bar.removeAttribute("value");
    };
    try {
      const upload = await this.api.upload(file, { signal: mine.signal, onProgress });
      this.#hide();
      announce(`${file.name} is part of the search`);
      this.onDone({ ...upload, name: upload.name || file.name });
    } catch (error) {
      if (this.running !== mine) return;
      if (isAbort(error)) this.#hide();
      else this.#say(failure(/** @type {Error} */ (error), `${file.name} cannot be searched by`, () => this.send(file)));
    }
  }

  /** Why it is not worth sending, if so. @param {File} file */
  #refusal(file) {
    if (!file.size) return `${file.name} is empty.`;
    if (this.limits && file.size > this.limits.max_bytes) {
      const longest = this.limits.max_seconds ? ` and ${clock(this.limits.max_seconds)} minutes` : "";
      return `${file.name} has ${megabytes(file.size)}; the server takes up to ${megabytes(this.limits.max_bytes)}${longest}. A short part of it is enough.`;
    }
    return "";
  }

  #close() {
    return { text: "Close", click: () => this.#hide() };
  }

  /** @param {HTMLElement} what */
  #say(what) {
    this.box.hidden = false;
    this.box.replaceChildren(what);
    if (what.classList.contains("alert") && !what.querySelector("button:last-child")?.textContent?.includes("Close")) {
      const { text, click } = this.#close();
      what.querySelector(".notice-actions")?.append(el("button", { type: "button", class: "quiet", text, on: { click } }));
    }
  }

  #hide() {
    this.box.hidden = true;
    this.box.replaceChildren();
  }

  #watchDrops() {
    let depth = 0; // entering a child fires before leaving its parent does
    const holdsFile = (/** @type {DragEvent} */ event) => Boolean(event.dataTransfer?.types.includes("Files"));
    const show = () => {
      this.drop.hidden = depth <= 0;
    };
    addEventListener("dragenter", (event) => {
      if (!holdsFile(event)) return;
      depth += 1;
      show();
    });
    addEventListener("dragleave", (event) => {
      if (!holdsFile(event)) return;
      depth -= 1;
      show();
    });
    // Without this the browser would leave the page and open the file.
    addEventListener("dragover", (event) => holdsFile(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      if (!holdsFile(event)) return;
      event.preventDefault();
      depth = 0;
      show();
      const file = event.dataTransfer?.files[0];
      if (file) this.send(file);
    });
  }
}
