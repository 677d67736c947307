/** Waveforms: fetched a few at a time, kept, and drawn with the moment that answers and how far it has been played. */

import { colours, eachFrame, sharpContext } from "./dom.js";
import { isAbort } from "./api.js";
import { clock, spoken } from "./format.js";

/** @typedef {{peaks: number[], duration_seconds: number}} Peaks */

const POINTS = 200;
const AT_ONCE = 3; // each is a decoded file on the server
const MOST_KEPT = 500;
const STEP = 5; // seconds an arrow key moves

/** Peaks by track; what was asked for last comes first, as that is what is on the screen. */
export class Waveforms {
  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
    /** @type {Map<string, Peaks>} */
    this.kept = new Map();
    /** @type {{id: string, resolve: (peaks: Peaks) => void, reject: (error: Error) => void}[]} */
    this.queue = [];
    this.running = 0;
  }

  /**
   * @param {string} id
   * @returns {Promise<Peaks>}
   */
  of(id) {
    const kept = this.kept.get(id);
    if (kept) return Promise.resolve(kept);
    return new Promise((resolve, reject) => {
      this.queue.push({ id, resolve, reject });
      this.#next();
    });
  }

  /** Leaves out what has not been asked of the server yet. */
  forget() {
    for (const { reject } of this.queue.splice(0)) reject(new DOMException("given up", "AbortError"));
  }

  async #next() {
    if (this.running >= AT_ONCE) return;
    const wanted = this.queue.pop();
    if (!wanted) return;
    this.running += 1;
    try {
      const peaks = this.kept.get(wanted.id) ?? (await this.api.get("v1/waveform", { id: wanted.id, points: POINTS }));
      this.kept.set(wanted.id, peaks);
      if (this.kept.size > MOST_KEPT) this.kept.delete(/** @type {string} */ (this.kept.keys().next().value));
      wanted.resolve(peaks);
    } catch (error) {
      wanted.reject(/** @type {Error} */ (error));
    } finally {
      this.running -= 1;
      this.#next();
    }
  }
}

/** One waveform on a canvas that is also a slider: click or arrow keys choose where to play. */
export class Wave {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {{onSeek: (seconds: number) => void}} listeners
   */
  constructor(canvas, { onSeek }) {
    this.canvas = canvas;
    this.onSeek = onSeek;
    /** @type {number[] | null} */
    this.peaks = null;
    this.duration = 0;
    /** @type {[number, number] | null} */
    this.moment = null;
    this.position = 0;
    this.played = false;
    /** Whether it is, or is about to be, in sight; what is not costs no drawing. */
    this.seen = true;
    this.redraw = eachFrame(() => this.#draw());
    canvas.addEventListener("click", (event) => this.#seek((event.offsetX / canvas.clientWidth) * this.duration));
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  /**
   * @param {object} facts
   * @param {string} facts.title
   * @param {number | null | undefined} facts.duration
   * @param {number | null | undefined} facts.start
   * @param {number | null | undefined} facts.end
   */
  describe({ title, duration, start, end }) {
    this.peaks = null;
    this.duration = duration || 0;
    this.moment = start === null || start === undefined || end === null || end === undefined ? null : [start, end];
    this.canvas.setAttribute("aria-label", `Position in ${title}`);
    this.setPosition(this.moment ? this.moment[0] : 0, false);
  }

  /** @param {Peaks} found */
  setPeaks({ peaks, duration_seconds: duration }) {
    this.peaks = peaks;
    this.duration = duration;
    this.setPosition(this.position, this.played);
  }

  /**
   * @param {number} seconds
   * @param {boolean} played whether it has been played up to here, or only would begin here
   */
  setPosition(seconds, played) {
    this.position = seconds;
    this.played = played;
    const moment = this.moment ? `, matches from ${clock(this.moment[0])} to ${clock(this.moment[1])}` : "";
    this.canvas.setAttribute("aria-valuemin", "0");
    this.canvas.setAttribute("aria-valuemax", String(Math.round(this.duration)));
    this.canvas.setAttribute("aria-valuenow", String(Math.round(Math.min(seconds, this.duration))));
    this.canvas.setAttribute("aria-valuetext", `${spoken(seconds)} of ${spoken(this.duration)}${moment}`);
    this.redraw();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    /** @type {Record<string, number>} */
    const places = {
      ArrowLeft: this.position - STEP,
      ArrowRight: this.position + STEP,
      PageDown: this.position - 3 * STEP,
      PageUp: this.position + 3 * STEP,
      Home: 0,
      End: this.duration - 1,
      Enter: this.position,
    };
    const place = places[event.key];
    if (place === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.#seek(place);
  }

  /** @param {number} seconds */
  #seek(seconds) {
    if (this.duration) this.onSeek(Math.max(0, Math.min(this.duration, seconds)));
  }

  #draw() {
    if (!this.seen || !this.canvas.clientWidth) return;
    const { context, width, height } = sharpContext(this.canvas);
    const [rest, accent, soft] = colours("wave", "accent", "accent-soft");
    const across = (/** @type {number} */ seconds) => (this.duration ? (seconds / this.duration) * width : 0);
    if (this.moment) {
      const [from, to] = this.moment.map(across);
      context.fillStyle = soft;
      context.beginPath();
      context.roundRect(from, 0, Math.max(3, to - from), height, 3);
      context.fill();
    }
    const bars = Math.max(1, Math.floor(width / 3));
    for (let bar = 0; bar < bars; bar += 1) {
      const seconds = ((bar + 0.5) / bars) * this.duration;
      const inside = this.moment !== null && seconds >= this.moment[0] && seconds <= this.moment[1];
      const tall = Math.max(1.5, this.#peak(bar, bars) * (height - 6));
      context.fillStyle = inside || (this.played && seconds <= this.position) ? accent : rest;
      context.fillRect(bar * 3, (height - tall) / 2, 2, tall);
    }
    if (this.played) {
      context.fillStyle = accent;
      context.fillRect(Math.min(width - 2, across(this.position)), 0, 2, height);
    }
  }

  /**
   * The loudest of the peaks that one bar stands for.
   * @param {number} bar
   * @param {number} bars
   */
  #peak(bar, bars) {
    if (!this.peaks?.length) return 0;
    const first = Math.floor((bar / bars) * this.peaks.length);
    const last = Math.max(first + 1, Math.floor(((bar + 1) / bars) * this.peaks.length));
    return Math.min(1, Math.max(...this.peaks.slice(first, last)));
  }
}

/**
 * Loads a wave's peaks, and leaves it flat where there are none: a missing picture is no reason to complain.
 * @param {Wave} wave
 * @param {Waveforms} waveforms
 * @param {string} id
 */
export async function loadWave(wave, waveforms, id) {
  try {
    wave.setPeaks(await waveforms.of(id));
    return true;
  } catch (error) {
    return !isAbort(error);
  }
}
