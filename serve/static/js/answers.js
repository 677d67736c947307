/** From a question to what is shown: the list, its title, or a sentence that says why there is none. */

import { ApiError } from "./api.js";
import { byId } from "./dom.js";
import { plural } from "./format.js";
import { failure, notice, waiting } from "./notices.js";
import { describe, isWhole } from "./query.js";
import { Searcher } from "./search.js";
import { MOST_SHOWN, PAGE, asks } from "./state.js";

/** @typedef {import("./state.js").State} State @typedef {import("./types.js").Answer} Answer */

export class Answers {
  /**
   * @param {object} parts
   * @param {import("./api.js").Api} parts.api
   * @param {import("./results.js").Results} parts.results
   * @param {import("./names.js").Names} parts.names
   * @param {(changes: Partial<State>, how?: "step" | "silent") => void} parts.onChange
   * @param {(hits: import("./types.js").Hit[]) => void} parts.onHits
   * @param {(spaceId: string) => void} parts.onSpace the space that an answer is of
   */
  constructor({ api, results, names, onChange, onHits, onSpace }) {
    this.results = results;
    this.names = names;
    this.onChange = onChange;
    this.onHits = onHits;
    this.onSpace = onSpace;
    this.place = byId("notice");
    /** Where the next page begins, as the server counts. @type {number | null} */
    this.next = null;
    this.searcher = new Searcher(api, {
      onBusy: () => results.list.setAttribute("aria-busy", "true"),
      onWait: (seconds) => this.place.replaceChildren(waiting(seconds)),
      onAnswer: (answer, facts) => this.#show(answer, facts),
      onError: (error, state) => this.#fail(error, state),
    });
  }

  /** The query in words. @param {State} state */
  words(state) {
    return describe({ ...state, terms: this.names.of(state.terms) });
  }

  /**
   * @param {State} state
   * @param {{typing?: boolean}} [how]
   */
  ask(state, how) {
    const nothing = !asks(state) && !state.where.length;
    byId("empty").hidden = !nothing;
    if (nothing) this.#clear("Find music");
    else if (asks(state) && !isWhole(state)) {
      const text = "All parts of this search are minus. Add words, a track or a sound with a plus.";
      this.#clear("Less of what?", notice({ title: "Say also what to look for", text }));
    } else this.searcher.search(state, how);
  }

  /** The next page of the same question. @param {State} state */
  more(state) {
    if (this.next !== null) this.searcher.more(state, this.next, Math.min(PAGE, MOST_SHOWN - this.results.rows.length));
  }

  /**
   * @param {string} title
   * @param {...HTMLElement} said
   */
  #clear(title, ...said) {
    this.searcher.cancel();
    this.results.list.removeAttribute("aria-busy");
    this.results.clear();
    this.results.title(title, "");
    this.onHits([]);
    byId("results-actions").hidden = true;
    this.place.replaceChildren(...said);
  }

  /**
   * @param {Answer} answer
   * @param {{state: State, added: boolean, milliseconds: number}} facts
   */
  #show(answer, { state, added, milliseconds }) {
    const { results } = this;
    results.list.removeAttribute("aria-busy");
    this.place.replaceChildren();
    this.names.learn(answer.hits);
    this.next = answer.next_offset;
    // A track is most like itself, which is no answer to "more like this".
    const named = new Set(state.terms.map(({ kind, value }) => (kind === "track" ? value : "")));
    const hits = answer.hits.filter(({ id }) => !named.has(id));
    const length = (added ? results.rows.length : 0) + hits.length;
    const more = answer.next_offset !== null && length < MOST_SHOWN;
    results.show(hits, { added, more });
    const count = results.rows.length;
    byId("results-actions").hidden = !count;
    this.onHits(results.hits);
    if (asks(state)) {
      const time = `in ${Math.max(1, Math.round(milliseconds))} ms`;
      results.title(this.words(state), `${answer.next_offset === null ? plural(count, "track") : `the best ${count}`} ${time}`);
    } else results.title("Tracks that pass the filters", plural(answer.total ?? count, "track"));
    if (!count) this.place.replaceChildren(this.#nothing(state));
    if (added) this.onChange({ shown: count }, "silent");
    this.onSpace(answer.space_id);
  }

  /** @param {State} state */
  #nothing(state) {
    if (!state.where.length) return notice({ title: "Nothing found", text: "This catalogue has no tracks." });
    return notice({
      title: "Nothing found",
      text: "No track passes all of the filters.",
      actions: [{ text: "Clear all filters", click: () => this.onChange({ where: [] }) }],
    });
  }

  /**
   * @param {Error} error
   * @param {State} state
   */
  #fail(error, state) {
    const lost = lostSound(error, state);
    if (!lost) {
      this.#clear("No tracks", failure(error, "The search did not work", () => this.searcher.search(state)));
      return;
    }
    const without = () => this.onChange({ terms: state.terms.filter((term) => term !== lost) });
    this.#clear(
      "No tracks",
      notice({
        title: `${lost.label ?? "The sound"} is no longer there`,
        text: "The server keeps what was dropped for a while only. Drop the file again, or search without it.",
        kind: "alert",
        actions: [
          { text: "Search without it", click: without },
          { text: "Choose the file again", click: () => byId("file").click() },
        ],
      }),
    );
  }
}

/**
 * The sound that the server does not know any more, if that is what the error says.
 * @param {Error} error
 * @param {State} state
 */
function lostSound(error, state) {
  if (!(error instanceof ApiError) || error.kind !== "unknown-upload") return undefined;
  return state.terms.find(({ kind, value }) => kind === "sound" && error.message.includes(value));
}
