/** The tag explorer: every tag of the catalogue with its number of tracks; one leads to what sounds like it. */

import { byId, debounced, el } from "./dom.js";
import { failure } from "./notices.js";
import { plural } from "./format.js";

/** @typedef {import("./types.js").Tag} Tag */

const MOST_OF_A_KIND = 60;

export class Tags {
  /**
   * @param {import("./api.js").Api} api
   * @param {{onSearch: (name: string) => void, onOnly: (tag: Tag) => void}} listeners
   */
  constructor(api, listeners) {
    this.api = api;
    this.listeners = listeners;
    /** @type {Tag[] | null} */
    this.tags = null;
    /** What is on the screen. @type {Tag[] | null} */
    this.drawn = null;
    /** @type {Promise<Tag[]> | undefined} */
    this.asked = undefined;
    this.find = /** @type {HTMLInputElement} */ (byId("tags-find"));
    this.order = /** @type {HTMLSelectElement} */ (byId("tags-order"));
    /** @type {Set<string>} */
    this.full = new Set();
    const typed = debounced(80, () => this.#draw());
    this.find.addEventListener("input", typed.soon);
    this.order.addEventListener("change", () => this.#draw());
  }

  /** Asks for the tags once. @returns {Promise<Tag[]>} */
  load() {
    const asked = this.asked ?? this.api.get("v1/tags").then((/** @type {{tags: Tag[]}} */ { tags }) => (this.tags = tags));
    this.asked = asked;
    // A failure is not kept, so that it can be tried again.
    asked.catch(() => {
      this.asked = undefined;
    });
    return asked;
  }

  /** Another catalogue has taken the place of the one before. */
  reset() {
    this.asked = undefined;
    this.tags = null;
  }

  async open() {
    if (this.tags && this.drawn === this.tags) return;
    const place = byId("tags-notice");
    try {
      await this.load();
      place.replaceChildren();
      this.drawn = this.tags;
      this.#draw();
    } catch (error) {
      place.replaceChildren(failure(/** @type {Error} */ (error), "The tags did not come", () => this.open()));
    }
  }

  #draw() {
    const tags = /** @type {Tag[]} */ (this.tags ?? []);
    const wanted = this.find.value.trim().toLowerCase();
    const found = tags.filter(({ name }) => name.toLowerCase().includes(wanted));
    byId("tags").hidden = !tags.length;
    byId("tags-note").textContent = !tags.length
      ? "This catalogue has no tags."
      : wanted
        ? `${found.length} of ${plural(tags.length, "tag")}`
        : `${plural(tags.length, "tag")}. Choose one to hear what sounds most like it.`;
    /** @type {Map<string, Tag[]>} */
    const kinds = new Map();
    for (const tag of found) kinds.set(tag.kind || "tags", [...(kinds.get(tag.kind || "tags") || []), tag]);
    byId("tags-groups").replaceChildren(...[...kinds].map(([kind, mine]) => this.#group(kind, mine)));
  }

  /**
   * @param {string} kind
   * @param {Tag[]} tags
   */
  #group(kind, tags) {
    const byName = (/** @type {Tag} */ a, /** @type {Tag} */ b) => a.name.localeCompare(b.name);
    const byCount = (/** @type {Tag} */ a, /** @type {Tag} */ b) => (b.tracks || 0) - (a.tracks || 0) || byName(a, b);
    const sorted = tags.toSorted(this.order.value === "name" ? byName : byCount);
    const most = Math.max(1, ...tags.map(({ tracks }) => tracks || 0));
    const all = this.full.has(kind) || sorted.length <= MOST_OF_A_KIND;
    const title = el("h3", { text: kind }, el("span", { class: "count", text: ` ${tags.length}` }));
    const list = el("ul", { class: "tag-list" }, ...sorted.slice(0, all ? undefined : MOST_OF_A_KIND).map((tag) => this.#tag(tag, most)));
    const more = el("button", { type: "button", class: "quiet", text: `All ${sorted.length}` });
    more.addEventListener("click", () => {
      this.full.add(kind);
      this.#draw();
    });
    return el("section", { class: "tag-group" }, title, list, ...(all ? [] : [more]));
  }

  /**
   * @param {Tag} tag
   * @param {number} most
   */
  #tag(tag, most) {
    const search = el(
      "button",
      { type: "button", class: "tag-name", title: `Search for ${tag.name}`, on: { click: () => this.listeners.onSearch(tag.name) } },
      el("span", { text: tag.name }),
    );
    const item = el("li", { class: "tag-row" }, search);
    if (tag.tracks !== null && tag.tracks !== undefined) {
      const only = el("button", {
        type: "button",
        class: "quiet only",
        text: tag.tracks.toLocaleString("en"),
        title: `Only tracks with ${tag.name}`,
        "aria-label": `Only the ${plural(tag.tracks, "track")} with ${tag.name}`,
        on: { click: () => this.listeners.onOnly(tag) },
      });
      item.append(only);
      item.style.setProperty("--share", `${((tag.tracks || 0) / most) * 100}%`);
    }
    return item;
  }
}
