/** What is heard: one audio element for the whole page, so that never two tracks sound at once. */

import { isAbort } from "./api.js";

/** @typedef {import("./types.js").Playable} Playable */

/** Fires `change` when another track is chosen or it starts or stops, `time` while it plays, `problem` when it cannot. */
export class Player extends EventTarget {
  /**
   * @param {HTMLAudioElement} audio
   * @param {import("./api.js").Api} api
   */
  constructor(audio, api) {
    super();
    this.audio = audio;
    this.api = api;
    /** @type {Playable | null} */
    this.track = null;
    /** What `next` and `previous` go along. @type {Playable[]} */
    this.list = [];
    /** @type {AbortController | null} */
    this.loading = null;
    /** Where to be once the length is known. @type {number | undefined} */
    this.pending = undefined;
    /** Why the track cannot be heard; stays until something can. */
    this.problem = "";
    audio.addEventListener("playing", () => (this.problem = ""));
    for (const event of ["play", "playing", "pause", "ended"]) audio.addEventListener(event, () => this.#tell("change"));
    audio.addEventListener("timeupdate", () => this.#tell("time"));
    audio.addEventListener("seeked", () => this.#tell("time"));
    audio.addEventListener("error", () => this.#failed());
  }

  get playing() {
    return Boolean(this.track) && !this.audio.paused && !this.audio.ended;
  }

  get position() {
    return this.pending ?? this.audio.currentTime;
  }

  get duration() {
    return Number.isFinite(this.audio.duration) ? this.audio.duration : (this.track?.duration ?? 0);
  }

  /**
   * Plays a track from a place.
   * @param {Playable} track
   * @param {Playable[]} list where it stands
   * @param {number} [from] seconds; without it the matching moment
   */
  async play(track, list, from = track.start) {
    this.list = list;
    if (this.track?.id === track.id && this.audio.src) {
      this.track = track;
      this.seek(from);
      await this.#start();
      return;
    }
    this.loading?.abort();
    const mine = new AbortController();
    this.loading = mine;
    this.track = track;
    this.problem = "";
    this.audio.pause();
    this.#release();
    this.#tell("change");
    try {
      const source = await this.api.audioSource(track.id, mine.signal);
      if (mine.signal.aborted) return;
      this.audio.src = source;
      this.seek(from);
      await this.#start();
    } catch (error) {
      if (!isAbort(error)) this.#say(`${track.title} cannot be played: ${/** @type {Error} */ (error).message}`);
    }
  }

  /** Play or pause; @param {number} [from] */
  toggle(from) {
    if (!this.track) return;
    if (this.playing) this.audio.pause();
    else if (from !== undefined) this.play(this.track, this.list, from);
    else this.#start();
  }

  /** @param {number} seconds */
  seek(seconds) {
    // Before its length is known an element takes no place; this one is then taken up when it is.
    if (this.audio.readyState >= HTMLMediaElement.HAVE_METADATA) {
      this.pending = undefined;
      this.audio.currentTime = Math.max(0, Math.min(seconds, this.duration || seconds));
    } else {
      this.pending = seconds;
      this.audio.addEventListener("loadedmetadata", () => this.pending !== undefined && this.seek(this.pending), {
        once: true,
      });
    }
    this.#tell("time");
  }

  /** The track before or after in its list. @param {1 | -1} step */
  beside(step) {
    const at = this.list.findIndex(({ id }) => id === this.track?.id);
    return at < 0 ? undefined : this.list[at + step];
  }

  /** @param {1 | -1} step */
  skip(step) {
    const other = this.beside(step);
    if (other) this.play(other, this.list);
  }

  close() {
    this.loading?.abort();
    this.audio.pause();
    this.#release();
    this.track = null;
    this.#tell("change");
  }

  async #start() {
    try {
      await this.audio.play();
    } catch (error) {
      // Another track was chosen before this one began; or what failed is told by the error event.
      if (/** @type {DOMException} */ (error).name === "NotAllowedError") this.#tell("change");
    }
  }

  #release() {
    if (this.audio.src.startsWith("blob:")) URL.revokeObjectURL(this.audio.src);
    this.pending = undefined;
    this.audio.removeAttribute("src");
    this.audio.load();
  }

  #failed() {
    if (!this.track || !this.audio.getAttribute("src")) return;
    const unknown = this.audio.error?.code === MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED;
    const why = unknown ? "its file is missing, or in a format that this browser does not know" : "its file broke off";
    this.#say(`${this.track.title} cannot be played: ${why}.`);
  }

  /** @param {string} sentence */
  #say(sentence) {
    this.problem = sentence;
    this.#tell("problem");
    this.#tell("change");
  }

  /** @param {string} event */
  #tell(event) {
    this.dispatchEvent(new Event(event));
  }
}
