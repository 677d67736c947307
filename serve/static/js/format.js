/** How numbers and names are written for people. */

/**
 * Seconds as minutes: 72.4 is 1:12.
 * @param {number | null | undefined} seconds
 */
export function clock(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const tail = String(rest).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

/**
 * Seconds as a screen reader should say them.
 * @param {number} seconds
 */
export function spoken(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [minutes, rest] = [Math.floor(whole / 60), whole % 60];
  return minutes ? `${plural(minutes, "minute")} ${plural(rest, "second")}` : plural(rest, "second");
}

/**
 * @param {number} number
 * @param {string} one
 * @param {string} [many]
 */
export function plural(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** @param {number} share from 0 to 1 */
export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

/** @param {number} bytes */
export function megabytes(bytes) {
  const mega = bytes / 1e6;
  return `${mega >= 10 ? Math.round(mega) : mega.toFixed(1)} MB`;
}

/**
 * What a track is called: its title, else the last part of its id.
 * @param {{id: string, title?: string | null}} track
 */
export function titleOf(track) {
  return track.title || track.id.split(/[\\/]/).pop() || track.id;
}

/**
 * A key of the metadata in words: `tags.genre` is genre, `duration_seconds` is duration.
 * @param {string} name
 */
export function fieldName(name) {
  return (name.split(".").pop() || name).replace(/_seconds$/, "").replaceAll("_", " ");
}
