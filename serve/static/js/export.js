/** A list of tracks as a file: M3U for a player, CSV for a table. */

import { el } from "./dom.js";
import { titleOf } from "./format.js";

/** @typedef {import("./types.js").Listed} Listed */

const COLUMNS = ["rank", "id", "title", "artist", "album", "score", "start_seconds", "end_seconds", "duration_seconds", "tags", "audio"];

/**
 * A playlist whose entries are played from this server, from the matching moment where the player knows how.
 * @param {Listed[]} tracks
 * @param {(id: string) => string} urlOf
 */
export function asM3u(tracks, urlOf) {
  const lines = ["#EXTM3U"];
  for (const track of tracks) {
    const name = [track.artist, titleOf(track)].filter(Boolean).join(" - ");
    lines.push(`#EXTINF:${Math.round(track.duration_seconds || -1)},${name.replace(/\s+/g, " ")}`);
    if (track.start_seconds) lines.push(`#EXTVLCOPT:start-time=${track.start_seconds}`);
    lines.push(urlOf(track.id));
  }
  return `${lines.join("\n")}\n`;
}

/**
 * A table (RFC 4180) with the columns that its first line names.
 * @param {Listed[]} tracks
 * @param {(id: string) => string} urlOf
 */
export function asCsv(tracks, urlOf) {
  const rows = tracks.map((track, place) => [
    place + 1,
    track.id,
    track.title,
    track.artist,
    track.album,
    track.score,
    track.start_seconds,
    track.end_seconds,
    track.duration_seconds,
    (track.tags || []).map((tag) => (typeof tag === "string" ? tag : tag.name)).join("; "),
    urlOf(track.id),
  ]);
  return `${[COLUMNS, ...rows].map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

/**
 * Hands a text to the browser as a file.
 * @param {string} name
 * @param {string} type
 * @param {string} text
 */
export function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: url, download: name });
  link.click();
  // The browser reads it after this task, and a short list costs nothing to keep a moment longer.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** @param {unknown} value */
function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  let text = String(value);
  // A spreadsheet runs what begins like this as a formula, and a title may hold anything.
  if (/^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
