/** Asks for hits: waits until typing pauses, gives up older questions, and lets only the newest answer through. */

import { debounced } from "./dom.js";
import { isAbort } from "./api.js";
import { searchBody } from "./query.js";
import { asks } from "./state.js";

/** @typedef {import("./state.js").State} State @typedef {import("./types.js").Answer} Answer */

const TYPING_PAUSE = 70; // milliseconds: between two keys of a fast typist

export class Searcher {
  /**
   * @param {import("./api.js").Api} api
   * @param {object} listeners
   * @param {() => void} listeners.onBusy
   * @param {(answer: Answer, facts: {state: State, added: boolean, milliseconds: number}) => void} listeners.onAnswer
   * @param {(error: Error, state: State) => void} listeners.onError
   * @param {(seconds: number) => void} listeners.onWait
   */
  constructor(api, listeners) {
    this.api = api;
    this.listeners = listeners;
    this.moments = true;
    /** @type {AbortController | null} */
    this.running = null;
    /** @type {State | null} */
    this.state = null;
    this.typed = debounced(TYPING_PAUSE, () => this.state && this.#ask(this.state, 0, this.state.shown + named(this.state)));
  }

  /**
   * @param {State} state
   * @param {{typing?: boolean}} [how] typing: wait for a pause first
   */
  search(state, { typing = false } = {}) {
    this.cancel();
    this.state = state;
    if (typing) this.typed.soon();
    else this.typed.now();
  }

  /**
   * The next hits of the same question.
   * @param {State} state
   * @param {number} offset
   * @param {number} k
   */
  more(state, offset, k) {
    this.cancel();
    this.#ask(state, offset, k);
  }

  /** Nothing that was asked before is shown any more. */
  cancel() {
    this.typed.cancel();
    this.running?.abort();
    this.running = null;
  }

  /**
   * @param {State} state
   * @param {number} offset
   * @param {number} k
   */
  async #ask(state, offset, k) {
    const mine = new AbortController();
    this.running = mine;
    const { onBusy, onAnswer, onError, onWait } = this.listeners;
    onBusy();
    const started = performance.now();
    try {
      const options = { signal: mine.signal, onWait };
      const answer = asks(state) ? await this.#ranked(state, offset, k, options) : await this.#listed(state, offset, k, options);
      // An answer may have arrived in full before it was given up.
      if (this.running !== mine) return;
      this.running = null;
      onAnswer(answer, { state, added: offset > 0, milliseconds: performance.now() - started });
    } catch (error) {
      if (isAbort(error) || this.running !== mine) return;
      this.running = null;
      onError(/** @type {Error} */ (error), state);
    }
  }

  /**
   * @param {State} state
   * @param {number} offset
   * @param {number} k
   * @param {import("./types.js").RequestOptions} options
   * @returns {Promise<Answer>}
   */
  #ranked(state, offset, k, options) {
    return this.api.post("v1/search", searchBody(state, { k, offset, moments: this.moments }), options);
  }

  /**
   * Filters alone leave nothing to rank by: the tracks come in the catalogue's own order.
   * @param {State} state
   * @param {number} offset
   * @param {number} limit
   * @param {import("./types.js").RequestOptions} options
   * @returns {Promise<Answer>}
   */
  async #listed(state, offset, limit, options) {
    const answer = await this.api.get("v1/tracks", { offset, limit, where: state.where }, options);
    const none = { start_seconds: null, end_seconds: null, score: null };
    const hits = answer.tracks.map((/** @type {object} */ track, /** @type {number} */ at) => ({
      ...none,
      ...track,
      rank: offset + at + 1,
    }));
    return { ...answer, hits, milliseconds: null };
  }
}

/** How many tracks the query names: they will be among the hits, and are not shown. @param {State} state */
function named(state) {
  return state.terms.filter(({ kind }) => kind === "track").length;
}
