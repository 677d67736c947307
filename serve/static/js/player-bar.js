/** The bar at the foot of the page: what plays, where it is, and keys that work anywhere on the page. */

import { byId } from "./dom.js";
import { clock } from "./format.js";
import { announce } from "./notices.js";
import { Wave, loadWave } from "./waveform.js";

const STEP = 5; // seconds an arrow key moves

/**
 * @param {import("./player.js").Player} player
 * @param {import("./waveform.js").Waveforms} waveforms
 * @returns {() => void} repaints the waveform, for when colours have changed
 */
export function startPlayerBar(player, waveforms) {
  const bar = byId("player");
  const play = byId("player-play");
  const wave = new Wave(/** @type {HTMLCanvasElement} */ (byId("player-wave")), {
    onSeek: (seconds) => player.track && player.play(player.track, player.list, seconds),
  });
  let shown = "";

  const time = () => {
    wave.setPosition(player.position, true);
    byId("player-time").textContent = `${clock(player.position)} / ${clock(player.duration)}`;
  };

  player.addEventListener("time", time);
  player.addEventListener("change", () => {
    const track = player.track;
    bar.hidden = !track;
    document.body.classList.toggle("with-player", Boolean(track));
    if (!track) {
      shown = "";
      return;
    }
    if (track.id !== shown) {
      shown = track.id;
      wave.describe({ ...track, start: track.end === null ? null : track.start });
      // A new list of hits drops what older ones still waited for, and that may be this one.
      loadWave(wave, waveforms, track.id).then((done) => done || shown !== track.id || loadWave(wave, waveforms, track.id));
    }
    showPlay(play, player.playing, track.title);
    const name = byId("player-name");
    name.classList.toggle("wrong", Boolean(player.problem));
    name.textContent = player.problem || (track.by ? `${track.title} · ${track.by}` : track.title);
    for (const [id, step] of /** @type {const} */ ([["player-back", -1], ["player-next", 1]])) {
      /** @type {HTMLButtonElement} */ (byId(id)).disabled = !player.beside(step);
    }
    time();
  });
  player.addEventListener("problem", () => announce(player.problem));

  play.addEventListener("click", () => player.toggle());
  byId("player-back").addEventListener("click", () => player.skip(-1));
  byId("player-next").addEventListener("click", () => player.skip(1));
  byId("player-close").addEventListener("click", () => {
    player.close();
    byId("content").focus({ preventScroll: true });
  });
  document.addEventListener("keydown", (event) => pageKey(event, player));
  return () => {
    if (player.track) time();
  };
}

/**
 * The face of a play button.
 * @param {HTMLElement} button
 * @param {boolean} playing
 * @param {string} title
 * @param {string} [from] such as "from 0:12"
 */
export function showPlay(button, playing, title, from = "") {
  button.classList.toggle("playing", playing);
  button.setAttribute("aria-label", playing ? `Pause ${title}` : `Play ${title}${from && ` ${from}`}`);
}

/**
 * Space and arrows, wherever they mean nothing else.
 * @param {KeyboardEvent} event
 * @param {import("./player.js").Player} player
 */
function pageKey(event, player) {
  const target = /** @type {HTMLElement} */ (event.target);
  const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey;
  if (!player.track || !plain || event.defaultPrevented) return;
  const takesKeys = target.closest("input, select, textarea, [role=application], [role=slider], dialog, summary");
  if (takesKeys) return;
  if (event.key === " " && !target.closest("button, a")) player.toggle();
  else if (event.key === "ArrowLeft") player.seek(player.position - STEP);
  else if (event.key === "ArrowRight") player.seek(player.position + STEP);
  else return;
  event.preventDefault();
}
