/**
 * Where things are on the map: pure functions between the map's own units, in which all tracks lie from −1 to 1, and
 * the canvas.
 *
 * @typedef {import("./state.js").Camera} Camera x and y are the middle of the canvas in map units
 * @typedef {{width: number, height: number}} Size in CSS pixels
 */

export const WHOLE = Object.freeze({ x: 0, y: 0, zoom: 1 });
const MOST_ZOOM = 60;
const MARGIN = 0.94; // of the canvas is used by the whole map

/** CSS pixels to a map unit. @param {Camera} camera @param {Size} size */
export function scaleOf(camera, size) {
  return ((Math.min(size.width, size.height) * MARGIN) / 2) * camera.zoom;
}

/**
 * @param {Camera} camera
 * @param {Size} size
 * @param {number} x
 * @param {number} y
 * @returns {[number, number]}
 */
export function toScreen(camera, size, x, y) {
  const scale = scaleOf(camera, size);
  return [size.width / 2 + (x - camera.x) * scale, size.height / 2 - (y - camera.y) * scale];
}

/**
 * @param {Camera} camera
 * @param {Size} size
 * @param {number} across
 * @param {number} down
 * @returns {[number, number]}
 */
export function toMap(camera, size, across, down) {
  const scale = scaleOf(camera, size);
  return [camera.x + (across - size.width / 2) / scale, camera.y - (down - size.height / 2) / scale];
}

/**
 * The camera after a drag by so many pixels.
 * @param {Camera} camera
 * @param {Size} size
 * @param {number} across
 * @param {number} down
 */
export function moved(camera, size, across, down) {
  const scale = scaleOf(camera, size);
  return fair({ ...camera, x: camera.x - across / scale, y: camera.y + down / scale });
}

/**
 * The camera after zooming, with the point under the pointer kept where it is.
 * @param {Camera} camera
 * @param {Size} size
 * @param {number} factor
 * @param {number} across
 * @param {number} down
 */
export function zoomed(camera, size, factor, across = size.width / 2, down = size.height / 2) {
  const [x, y] = toMap(camera, size, across, down);
  const zoom = Math.max(0.5, Math.min(MOST_ZOOM, camera.zoom * factor));
  const [now, then] = [scaleOf(camera, size), scaleOf({ ...camera, zoom }, size)];
  return fair({ zoom, x: x - ((x - camera.x) * now) / then, y: y - ((y - camera.y) * now) / then });
}

/** Not so far away that nothing is seen. @param {Camera} camera @returns {Camera} */
export function fair({ x, y, zoom }) {
  const inside = (/** @type {number} */ value) => Math.max(-1, Math.min(1, value));
  return { x: inside(x), y: inside(y), zoom: Math.max(0.5, Math.min(MOST_ZOOM, zoom)) };
}

/**
 * The nearest of the points to a place on the canvas, or -1.
 * @param {ArrayLike<number>} screen x and y of each point in turn
 * @param {number} across
 * @param {number} down
 * @param {number} reach CSS pixels
 */
export function nearest(screen, across, down, reach) {
  let best = -1;
  let least = reach * reach;
  for (let at = 0; at < screen.length; at += 2) {
    const far = (screen[at] - across) ** 2 + (screen[at + 1] - down) ** 2;
    if (far <= least) {
      least = far;
      best = at / 2;
    }
  }
  return best;
}

/**
 * Whether a point lies inside of a closed line, by the even-odd rule.
 * @param {number[][]} corners
 * @param {number} x
 * @param {number} y
 */
export function inside(corners, x, y) {
  let odd = false;
  for (let at = 0, before = corners.length - 1; at < corners.length; before = at, at += 1) {
    const [ax, ay] = corners[at];
    const [bx, by] = corners[before];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
  }
  return odd;
}

/**
 * A line with at most so many corners, taken at equal steps: an address should stay short.
 * @param {number[][]} corners
 * @param {number} most
 */
export function thinned(corners, most) {
  if (corners.length <= most) return corners;
  return Array.from({ length: most }, (_, at) => corners[Math.floor((at * corners.length) / most)]);
}
