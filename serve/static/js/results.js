/** The list of hits: rows, one of which is reachable by Tab, waveforms as they come into view, and what it says above. */

import { byId, el } from "./dom.js";
import { plural } from "./format.js";
import { Row, playable } from "./hit.js";
import { announce } from "./notices.js";
import { loadWave } from "./waveform.js";

/** @typedef {import("./types.js").Hit} Hit */

export class Results {
  /**
   * @param {object} parts
   * @param {import("./player.js").Player} parts.player
   * @param {import("./waveform.js").Waveforms} parts.waveforms
   * @param {Omit<import("./hit.js").RowListeners, "onPlay">} parts.listeners
   * @param {() => void} parts.onMore
   */
  constructor({ player, waveforms, listeners, onMore }) {
    this.player = player;
    this.waveforms = waveforms;
    this.list = byId("hits");
    this.more = /** @type {HTMLButtonElement} */ (byId("more"));
    /** @type {Row[]} */
    this.rows = [];
    /** @type {Map<Element, Row>} */
    this.unseen = new Map();
    this.listeners = {
      ...listeners,
      onPlay: (/** @type {Hit} */ hit, /** @type {number | undefined} */ from) => this.#play(hit, from),
    };
    // Each waveform is a file that the server has to decode: only those that somebody sees.
    this.watch = new IntersectionObserver((entries) => entries.forEach((entry) => entry.isIntersecting && this.#seen(entry.target)), {
      rootMargin: "200px",
    });
    this.resized = new ResizeObserver((entries) => entries.forEach(({ target }) => this.#rowOf(target)?.wave?.redraw()));
    this.more.addEventListener("click", onMore);
    this.list.addEventListener("keydown", (event) => this.#key(event));
    this.list.addEventListener("focusin", (event) => this.#focused(/** @type {Element} */ (event.target)));
    player.addEventListener("change", () => this.#showPlayer());
    player.addEventListener("time", () => this.#showPlayer());
  }

  /** @returns {Hit[]} */
  get hits() {
    return this.rows.map(({ hit }) => hit);
  }

  /**
   * Shows other hits, or adds some to those there are.
   * @param {Hit[]} hits
   * @param {{added: boolean, more: boolean}} how
   */
  show(hits, { added, more }) {
    if (!added) this.clear();
    const first = this.rows.length;
    const known = new Set(this.rows.map(({ hit }) => hit.id));
    const rows = hits.filter(({ id }) => !known.has(id)).map((hit) => new Row(hit, this.listeners));
    this.rows.push(...rows);
    this.list.append(...rows.map(({ item }) => item));
    for (const row of rows) {
      row.reachable(false);
      this.unseen.set(row.item, row);
      this.watch.observe(row.item);
      this.resized.observe(row.item);
    }
    if (first === 0) this.rows[0]?.reachable(true);
    this.more.hidden = !more;
    this.#showPlayer();
    const said = `${plural(this.rows.length, "track")}${more ? ", and there are more" : ""}`;
    announce(added ? `${plural(rows.length, "track")} added, ${said}` : said);
    // The button may have gone with the last page, and the first of the new rows is what was asked for.
    if (added) rows[0]?.stops[0]?.focus();
  }

  clear() {
    this.watch.disconnect();
    this.resized.disconnect();
    this.waveforms.forget();
    this.unseen.clear();
    this.rows = [];
    this.list.replaceChildren();
    this.more.hidden = true;
  }

  /** Draws all waveforms again, for when colours have changed. */
  repaint() {
    for (const { wave } of this.rows) wave?.redraw();
  }

  /** Said above the list. @param {string} title @param {string} note */
  title(title, note) {
    byId("results-title").textContent = title;
    byId("results-note").textContent = note;
  }

  /**
   * What is shown before anything is asked.
   * @param {string[]} examples
   * @param {(text: string) => void} onExample
   */
  welcome(examples, onExample) {
    const list = examples.map((text) =>
      el("li", {}, el("button", { type: "button", class: "example", text, on: { click: () => onExample(text) } })),
    );
    const hints = [
      "Drop an audio file anywhere on this page to find what sounds like it.",
      "Join words by plus and minus: strings + slow − drums.",
    ];
    byId("empty").replaceChildren(
      el("p", { class: "lead", text: list.length ? "Say what it should sound like, for example" : "Say what it should sound like." }),
      el("ul", { class: "examples" }, ...list),
      ...hints.map((text) => el("p", { class: "faint", text })),
    );
  }

  /** @param {Element} item */
  async #seen(item) {
    const row = this.unseen.get(item);
    this.watch.unobserve(item);
    if (!row?.wave || !this.unseen.delete(item)) return;
    row.wave.seen = true;
    row.wave.redraw();
    await loadWave(row.wave, this.waveforms, row.hit.id);
    if (row.playing) row.showPlayer(this.player);
  }

  /**
   * @param {Hit} hit
   * @param {number | undefined} from
   */
  #play(hit, from) {
    const { track } = this.player;
    if (from === undefined && track?.id === hit.id) this.player.toggle(this.player.audio.ended ? track.start : undefined);
    else this.player.play(playable(hit), this.rows.filter((row) => row.wave).map((row) => playable(row.hit)), from);
  }

  #showPlayer() {
    for (const row of this.rows) if (row.wave) row.showPlayer(this.player);
  }

  /** @param {Element} target */
  #rowOf(target) {
    const item = target.closest(".hit");
    return this.rows.find((row) => row.item === item);
  }

  /** @param {Element} target */
  #focused(target) {
    const here = this.#rowOf(target);
    if (!here) return;
    for (const row of this.rows) row.reachable(row === here);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const at = this.rows.findIndex((row) => row.item.contains(/** @type {Node} */ (event.target)));
    /** @type {Record<string, number>} */
    const places = { ArrowDown: at + 1, ArrowUp: at - 1 };
    if (document.activeElement?.matches("[data-part=play]")) Object.assign(places, { Home: 0, End: this.rows.length - 1 });
    const next = this.rows[places[event.key]];
    if (at < 0 || !next || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    // The same thing of the other row, if it has it.
    const place = this.rows[at].stops.indexOf(/** @type {HTMLElement} */ (event.target));
    const part = /** @type {HTMLElement} */ (event.target).dataset.part;
    const same = part ? next.item.querySelector(`[data-part=${part}]`) : next.stops[place];
    /** @type {HTMLElement} */ (same ?? next.stops[0]).focus();
  }
}
