/** Small helpers around the DOM. Text always goes in as text, never as HTML: a title may hold anything. */

/**
 * The element with this id; the page promises that it is there.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return /** @type {T} */ (found);
}

/**
 * A new element.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [facts] `class`, `text`, `on` (listeners by event); any other key is an attribute;
 *   null, undefined and false leave it out
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, facts = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(facts)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") made.textContent = String(value);
    else if (key === "class") made.className = String(value);
    else if (key === "on") {
      for (const [event, listener] of Object.entries(/** @type {Record<string, EventListener>} */ (value))) {
        made.addEventListener(event, listener);
      }
    } else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/**
 * Calls `then` once, when nothing has been asked for `milliseconds`.
 * @param {number} milliseconds
 * @param {() => void} then
 * @returns {{soon: () => void, now: () => void, cancel: () => void}}
 */
export function debounced(milliseconds, then) {
  let timer = 0;
  const cancel = () => clearTimeout(timer);
  const now = () => {
    cancel();
    then();
  };
  return {
    cancel,
    now,
    soon: () => {
      cancel();
      timer = setTimeout(then, milliseconds);
    },
  };
}

/**
 * Calls `draw` once in the next frame, however often it was asked for.
 * @param {() => void} draw
 * @returns {() => void}
 */
export function eachFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

/**
 * A canvas of as many pixels as the screen has there, and its context in CSS pixels.
 * @param {HTMLCanvasElement} canvas
 * @returns {{context: CanvasRenderingContext2D, width: number, height: number}}
 */
export function sharpContext(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
  // Setting a size empties the canvas and costs an allocation, also when it is the same size.
  if (canvas.width !== across || canvas.height !== down) {
    canvas.width = across;
    canvas.height = down;
  }
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/**
 * The colours that the style sheet names, as they are now.
 * @param {...string} names without the dashes
 * @returns {string[]}
 */
export function colours(...names) {
  const style = getComputedStyle(document.documentElement);
  return names.map((name) => style.getPropertyValue(`--${name}`).trim());
}
