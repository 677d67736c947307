/**
 * The server, as the page sees it: JSON in and out, problems as errors with a sentence, waiting when it is busy.
 */

/** @typedef {import("./types.js").RequestOptions} RequestOptions @typedef {import("./types.js").Upload} Upload */

const MOST_TRIES = 5;
const MOST_TRIES_LOADING = 300; // every two seconds: a large model or index takes minutes to load
const COOKIE_SAFE = /^[\w!#$%&'()*+\-./:<=>?@[\]^`{|}~]+$/; // RFC 6265
const LONGEST_WAIT = 30; // seconds; a server that wants more than this is better asked by hand

/** A refusal by the server, or no answer at all. `message` is a sentence for people. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{status?: number, kind?: string, retryAfter?: number | null, where?: string[]}} [facts] status 0: no answer;
   *   kind: the last part of the problem's type, such as `unknown-id`; where: the parts of the request it is about
   */
  constructor(message, { status = 0, kind = "", retryAfter = null, where = [] } = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.kind = kind;
    this.retryAfter = retryAfter;
    this.where = where;
  }
}

/** Says that a request was given up by the page itself. @param {unknown} error */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

export class Api {
  constructor() {
    // Relative to the page, so that it also works behind a proxy that puts it into a folder.
    this.base = new URL(".", location.href);
    /** @type {string | null} */
    this.token = null;
    /** Asks somebody for a token; null if there is none to be had. @type {(refused: boolean) => Promise<string | null>} */
    this.askToken = async () => null;
    /** Somebody is being asked. @type {Promise<string | null> | undefined} */
    this.asking = undefined;
    this.#restoreToken();
  }

  /**
   * @param {string} path
   * @param {Record<string, string | number | string[] | undefined>} [parameters]
   * @param {RequestOptions} [options]
   */
  get(path, parameters = {}, options = {}) {
    return this.#ask(this.url(path, parameters), { method: "GET" }, options);
  }

  /**
   * @param {string} path
   * @param {unknown} body
   * @param {RequestOptions} [options]
   */
  post(path, body, options = {}) {
    const headers = { "Content-Type": "application/json" };
    return this.#ask(this.url(path), { method: "POST", headers, body: JSON.stringify(body) }, options);
  }

  /**
   * @param {string} path
   * @param {Record<string, string | number | string[] | undefined>} [parameters]
   */
  url(path, parameters = {}) {
    const url = new URL(path, this.base);
    for (const [key, value] of Object.entries(parameters)) {
      if (value === undefined) continue;
      for (const one of Array.isArray(value) ? value : [value]) url.searchParams.append(key, String(one));
    }
    return url;
  }

  /** Where a track's audio lies. @param {string} id */
  audioUrl(id) {
    return this.url("v1/audio", { id }).href;
  }

  /**
   * What an audio element can be given: the address, or a copy where the token has to be sent and is no cookie.
   * @param {string} id
   * @param {AbortSignal} signal
   */
  async audioSource(id, signal) {
    if (!this.token || COOKIE_SAFE.test(this.token)) return this.audioUrl(id);
    const response = await this.#fetch(this.url("v1/audio", { id }), { signal, headers: this.#headers() });
    if (!response.ok) throw await problem(response);
    return URL.createObjectURL(await response.blob());
  }

  /**
   * Sends a file; only XMLHttpRequest tells how far it is.
   * @param {File} file
   * @param {{signal: AbortSignal, onProgress: (share: number) => void}} options
   * @returns {Promise<Upload>}
   */
  async upload(file, { signal, onProgress }) {
    for (let tries = 0; ; tries += 1) {
      try {
        return await this.#send(file, signal, onProgress);
      } catch (error) {
        if (!(error instanceof ApiError) || tries >= MOST_TRIES) throw error;
        if (!(await this.#mayTryAgain(error, signal, tries, undefined))) throw error;
      }
    }
  }

  /**
   * @param {File} file
   * @param {AbortSignal} signal
   * @param {(share: number) => void} onProgress
   * @returns {Promise<Upload>}
   */
  #send(file, signal, onProgress) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const form = new FormData();
      form.append("file", file, file.name);
      request.open("POST", this.url("v1/uploads"));
      request.responseType = "text";
      for (const [key, value] of Object.entries(this.#headers())) request.setRequestHeader(key, value);
      request.upload.addEventListener("progress", (event) => {
        if (event.lengthComputable) onProgress(event.loaded / event.total);
      });
      request.addEventListener("load", () => {
        if (request.status >= 200 && request.status < 300) resolve(JSON.parse(request.responseText));
        else reject(problemOf(request.status, request.getResponseHeader("Retry-After"), request.responseText));
      });
      request.addEventListener("error", () => reject(unreachable()));
      request.addEventListener("abort", () => reject(new DOMException("given up", "AbortError")));
      if (signal.aborted) reject(new DOMException("given up", "AbortError"));
      else {
        signal.addEventListener("abort", () => request.abort(), { once: true });
        request.send(form);
      }
    });
  }

  /**
   * @param {URL} url
   * @param {RequestInit} request
   * @param {RequestOptions} options
   */
  async #ask(url, request, { signal, onWait }) {
    for (let tries = 0; ; tries += 1) {
      const response = await this.#fetch(url, {
        ...request,
        signal,
        headers: { Accept: "application/json", ...this.#headers(), ...request.headers },
      });
      if (response.ok) return response.json();
      const error = await problem(response);
      const most = error.kind === "loading" ? MOST_TRIES_LOADING : MOST_TRIES;
      if (tries >= most || !(await this.#mayTryAgain(error, signal, tries, onWait))) throw error;
    }
  }

  /**
   * Waits for what a refusal asks for, if it is something that can be had.
   * @param {ApiError} error
   * @param {AbortSignal | undefined} signal
   * @param {number} tries
   * @param {((seconds: number) => void) | undefined} onWait
   */
  async #mayTryAgain(error, signal, tries, onWait) {
    if (error.status === 401) {
      const given = await this.#newToken(tries > 0 || this.token !== null);
      return given !== null;
    }
    // 503 comes with Retry-After while a catalogue is being loaded; without it nothing says that waiting helps.
    const busy = error.status === 429 || (error.status === 503 && error.retryAfter !== null);
    const seconds = error.retryAfter ?? 2 ** tries;
    if (!busy || seconds > LONGEST_WAIT) return false;
    onWait?.(seconds);
    await pause(seconds * 1000, signal);
    return true;
  }

  /** Several requests may be refused at once, and somebody should be asked once. @param {boolean} refused */
  #newToken(refused) {
    this.asking ??= this.askToken(refused).finally(() => {
      this.asking = undefined;
    });
    return this.asking.then((token) => {
      if (token !== null) this.#keepToken(token);
      return token;
    });
  }

  #headers() {
    return /** @type {Record<string, string>} */ (this.token ? { Authorization: `Bearer ${this.token}` } : {});
  }

  /**
   * @param {URL} url
   * @param {RequestInit} request
   */
  async #fetch(url, request) {
    try {
      return await fetch(url, request);
    } catch (error) {
      if (isAbort(error)) throw error;
      throw unreachable();
    }
  }

  #restoreToken() {
    try {
      this.token = sessionStorage.getItem("token");
    } catch {
      // Storage may be forbidden; then the token is asked for again.
    }
  }

  /** @param {string} token */
  #keepToken(token) {
    this.token = token;
    // An audio element sends no headers, but it does send cookies, and can then play before it has all.
    if (COOKIE_SAFE.test(token)) document.cookie = `xmodal_token=${token}; path=/; SameSite=Strict`;
    try {
      sessionStorage.setItem("token", token);
    } catch {
      // As above.
    }
  }
}

function unreachable() {
  return new ApiError("The server does not answer. It may have been stopped, or the connection is gone.");
}

/** @param {Response} response */
async function problem(response) {
  return problemOf(response.status, response.headers.get("Retry-After"), await response.text().catch(() => ""));
}

/**
 * The sentence of a problem document (RFC 9457), or one of our own for an answer that is none.
 * @param {number} status
 * @param {string | null} retryAfter
 * @param {string} body
 */
function problemOf(status, retryAfter, body) {
  let said;
  try {
    said = JSON.parse(body);
  } catch {
    said = {};
  }
  const seconds = retryAfter === null ? Number.NaN : Number(retryAfter);
  const detail = typeof said?.detail === "string" && said.detail ? said.detail : `The server answered with ${status}.`;
  const errors = Array.isArray(said?.errors) ? said.errors : [];
  return new ApiError(sentence(detail), {
    status,
    kind: typeof said?.type === "string" ? said.type.split(":").pop() : "",
    retryAfter: Number.isFinite(seconds) ? Math.max(0, seconds) : null,
    where: errors.map((/** @type {{where?: unknown}} */ one) => String(one?.where ?? "")),
  });
}

/** With a capital and a full stop, as it is shown alone. @param {string} text */
function sentence(text) {
  const upper = text[0].toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(upper) ? upper : `${upper}.`;
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("given up", "AbortError"));
    });
  });
}
