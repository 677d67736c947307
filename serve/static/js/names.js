/** What tracks and sounds are called, so that a chip need not show an id. */

import { titleOf } from "./format.js";

/** @typedef {import("./state.js").Term} Term @typedef {import("./state.js").State} State */

export class Names {
  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
    /** @type {Map<string, string>} */
    this.known = new Map();
  }

  /**
   * Remembers tracks that were seen.
   * @param {{id: string, title?: string | null}[]} tracks
   */
  learn(tracks) {
    for (const track of tracks) this.known.set(track.id, titleOf(track));
  }

  /** The chips with the names that people know. @param {Term[]} terms @returns {Term[]} */
  of(terms) {
    return terms.map((term) => (term.kind === "track" ? { ...term, label: this.known.get(term.value) } : term));
  }

  /**
   * Asks for the names of tracks that came by a link.
   * @param {Term[]} terms
   * @returns {Promise<boolean>} whether there is one that was not known before
   */
  async lookUp(terms) {
    const unknown = terms.filter(({ kind, value }) => kind === "track" && !this.known.has(value));
    for (const { value } of unknown) {
      this.known.set(value, value); // asked once, whatever comes of it
      const track = await this.api.get("v1/track", { id: value }).catch(() => null);
      if (track) this.learn([track]);
    }
    return unknown.length > 0;
  }
}
