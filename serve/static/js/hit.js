/** One hit as a row. */

import { byId, el } from "./dom.js";
import { clock, percent, titleOf } from "./format.js";
import { showPlay } from "./player-bar.js";
import { Wave } from "./waveform.js";

/** @typedef {import("./types.js").Hit} Hit @typedef {import("./types.js").Playable} Playable */

/**
 * What can be done with a row.
 * @typedef {object} RowListeners
 * @property {(hit: Hit, from?: number) => void} onPlay
 * @property {(hit: Hit) => void} onLike
 * @property {(hit: Hit) => void} onBlend
 * @property {(hit: Hit) => void} onLess
 * @property {(name: string) => void} onTag
 */

/**
 * A hit as the player sees it.
 * @param {Hit} hit
 * @returns {Playable}
 */
export function playable(hit) {
  return {
    id: hit.id,
    title: titleOf(hit),
    by: [hit.artist, hit.album].filter(Boolean).join(" · "),
    start: hit.start_seconds ?? 0,
    end: hit.end_seconds,
    duration: hit.duration_seconds,
  };
}

export class Row {
  /**
   * @param {Hit} hit
   * @param {RowListeners} listeners
   */
  constructor(hit, listeners) {
    const template = /** @type {HTMLTemplateElement} */ (byId("hit-template"));
    const item = /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode(true));
    /** @param {string} selector */
    const part = (selector) => /** @type {HTMLElement} */ (item.querySelector(selector));
    const title = titleOf(hit);
    this.hit = hit;
    this.item = item;
    item.dataset.id = hit.id;
    this.from = hit.start_seconds ? `from ${clock(hit.start_seconds)}` : "";

    part(".hit-title").textContent = title;
    part(".hit-by").textContent = [hit.artist, hit.album].filter(Boolean).join(" · ") || folderOf(hit.id);
    if (hit.score === null) part(".hit-score").remove();
    else {
      part(".hit-score span:last-child").textContent = hit.score.toFixed(2);
      part(".hit-score").title = "Cosine with the search, from −1 to 1";
    }
    part(".hit-time").textContent = this.#time();
    part(".hit-tags").replaceChildren(...hit.tags.map((tag) => tagItem(tag, listeners.onTag)));
    for (const [name, act] of /** @type {const} */ ([["like", "onLike"], ["blend", "onBlend"], ["less", "onLess"]])) {
      const button = part(`[data-part=${name}]`);
      button.setAttribute("aria-label", `${button.textContent}: ${title}`);
      button.addEventListener("click", () => listeners[act](hit));
    }

    this.play = part("[data-part=play]");
    const canvas = /** @type {HTMLCanvasElement} */ (part("canvas"));
    /** @type {Wave | null} */
    this.wave = null;
    if (hit.audio) {
      this.wave = new Wave(canvas, { onSeek: (seconds) => listeners.onPlay(hit, seconds) });
      this.wave.seen = false;
      this.wave.describe({ title, duration: hit.duration_seconds, start: hit.start_seconds, end: hit.end_seconds });
      this.play.addEventListener("click", () => listeners.onPlay(hit));
      showPlay(this.play, false, title, this.from);
    } else {
      item.classList.add("silent");
      canvas.remove();
      this.play.remove();
    }
  }

  /** What can be tabbed to in this row. @returns {HTMLElement[]} */
  get stops() {
    return [...this.item.querySelectorAll("button, canvas")].map((found) => /** @type {HTMLElement} */ (found));
  }

  /** Only one row of the list is a stop of the Tab key; arrows go from row to row. @param {boolean} on */
  reachable(on) {
    for (const stop of this.stops) stop.tabIndex = on ? 0 : -1;
  }

  /** @param {import("./player.js").Player} player */
  showPlayer(player) {
    const mine = player.track?.id === this.hit.id;
    if (!mine && !this.playing) return;
    this.playing = mine;
    this.item.classList.toggle("current", mine);
    showPlay(this.play, mine && player.playing, titleOf(this.hit), this.from);
    this.wave?.setPosition(mine ? player.position : (this.hit.start_seconds ?? 0), mine);
  }

  #time() {
    const { start_seconds: start, end_seconds: end, duration_seconds: duration } = this.hit;
    const whole = duration ? clock(duration) : "";
    if (start === null || end === null || (duration && end - start >= duration - 0.5)) return whole;
    return `${clock(start)}–${clock(end)}${whole && ` of ${whole}`}`;
  }
}

/** Ids of files in folders say more than their names: whose they are, or what. @param {string} id */
function folderOf(id) {
  return id.includes("/") ? id.slice(0, id.lastIndexOf("/")) : "";
}

/**
 * @param {import("./types.js").HitTag} tag
 * @param {(name: string) => void} onTag
 */
function tagItem({ name, kind, probability, given }, onTag) {
  const sure = probability === null ? "" : percent(probability);
  const source = given ? "the catalogue says so" : "the model's guess";
  const button = el(
    "button",
    {
      type: "button",
      class: given ? "tag given" : "tag",
      title: `${kind ? `${kind}: ` : ""}${name}${sure && `, ${sure}`} (${source})`,
      "aria-label": `${name}${sure && `, ${sure}`}: add to the search`,
      on: { click: () => onTag(name) },
    },
    el("span", { text: name }),
    ...(sure ? [el("span", { class: "sure", text: sure })] : []),
  );
  if (probability !== null) button.style.setProperty("--sure", `${probability * 100}%`);
  return el("li", {}, button);
}
